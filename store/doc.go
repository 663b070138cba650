// Package store is the store gateway: the blocks of a bucket as a series.Source.
//
// Flow:
//
//	Sync: block.Fetcher -> block.View.Select (which blocks) -> indexheader.Load each -> a new snapshot
//	Select: snapshot -> tenant's streams -> cover (which block at which time) -> per block: postings -> batches of series
//	        -> their chunks -> merge -> external labels
//
// Invariants:
//   - What is served is an immutable snapshot, replaced whole; a select keeps the blocks it began with open to its end.
//   - A block that cannot be opened or read is named, in the log or as a warning of the answer, and never keeps another
//     from being served.
//   - Every byte that comes from the bucket is checked (CRC32 of index sections, series and chunks) before it is
//     decoded.
//   - Bytes are counted before they are read: against the request's limit, then against the process's.
//
// Locks: Gateway.syncMu before Gateway.mu. Neither is held during a select; syncMu is held while the bucket is listed.
package store
