// Package series is the read contract of Hearth and what is done with series on the way: merging sorted sets, the union
// of ring replicas, dedup of HA pairs, aggregate chunks.
//
// Flow:  Source.Select (tsdb, store, sidecar, rpc client) -> Merge -> union -> dedup -> the query engine or a StoreAPI
// stream
//
// Invariants:
//   - A Set yields series in labels.Compare order, each label set once, chunks in (MinTime, MaxTime) order.
//   - A Set is one tenant's. Tenant and ring replica are attributes of the stream and not in its labels.
//   - Everything a Set yields stays valid until its Close.
//
// Locks: none here; a Set is used by one goroutine, a Source by many.
package series
