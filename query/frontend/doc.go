// Package frontend answers range queries in pieces, so that what was answered before is not evaluated again: it cuts
// them at the borders of days, takes from a cache the steps that still hold, asks for the others, and puts the pieces
// together to the bytes that Prometheus would have answered. docs/design/042 says why an answer holds.
//
// Flow:
//
//	http.go           a request; all but range queries that can be cut go past it to whoever evaluates
//	http_request.go   its parameters; key.go: what the cache knows it by
//	cut.go            pure: its pieces, and which samples its steps read
//	http_evaluate.go  one piece: entry.go from the cache.go, the rest asked once for all who ask (flight.go)
//	changes.go        what has changed of the samples since an entry was asked
//	matrix.go         answers of the API read, sliced, joined and written
//
// http_downstream.go are the queriers behind a frontend that is a process of its own.
//
// Invariants:
//   - An answer has the bytes that Prometheus's API writes for the whole query, and the warnings of all its pieces.
//   - No entry is used if a sample that it reads may have arrived, or gone away, more than a second before the request.
//   - An answer with a warning, or that says no-store, is never kept.
//   - All that can change an answer is in the key, each field with its length.
//   - A request that the frontend does not understand is passed on untouched.
//
// Locks: Memory.mu, changes.mu, flights.mu. None is held during I/O, or while another is taken.
package frontend
