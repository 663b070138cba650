// Package merge writes blocks: it merges the series of several blocks into one stream, and a stream into blocks. The
// compactor, the downsampler and the tools that rewrite blocks all use it, so there is one writer of blocks.
//
// Flow:
//
//	blocks in a bucket -> series in order of their labels, chunks as bytes -> k-way merge -> Sink
//	Sink: a block writer, or a stage in front of one (downsampling, deletion)
//
// Invariants:
//   - A chunk that no other input overlaps is copied byte for byte.
//   - Memory is bounded by the options, whatever the size of the inputs.
//   - The same inputs and settings make the same bytes.
package merge
