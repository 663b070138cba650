// Package files reads groups of rules from files, and follows these.
//
// Flow: patterns, and a directory with one directory for each tenant -> paths -> a file that changed is parsed again
// -> the last good form of each file -> definition.Source
//
// Invariants: a file that is wrong or cannot be read keeps its last good form, and is named; the others go on. A file
// that is gone takes its groups with it, unless its directory cannot be read.
//
// Locks: Files.reading is held during a read. Files.mu guards the result. It is held for a few steps, never during I/O.
package files
