// Package seriesref remembers by which reference the head of one tenant knows a series, so that a write need not
// build and look up the labels of a known series.
//
// Flow:  wire.Series -> Cache.Find (by hint, else by key) -> append by reference -> commit -> Cache.Put and Cache.Hint
//
// Invariants:
//   - A reference belongs to one label set for the life of its head: heads number series upwards. So a hit is never
//     wrong.
//   - A reference is put into the cache only when the transaction that made it is committed. A cache dies with its
//     head.
//
// Locks: Cache.mu is for writes. Find takes none. A Set belongs to one goroutine.
package seriesref
