// Command compact compares Hearth's compactor with Thanos's: each makes one pass over its own copy of the same bucket,
// one after the other.
//
// Flow: cases.go says which buckets there are; bench/blocks writes each once, into -data -> bed.go copies the bucket
// and runs one program over it, and pass.go measures that process -> content.go reads every series of what is left
// and not marked for deletion, and the two results are compared -> report.go writes the table.
//
//	make bench-compact PEERS=dir                        # dir holds thanos and versitygw
//	make bench-compact PEERS=dir BENCHFLAGS=-quick      # a tenth of the data
//
// A pass that fails, or whose result differs from the samples that were written, is an error.
package main
