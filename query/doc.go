// Package query answers PromQL over everything that holds series: receivers, store gateways, sidecars, other stores.
//
// Flow:
//
//	http.go        finds the tenants and parameters of a request, and admits it
//	engine.go      reserves memory and runs Prometheus's engine (docs/design/011)
//	storage.go     makes selections of what the engine asks for, one for each tenant
//	selection.go   one selection: select.go decides which endpoints to ask; silence.go watches for silent ones
//	source.go      asks them: ask.go (one group, endpoint by endpoint), group.go (its series), prefetch.go (read ahead)
//	series.Merge   makes one series of all copies of it
//	answer.go      enforces limits on the way, and judges at the end whether something is missing (complete.go)
//	storage.go     joins the tenants, and merges HA pairs
//
// A Querier polls the Info of its endpoints. A query works on the snapshot of the last poll, and on which endpoints
// were given up since. Three decisions are pure functions: which endpoints to ask (select.go), which tenants are meant
// (tenants.go), and whether an answer is complete (complete.go, docs/design/005).
//
// Invariants:
//   - Copies of one series on replicas of the ring are always united, whatever the parameters of a query say.
//   - An answer without a warning is complete. An answer that may not be complete names what is missing. It is an error
//     instead if the request asked for that.
//   - A series carries its own labels only, except tenant_id when a query names several tenants.
//   - Memory that a query holds is reserved in Options.Memory before it is used, and given back when the request ends.
//     Nothing is waited for while some of it is held, since two queries could then wait for each other.
//
// Locks: Querier has none: the poller replaces the snapshot whole, and endpoint.silent is atomic. querier.mu guards the
// sets that a query opened; collector.mu guards what its endpoints reported. Neither is held during I/O.
package query
