// Package tsdb is many tenants' Prometheus TSDBs in one directory. It appends by cached series reference, selects,
// cuts heads into blocks, and closes tenants that are not written to.
//
// Flow:  Append -> seriesref.Cache (key -> reference) -> head appender -> WAL -> head -> cut -> block -> (shipped by
// receive) -> deleted
//
// Layout: each tenant has a directory as Prometheus's TSDB makes it, plus files of our own, which tsdb/tenantdir knows.
// docs/format/tenant-directory.md lists them all.
//
// Packages below: tenantdir (marks, summary, metadata, deletion), repair (logs of a process that died), seriesref
// (which reference a series has), capacity (disk space and open files).
//
// Invariants:
//   - A sample that Append acknowledged is in the WAL, or, out of order, in the WBL. A log that could not be written
//     makes the tenant read-only until it has been reopened.
//   - A cached reference always belongs to the labels of its key: heads count references up, the cache dies with its
//     head, and a reference is cached only once the transaction that made it is committed.
//   - A sample is acknowledged only if it is stored with its value, or the same value was stored before
//     (docs/design/014-what-is-stored.md). Where blocks have two values for one time, every read gives the same one.
//   - In-order samples of a range that is being cut, or was cut, do not enter the head any more: the fence (cut.go).
//   - No block is deleted before it is Shipped and older than the retention.
//   - A directory without a mark is neither opened nor written into, and only what tenantdir lists is ever deleted.
//   - A block that cannot be read costs its tenant that block, and nothing else.
//   - A semaphore that other tenants need (DB.openings, DB.cuts) is not held while waiting for readers, writers or a
//     peer.
//   - A TSDB is closed only when nobody uses it: readers hold memory that closing unmaps.
//
// Locks, in order: DB.mu, tenantDB.mu, DB.spawning; none is held during I/O. instance.cutting, then instance.fence
// (one transaction at a time, or the scan of a cut), then instance.adopting, seriesCounts.mu, the locks of
// seriesref.Cache and the TSDB's own; DB.cuts for the writing of a block, after cutting. blockList.mu, readers.mu and
// DB.abandonedMu alone.
package tsdb
