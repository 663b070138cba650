// Package httpx is how Hearth's processes speak HTTP: a listener with TLS and authentication, an instrumented mux, the
// endpoints that every role has, and the one translation of errs kinds into answers.
//
// Flow: New -> Add (routes, each with its class, are fixed before Open) -> Open binds the address, so that a port in
// use stops the process with a clear text -> requests -> Close answers what is under way within the grace period, then
// cuts it off.
//
// Invariants:
//   - Every route counts its requests, seconds and what is under way; a panic in a handler ends that request only.
//   - After Close no handler of this server runs, unless it ignores its context for longer than closeSlack.
//   - Who may use a route is decided in one place (guard), by its class and what Auth knows of the sender.
//   - A header or a body that trickles in is cut off, and so is a client that does not take its answer; how large a
//     body may
//     be is for its handler to say.
//   - Nobody's wrong passwords take the place of another's right one.
//
// Locks: verifier.mu, line.mu and boundedListener.mu are held for a few steps, never while something is waited for, and
// none within another. Auth.mu is held while files are read. Health.mu guards the list of checks; it is not held while
// a check runs.
package httpx
