// Package run is the life of a process: its parts open in order, run until a signal or a failure, and close in reverse
// (Group). It also knows how much memory the process may use (MemoryLimit), and sets the garbage collector (Collector).
//
// Invariants: a part that was opened is closed exactly once; a part that failed to open is not closed.
package run
