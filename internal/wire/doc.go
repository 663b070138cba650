// Package wire turns the bytes of a write request (remote write 1.0 and 2.0) into a Batch: one tenant's series as
// canonical label bytes, a 128-bit key, a placement hash, and samples.
//
// Flow:  body -> snappy -> DecodeV1 or DecodeV2 -> Batch -> Shard per member -> tsdb or internal/rpc
//
// A SeriesCache, in front, knows series again by a hash128 of the bytes that they are named with: their labels are then read only for
// who asks for them (Series.Labels). Digests (hash128.go), and so keys, are of this process alone.
//
// Between processes a shard is a frame: AppendShard and DecodeShard with labels each time, StreamEncoder and StreamDecoder, the two
// ends of a stream, with a number for what was named before (docs/design/007). SharedSeries holds what numbers stand for.
//
// OTLP is translated by the sub-package otlp, which fills a batch sample by sample (translated.go).
//
// Invariants:
//   - No string is made for a float series; what a Batch refers to belongs to its pooled buffers until the last Release, or
//     to names, which do not change.
//   - One series has one Key and one Hash, by whichever protocol and in whatever label order it came.
//   - A batch that was decoded from a request, or rewritten, has each series once (unite.go).
//   - What a message means is what Prometheus's own decoder and write handler make of it, but for two things: bad series
//     of remote write 1.0 are told to the sender, and an empty label is no label (diff_test.go, fuzz tests).
//   - Memory is bounded by the size of the message, whatever it claims (maxExpansion).
//   - Canonical bytes are unambiguous: a label that is not valid UTF-8 (0xff cannot occur in UTF-8) never enters a Batch.
//
// Locks: SeriesCache.mu for additions; reading it takes none. SharedSeries.mu, alone, when numbers are given and when streams end. A Batch is read-only after decoding, and its reference count atomic.
package wire
