// Package reloader keeps the configuration of a Prometheus up to date: it writes the file that Prometheus reads, from
// one with variables, and has Prometheus read its configuration and rules again when they changed.
//
// Flow: files change, or WatchInterval is over -> prepare reads all files, writes the output, and returns one hash of
// them -> Trigger, if the hash is not that of the last reload that went well -> again after RetryInterval, if it failed
//
// Invariants:
//   - The output is written before Prometheus is asked for anything: a Prometheus that waits for its configuration must
//     get it.
//   - The output is replaced as a whole, readable for the owner alone, as variables may be secrets. Links are not
//     followed when it is written.
//   - A fault ends nothing: it is in metrics and the log, and is tried again.
//   - What is read is bounded before it is unpacked or hashed.
//
// Locks: none. One goroutine does everything.
package reloader
