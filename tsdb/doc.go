// Package tsdb is many tenants' Prometheus TSDBs in one directory: append by cached series reference, select, cut heads
// into blocks, and rest when idle.
//
// Flow:  Append -> refs (key -> reference) -> head appender -> WAL -> head -> cut -> block -> (shipped by receive) -> deleted
//
// Layout: <dir>/<tenant>/{wal,wbl,chunks_head,chunk_snapshot.*,<ULID>} as Prometheus has it, plus hearth-tenant.json, the
// mark that says that we made it; metadata.json and, while the tenant is closed, summary.json; exemplars, an empty file,
// once there were some; damaged/ with log segments as they were found, if some could not be read; faulty/ with blocks that
// cannot be read. <dir>/~lock keeps a second process out; <dir>/~hearth-tsdb.json says that all tenants' directories have a
// mark; <dir>/~making-* and ~removing-* are directories of tenants on their way. docs/format/tenant-directory.md has it all.
//
// Invariants:
//   - A sample that Append acknowledged is in the WAL, or, out of order, in the WBL. A log that could not be written
//     makes the tenant read-only until it has been reopened.
//   - A cached reference always belongs to the labels of its key: heads count references up, the cache dies with its
//     head, and a reference is cached only once the transaction that made it is committed.
//   - A sample is acknowledged only if it is stored with its value, or the same was (docs/design/014-what-is-stored.md).
//     Of two values for one time in blocks the same one is read everywhere.
//   - In-order samples of a range that is being cut, or was, do not enter the head any more: the fence (cut.go).
//   - No block is deleted before it is Shipped and older than the retention.
//   - A directory without a mark is neither opened nor written into, and nothing is deleted that owner.go does not list.
//   - A block that cannot be read costs its tenant that block, and nothing else.
//   - A slot that other tenants need (DB.gate, DB.cuts) is not held while waiting for readers, writers or a peer.
//   - A TSDB is closed only when nobody uses it: readers hold memory that closing unmaps.
//
// Locks, in order: DB.mu, tenantDB.mu, DB.spawning; none is held during I/O. instance.cutting, then instance.fence (one
// transaction at a time, or the scan of a cut), then instance.adopting, births.mu, refs.mu and the TSDB's own; DB.cuts for
// the writing of a block, after cutting. metadataStore.saving, then metadataStore.mu. blockList.mu, readers.mu and DB.lostMu
// alone.
package tsdb
