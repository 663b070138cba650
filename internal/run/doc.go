// Package run is the life of a process and of its parts: open in order, run until a signal or a failure, close in
// reverse.
//
// Invariants: a part that was opened is closed exactly once; a part that failed to open is not closed.
package run
