// Package ring decides which members own a series, a block or a job. It is pure: nothing here does I/O or looks at a
// clock.
//
// Flow: ring/gossip and ring/static build a Placement from what they know of the members. When that changes they
// build a new one and put it in the place of the old one. A write takes one Placement at its start (For one tenant)
// and asks it for the Replicas of each series. Owners says who owns something that is not a series.
//
// Invariants:
//   - Replicas and Owners give distinct members, the same ones for the same members and key, in a stable order.
//   - A member that is down keeps its place. Only the package that builds the placement takes it out.
//   - Owners and Shard give the same on every process and in every version (docs/format/owners.md).
//
// Locks: shuffled.mu guards the cache of shards of one Placement. It is held for a few steps, and while the ring of a
// new shard is compiled, which takes about a tenth of a millisecond.
package ring
