// Package bench measures whole paths through several packages: a write from its bytes to the WAL.
//
// Benchmarks of one package stand beside it; bench/load measures running processes.
package bench
