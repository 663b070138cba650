// Package gossip is the ring of a cluster without a controller. Members find each other by memberlist, describe
// themselves in gossiped values, and each of them compiles what it receives into a ring.Placement.
//
// Flow: LoadInstance reads the identity of this process -> New -> Open: listen, join, check that this process belongs
// to the cluster (admit), register -> until the end: write heartbeats (heartbeatLoop), watch the values, make a
// snapshot of them (refresh), compile the placement, forget members that are silent for too long -> Close (the member
// keeps its place and is expected back) or Leave + Close.
//
// Values (docs/design/002-ring.md): one dskit ring descriptor per role (keys receive, store, compact, rule,
// distributor) with address, zone, state, heartbeat and tokens; the key "cluster" with what a ring descriptor has no
// field for: each process's HTTP address, replication factor and bucket, which shard sizes and factors were in use,
// and the history of the receivers' incarnations; and one key ha/<tenant> for each tenant with HA pairs
// (elections.go).
//
// Invariants:
//   - Placement is one atomic load. It is never nil, and its members and tokens never change after it was returned.
//   - A member that is down keeps its place until it is forgotten. No process forgets a receiver by itself while it
//     sees fewer than a quorum of the receivers alive; an operator may (Forget).
//   - A process writes its own ring entries only, and makes tombstones of those of members that it forgets.
//   - Every change of an entry comes with a newer heartbeat than the last, or a merge would drop the change.
//   - A process that places series publishes by which shard sizes it does so. So a process that reads knows since
//     when all have had the same sizes (Shards).
//   - Times that other processes wrote only order entries. How long ago something happened is measured from when the
//     news of it came here, by a clock that nobody sets (docs/design/012-clocks.md).
//   - Values are bounded before they are merged (bounds.go). The merge looks at no clock, so it is the same
//     everywhere.
//   - A process that does not belong to the cluster that it met places nothing, and no other process places series on
//     it.
//   - Readiness is about this process and its own snapshot, never about whether others are ready.
//
// Locks: Gossip.mu guards the entry that this process publishes and the rebuilding of the snapshot. refresh holds it
// while it reads the KV store (mu before the store's lock). Nothing writes to the store with mu held, since the
// functions of a write take mu. Gossip.lifeMu is held by Open and Close as a whole, and taken before mu.
package gossip
