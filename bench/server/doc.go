// Package server runs what the benchmarks write to: Hearth and its peers, each with documented settings on loopback,
// in a fresh directory.
//
// Flow: Find names the peers whose binaries are there -> Launch starts the processes of one and waits until each of its
// write URLs has stored a sample -> the benchmark reads Usage before and after -> Flush makes blocks of what came in ->
// Close ends the processes and removes the directory.
//
// A Cluster has no lock: one goroutine owns it. Process.Usage and Process.Signal may be called from any.
package server
