// Package ship brings the blocks of one directory into a bucket and remembers which of them are there. It knows neither
// tenants nor rings nor who makes the blocks, so that every component that makes some can use it.
//
// Flow:  Lister -> ledger (which blocks to try, in which order) -> Measure once -> block.UploadWith -> ledger -> record
//
// Invariants:
//   - A block counts as shipped only after its meta.json is in the bucket.
//   - A block that is faulty in itself keeps no other block from being shipped. It is tried again, by itself.
//   - After a failure of the bucket the pass ends, and the next pass begins with the blocks that failed least often.
//   - After a crash at any moment the next pass goes on: the bucket is asked about every block that the record lacks.
//   - Nothing is written to local disk except the record (Options.Record): another process may own the directory.
//
// Locks, in order: Shipper.turn, which is held for a whole pass, then Shipper.mu, which is never held during I/O.
package ship
