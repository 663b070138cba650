// Package store is the store gateway: the blocks of a bucket as a series.Source.
//
// Flow:
//
//	Sync: block.Fetcher -> view -> plan: filters (which blocks) -> families in which something changed -> a new snapshot.
//	        No block is read
//	Select: snapshot -> tenant's streams -> cover (which block at which time) -> per block: postings -> batches of series
//	        -> their chunks -> merge -> external labels
//	A block's index-header is opened at its first use (headers) and closed when it is idle
//	A block that is gone or broken: judge (whose fault) -> replan (sync, or plan without it) -> the request begins anew
//
// Invariants:
//   - What is served is an immutable snapshot, replaced whole; a select keeps the blocks it began with open to its end.
//   - A block that cannot be opened or read is named, in the log or as a warning of the answer, and never keeps another
//     from being served.
//   - Every byte that comes from the bucket is checked (CRC32 of index sections, series and chunks) before it is
//     decoded.
//   - Bytes are counted before they are read: against the request's limit, then against the process's.
//
// Locks, in order: Gateway.turn, which is held while the bucket is listed; planMu; mu; lazyHeader.mu; headers.mu. Only
// turn is held while a bucket is read. Under any other mutex, such as that of behind, of a request or of the hedger,
// none of these is taken.
package store
