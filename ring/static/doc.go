// Package static makes placements from Thanos's hashring file. Each series goes to the same receivers as with Thanos,
// in the same order, so that a cluster can change from one to the other without moving series.
//
// Flow: file or flag -> config (config.go) -> one ring for each hashring (ketama.go, hashmod.go, shuffle.go) -> one
// placement over all of them (placement.go). A Watcher (watch.go) reads the file again when its directory reports a
// change, and every RefreshInterval. What is valid but probably not meant is logged (warnings.go).
//
// Invariants:
//   - A file with a fault changes nothing: the last valid placement stays in use.
//   - The id of a member of a static ring is its address. An endpoint in several hashrings is one member.
//
// Locks: Watcher.mu is held while the file is read. The caches of a placement (placement.mu, shuffle.mu) have locks
// of their own, under which no other lock is taken.
package static
