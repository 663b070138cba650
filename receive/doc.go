// Package receive owns the samples of the tenants placed on this member: it stores them, serves them, and ships their
// blocks to the bucket.
//
// Flow:
//
//	Write -> tsdb.DB.Append
//	tsdb's scheduler or Flush -> block -> block/ship -> bucket
//	Select -> tsdb.DB.Select
//	Drainer.Begin -> read-only -> Flush until no more writes come -> store gateways serve all blocks -> left
//
// Invariants:
//   - When Write returns no error, the WAL holds every sample that no failure names.
//   - A block counts as shipped only after its meta.json is in the bucket; tsdb deletes no other.
//   - A block that is faulty in itself keeps no other from being shipped; it is counted among those not shipped.
//   - Shipping never blocks writes or reads, and goes on from any crash by looking into the bucket.
//   - A drained member leaves the ring only when it takes no more writes and every sample that it acknowledged is in
//     the bucket.
//   - Tenant and ring replica are attributes of a stream: Hearth's callers never see them as labels of a series.
//
// Locks: Receiver.mu and Drainer.mu are leaves. Receiver.slots is taken before a call of ship.Shipper.Ship, and is
// not held while waiting for another call of it to end.
package receive
