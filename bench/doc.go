// Package bench measures whole paths through several packages: a write from its bytes to the WAL.
//
// Benchmarks of one package stand beside it. bench/load sends to running processes, bench/ingest compares Hearth with
// its peers, bench/faults measures what writers notice of broken members, bench/mixedring counts copies in rings of
// Thanos and Hearth members; bench/samples and bench/server are what these share.
package bench
