// Package distributor takes remote writes in and replicates each series to the members that own it.
//
// Flow:
//
//	http.go       request -> tenant, limits of size -> wire.Batch
//	http_otlp.go  the same for OTLP metrics, by internal/wire/otlp; its answers are OTLP's
//	split.go      where a label names the tenant of a series: one batch becomes one for each tenant
//	incoming.go     how large its body may be; gate.go: memory for it, asked for before it is taken, shared fairly by tenants
//	relabel.go    rules that series pass, remembered by series
//	limits.go     what of a batch is let in; ha_batch.go takes out what comes from replicas that are not elected
//	rate.go       a tenant's samples per second; account.go: what is kept of each tenant that sends
//	ha.go         which replica of each HA pair is elected (ring/election) by what is stored of it, shared with other processes
//	push.go       Push: the batch is placed on one snapshot of the ring, one shard for each member
//	peer.go       a member: a lane for each tenant (lane.go), which take turns, and workers; whose fault a failure is
//	linger.go     for which members' copies a request waits after its quorum, and what it leaves behind
//	pace.go       whether a member keeps up with the others, and when to try again, pure
//	replicate.go  answers of members are folded into one outcome for each series; Push returns when all are certain
//	quorum.go     the folding, pure
//
// Invariants:
//   - A series is reported written only after a quorum of the configured replication factor has stored it.
//   - Push never waits for a member that is dark, or slower than the others, longer than it takes to find that out (a few times what the
//     quorum took, or a second), and never longer than Options.WriteTimeout.
//   - A member gets the samples of a series in the order in which they were pushed, except those of shards that failed alone.
//   - A batch, and the index slices of its shards, live until the last member is done with them.
//   - The requests being worked on take no more memory than Options.MaxRequestBytes, about.
//   - What answered requests have left behind for a member is bounded, and the bound is shared fairly by tenants.
//
// Locks: Distributor.mu before route.mu; peer.mu before write.mu; write.mu, haTracker.mu, gate.mu and accounts.mu are leaves. No
// two members are locked at a time, and no lock is held while a member is written to.
package distributor
