// Package xor reads and writes XOR chunks of floats, all samples of a chunk at once: the same bytes and samples as
// Prometheus's chunkenc, in a fraction of the time. It is for those who read or write many whole chunks: the merge of
// blocks (block/merge) and downsampling (compact/downsample). BitReader is for those who read the layout of a histogram
// chunk, too.
//
// Invariants:
//   - Writer has written the bytes of chunkenc's appender, and Samples.Append the samples of its iterator.
//   - Bytes of any kind are read or refused. No more memory is made than 16 bytes for each two bits.
//
// Locks: none.
package xor
