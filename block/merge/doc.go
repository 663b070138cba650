// Package merge writes blocks: it merges the series of several blocks into one stream, and a stream into blocks. The
// compactor, the downsampler and the tools that rewrite blocks all use it, so there is one writer of blocks
// (docs/design/031-merge.md).
//
// Flow:
//
//	Input: index -> local file, read once from its symbols to the end of its series; segments -> streamed forward
//	Run:   symbols -> one merged table, and a map from each input's symbols to it
//	       series in order of their labels, as numbers of that table -> k-way merge -> union of chunks -> Sink
//	Sink:  BlockWriter, Tee, Split, or a stage in front of them (downsampling, deletion)
//
// Invariants:
//   - A chunk that no other input overlaps is copied byte for byte. Equal chunks of several inputs are one.
//   - Memory is bounded by the options, whatever the size of the inputs. Only one series with its chunks is in memory.
//   - The same inputs and settings make the same bytes, whatever the order of inputs and the memory.
//   - All checksums of what is read are verified. What is wrong with an input is an error that names it.
//
// Locks: none. A Run, and each Sink, is used by one goroutine.
package merge
