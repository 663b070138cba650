// Command faults measures what the writers of a cluster notice of a member that is stopped, dark, full, damaged or
// dead, and of heavy queries.
//
//	make bench-faults
//	go run ./bench/faults -hearth bin/hearth -only 'stopped|dark'
//
// A distributor and three receivers with replication factor 3 run on loopback. Two tenants write at a constant rate
// that does not wait for answers; latency counts from when a request was due, so that a stall shows in every request
// it delays.
//
// Flow of one fault: a time without it -> it begins -> it lasts -> it ends -> the member stores again as much as the
// others.
//
// Memory is the resident set of all processes. A fault that needs root, where there is none, is skipped by name.
package main
