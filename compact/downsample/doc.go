// Package downsample makes chunks of windows of 5 minutes out of raw chunks, and of an hour out of those
// (docs/design/032-downsampling.md, docs/format/downsampled-chunks.md).
//
// Flow:
//
//	merge.Run -> Tee(raw writer, Stage of 5 minutes -> Tee(writer, Stage of an hour -> writer))
//	Stage: a chunk -> samples -> the open window of the open chunk -> five encoded parts -> the next Sink
//
// A block is read once, by the compaction that makes it, for both resolutions.
//
// Invariants:
//   - Windows begin at multiples of their length, chunks at multiples of 120 windows, whatever the series has. So a
//     chunk depends on its own samples alone, and no count of them is needed ahead.
//   - One chunk of a series is in the making at a time. Its windows are all that is kept, besides what was made of the
//     series.
//   - Where the input is damaged, Add fails and names the series. Nothing in it makes the package panic.
//
// Locks: none. A Stage is used by one goroutine.
package downsample
