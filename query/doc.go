// Package query answers PromQL over everything that holds series: receivers, store gateways, sidecars, other stores.
//
// Flow:  http.go (tenants, parameters, a place) -> Prometheus's API -> engine.go (memory, docs/design/011) ->
// storage.go -> select.go (whom to ask) -> ask.go, group.go, prefetch.go (ask, stand in, prefetch), silence.go (give up who is silent) ->
// series.Merge -> answer.go (limits, completeness) -> union -> HA-pair dedup
//
// A Querier polls the Info of its endpoints; a query works on the snapshot of the last poll, and on who was given up
// since. Whom to ask (select.go), which tenants are meant (tenants.go) and whether an answer is complete (complete.go,
// docs/design/005) are pure functions.
//
// Invariants:
//   - Copies that ring replicas hold of one series are always united, whatever the parameters of a query say.
//   - An answer without a warning is complete. One that may not be names what is missing, or fails if that was asked
//     for.
//   - A series carries its own labels only, except tenant_id when a query names several tenants.
//   - What queries hold is reserved in Options.Memory before it is there, and given back when the request ends. Nothing
//     is
//     waited for while some of it is held.
//
// Locks: Querier has none: the snapshot is replaced whole by the poller, endpoint.silent is atomic. querier.mu guards
// the sets a query opened; collector.mu what its sources reported. Neither is held during I/O.
package query
