// Package gossip is the ring of a cluster without a controller: members find each other by memberlist, say what they are
// in gossiped values, and each of them compiles what it hears into a ring.Placement.
//
// Flow: LoadInstance (who I am) -> New -> Open: listen, join, check that I belong here, register -> for ever: heartbeat,
// watch the values, compile the placement, forget who is gone -> Close (stay placed, expected back) or Leave + Close.
//
// Values (docs/design/002-ring.md): one dskit ring descriptor per role (keys receive, store, compact, rule, distributor)
// with address, zone, state, heartbeat and tokens; the key "cluster" with what a ring descriptor has no room for: each
// process's HTTP address, replication factor and bucket, which shard sizes and factors were in use, and the history of the
// receivers' incarnations; and one key ha/<tenant> for each tenant with HA pairs (elections.go).
//
// Invariants:
//   - Placement is one atomic load; it is never nil, and never changes after it was returned.
//   - A member that is down stays placed until it is forgotten, and nobody forgets a receiver while it sees fewer than a
//     quorum of the receivers alive.
//   - A process writes its own ring entries only, and removes those of forgotten members.
//   - Every state change of an entry has a heartbeat strictly newer than the last: a merge never drops it.
//   - Which shard sizes a process places by is said while it does so: who reads knows since when all agree (Shards).
//   - What other processes call a time orders entries. How long ago something happened is told by when it came here, by a
//     clock that nobody sets (docs/design/012-clocks.md).
//   - What comes is bounded before it is merged; the merge looks at no clock.
//   - A process that does not belong to the cluster it met places nothing, and is placed by nobody.
//   - Readiness asks about this process and its own view, never whether others are ready.
//
// Locks: Gossip.mu guards the state this process wants to be seen in and the rebuilding of the view. It is held while
// the KV store is read or written (mu before the store's lock); the store never calls back with its lock held.
package gossip
