// Package capacity watches what a receiver may run out of: disk space (Disk), and open files with memory maps
// (Files). Both refuse before nothing is left, because a TSDB that meets a full disk, or cannot open a file, in the
// middle of a write has to be closed and opened again.
//
// Flow:  each write asks Disk.Refusal; each opening of a tenant asks Files.Admit
//
// Invariants:
//   - Disk looks at the disk at most every 50 ms. What is written in between comes out of the space that is kept free.
//   - Files counts; it does not look at the process. What a tenant and a block hold is measured in a test.
//
// Both are safe for concurrent use, and have no locks.
package capacity
