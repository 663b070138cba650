// Package wire turns the bytes of a write request (remote write 1.0 and 2.0) into a Batch: one tenant's series as
// canonical label bytes, a 128-bit key, a placement hash, and samples.
//
// Flow:  body -> snappy -> DecodeV1 or DecodeV2 -> Batch -> Shard per member -> tsdb or internal/rpc
//
//	batch.go          the types; newbatch.go and builder.go: batches that are not decoded from remote write
//	buffer.go         a body, as it came and decompressed; gzip.go; pool.go: the memory of batches, used again
//	v1.go, v2.go      the two versions of remote write; remotewrite.go, histogram.go, metadata.go: what they share;
//	                  protobuf.go: reading of fields
//	canonical.go      canonical label bytes; labels.go: the general way to them; asciilabels.go: the fast way
//	seriescache.go    series are found by a hash of the bytes that name them; rawlabels.go: their labels, made only when
//	                  somebody asks; hash128.go, refshash.go: the hashes
//	duplicates.go     series that a request names several times become one
//	rewrite.go        new batches of the series of another one
//	budget.go         memory is asked for before it is used
//	frame.go          a Shard as bytes between processes: AppendShard and DecodeShard, with labels each time
//	streamencoder.go, streamdecoder.go  the two ends of a stream, which names a series by a number once its labels have
//	                  travelled (docs/design/007); seriesnumbers.go: the sender's numbers; sharedseries.go: the
//	                  receiver's
//	                  series, held once for all streams
//
// OTLP is translated by the sub-package otlp, which fills a batch sample by sample (builder.go). Hashes, and so keys,
// are of this process alone.
//
// Invariants:
//   - No string is made for a float series. What a Batch refers to belongs to its pooled buffers until the last
//     Release, or to SharedSeries, whose labels do not change.
//   - One series has one Key and one Hash, by whichever protocol and in whatever label order it came.
//   - A batch that was decoded from a request, or rewritten, has each series once (duplicates.go).
//   - What a message means is what Prometheus's own decoder and write handler make of it, with two exceptions: the
//     sender learns of bad series of remote write 1.0, and an empty label is no label (diff_test.go, fuzz tests).
//   - Memory is bounded by the size of the message, whatever it claims (maxExpansion).
//   - Canonical bytes are unambiguous: a label that is not valid UTF-8 (0xff cannot occur in UTF-8) never enters a
//     Batch.
//
// Locks: SeriesCache.mu for additions; reading it takes none. SharedSeries.mu, alone, when numbers are assigned and
// when streams end. A Batch is read-only after decoding, and its reference count is atomic.
package wire
