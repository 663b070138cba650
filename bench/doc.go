// Package bench measures whole paths through several packages: a write from its bytes to the WAL.
//
// Benchmarks of one package stand beside it. bench/load sends to running processes, bench/ingest compares Hearth with
// its peers, bench/store compares the store gateways, bench/faults measures what writers notice of broken members,
// bench/mixedring counts copies in rings of Thanos and Hearth members, bench/mkblocks writes buckets; bench/samples,
// bench/blocks, bench/server and bench/gateway are what these share.
package bench
