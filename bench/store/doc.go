// Command store compares Hearth's store gateway with Thanos's on the same bucket, over StoreAPI, one after the other.
//
// Flow: bench/blocks writes the buckets, once, into -data -> starts.go measures how long a gateway takes from its start
// to the first correct answer, with an empty and a warm disk, and what a steady look at the bucket costs -> queries.go
// asks each query cold and warm and compares the answers of both -> dashboard.go lets many clients ask for one
// dashboard -> report.go writes the tables.
//
//	make bench-store PEERS=dir                        # dir holds thanos and versitygw
//	make bench-store PEERS=dir BENCHFLAGS=-quick      # three minutes
//
// A gateway's answer that differs from the other's is an error, and so is one of a wrong number of series or samples.
package main
