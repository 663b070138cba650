// Package promclient asks one Prometheus over HTTP what a sidecar needs of it: its settings, its samples by remote
// read, and the lists that its API has.
//
// Flow: New reads the settings of the connection -> API calls return values (api.go, http_series.go) -> Read returns a
// Frames, which is read frame by frame (frames.go)
//
// Invariants:
//   - No response is held in memory beyond a limit: those of the API have maxResponse, a frame has maxFrame, and the
//     callers of Series and of Frames count what they keep.
//   - Errors have an errs.Kind. Invalid means that Prometheus refuses the request itself. Unavailable means that
//     nothing is known: Prometheus is away, starts, or broke a response off. A response that was broken off is never
//     taken for a short one.
//
// Locks: none. A Client is used by many goroutines, a Frames by one.
package promclient
