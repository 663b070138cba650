// Command ingest compares what it costs Hearth and its peers to take the same remote-write load.
//
//	make bench-ingest PEERS=dir        # dir holds thanos, prometheus, victoria-metrics; absent ones are skipped
//	go run ./bench/ingest -peers dir -quick
//	go run ./bench/ingest -peers dir -cases 'RF=3' -profile profiles
//	go run ./bench/ingest -quick -cases 'RF=3, 1.0' -concurrency 4,32   # what many senders cost
//
// A case is a replication factor, a protocol, a number of series and a churn. Flow: the load of a case is encoded and
// compressed once -> in each round every peer starts with an empty disk, is sent exactly those bytes as fast as it
// takes them, and ends -> the report gives the median of the rounds.
//
// A scrape is one sample of each series. The first scrape, which creates the series, and the next two are reported
// apart; the figures are of the steady scrapes after them. CPU is user and system time of all server processes from
// the first steady request until two seconds after the last answer, so that work put off counts too. The sender's own
// CPU is in no figure, but it runs on the same machine. Requests are not tried again: one that fails is reported as
// such.
package main
