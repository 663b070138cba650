// Package distributor takes remote writes in and replicates each series to the members that own it.
//
// Flow:
//
//	http.go         request -> tenant, limits of size -> wire.Batch; http_otlp.go the same for OTLP, by
//	                internal/wire/otlp
//	body.go         how large the body may be, and its reading; gate.go: memory for it, asked for before it is used
//	push.go         Push: admission, then writing, then one Result
//	admission.go    the stages that a request passes before it is placed, in their order; a request and its parts by
//	                tenant
//	relabel.go      stage: rules that series pass, cached by series
//	split.go        stage: where a label names the tenant of a series, one part becomes one for each tenant
//	limits.go       stages: limits of the request, and of each series
//	ha_batch.go     stage: what comes from HA replicas that are not elected is dropped; ha.go: which replica is elected
//	                (ring/election), by what is stored of it, shared with other processes
//	rate.go         stage: a tenant's samples per second; tenantstate.go: what is kept of each tenant that sends
//	result.go       the outcome of the parts becomes one Result; failures get the places that series had in the request
//	route.go        one snapshot of the ring, with its members; requests that were placed before have a destination of
//	                their own
//	write.go        the writing of one part: a shard for each member, their answers, and for which members it waits
//	                after the
//	                quorum; quorum.go: the folding of answers, pure
//	member.go       a member: a queue for each tenant (tenantqueue.go) of shards (queuedshard.go), which take turns,
//	                and workers;
//	                whose fault a failure is
//	progress.go     whether a member keeps up with the others, pure; backoff.go: when to try again, pure
//
// Invariants:
//   - A series is reported written only after a quorum of the configured replication factor has stored it.
//   - Push never waits for a member that does not answer, or that is slower than the others, longer than it takes to
//     find
//     that out (a few times what the quorum took, or a second), and never longer than Options.WriteTimeout.
//   - A member gets the samples of a series in the order in which they were pushed, except those of shards that
//     failed alone.
//   - A batch, and the index slices of its shards, live until the last member is done with them.
//   - The requests being worked on take no more memory than about Options.MaxRequestBytes.
//   - What answered requests have left behind for a member is bounded, and the bound is shared fairly by tenants.
//   - Stages see the batch as the stage before left it. Only request.result turns an index into a place in the request.
//
// Locks: Distributor.mu before route.mu; member.mu before write.mu; write.mu, haTracker.mu, gate.mu and tenantStates.mu
// are leaves. No two members are locked at a time, and no lock is held while a member is written to.
package distributor
