// Package series is the read contract of Hearth: what a Source is, and what a Set of series promises. It also has the
// steps that every read shares: it merges sorted sets, unites the replicas of a ring, merges HA replicas (dedup), and
// reads raw and downsampled chunks as one sequence of samples.
//
// Flow:
//
//	Source.Select (tsdb, store, sidecar, gRPC client)
//	  -> Checked, for sets of foreign stores
//	  -> Merge: one set of all sources; equal series become one, with the chunks of all replicas
//	  -> Storage or Dedup: a storage.SeriesSet for the query engine
//	  -> Reading.Iterator: the union of the chunks' samples
//
// A StoreAPI stream takes the set of Select as it is. Coverage and Uncovered decide beside this flow whether all blocks
// that a query needs were served.
//
// Invariants:
//   - A Set yields series in labels.Compare order, each label set once, chunks in (MinTime, MaxTime) order.
//   - A Set is one tenant's. Tenant and ring replica are attributes of the stream and not in its labels.
//   - All that a Set yields stays valid until its Close.
//   - The samples of a series do not depend on the order of its replicas, and not on seeks.
//
// Locks: none. A Set or an iterator is used by one goroutine, a Source by many.
package series
