// Package targets is how a ruler knows the HTTP services that it talks to, queriers and Alertmanagers: Thanos's YAML of
// them, and the addresses behind names and in files.
//
// Flow: YAML -> Parse -> Config -> Client for requests, List for addresses, which are looked up again now and then
//
// Invariants: a name that cannot be looked up, and a file that cannot be read, keep their last addresses.
//
// Locks: List.mu is a leaf, and not held during I/O.
package targets
