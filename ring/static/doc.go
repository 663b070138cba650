// Package static makes placements from Thanos's hashring file, so that a series goes to the receivers it went to under
// Thanos: hash for hash, replica for replica.
//
// Flow: file or flag -> config (config.go) -> one ring for each hashring (ketama.go, hashmod.go, shuffle.go) -> one
// placement over all of them (placement.go). A Watcher (watch.go) reads the file again when it changes and now and then.
//
// Invariants:
//   - A file that is not valid as a whole changes nothing: the last good placement stays.
//   - Members of a static ring have their address for an id.
//
// Locks: Watcher.mu is held while the file is read; the caches of a placement have leaf mutexes of their own.
package static
