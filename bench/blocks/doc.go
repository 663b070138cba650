// Package blocks writes buckets for the benchmarks: directories of blocks as receivers and compactors leave them, fast
// and the same bytes for the same Plan.
//
// Flow: Write -> a data directory (index and chunks) for each two-hour window, written once by the library's own
// writers -> a block of it for each tenant, by hard links where the file system has them -> meta.json with the block's
// own id, times and external labels. A large block is written alone, raw and downsampled, series by series.
//
// Chunks are few and shared: a series takes one of a fixed number of prototypes, so that two million series cost no
// encoding. The times in an index are those of its meta.json; only tenants share data, never windows.
//
// Invariants: what is written depends on the Plan alone, not on the clock or on how goroutines run. meta.json is
// written last. There are no locks; a window belongs to one goroutine.
package blocks
