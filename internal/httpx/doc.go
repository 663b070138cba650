// Package httpx is how Hearth's processes speak HTTP: a listener with TLS and authentication, an instrumented mux, the
// endpoints that every role has, and the one translation of kinds of errors into answers.
//
// Flow: New -> Add (routes, each with its class, are fixed before Open) -> Open binds the address, so that a port in
// use stops the process with a clear text -> requests -> Close lets requests under way end within the grace period,
// then cuts them off.
//
// Invariants:
//   - Every route counts its requests, their seconds, and those under way. A panic in a handler ends that request only.
//   - After Close no handler of this server runs, unless it ignores its context for longer than closeSlack.
//   - One place (Server.guard) decides who may use a route, by its class and what Auth knows of the sender.
//   - A header or a body that comes too slowly is cut off, and so is a client that does not take its answer.
//     The handler bounds the size of a body.
//   - A wrong password of one client never delays another client whose right password is remembered.
//
// Locks: verifier.mu, turns.mu and boundedListener.mu are held for a few steps, never during a wait, and none inside
// another. Auth.mu is held while files are read. Health.mu guards the list of checks; it is not held while a check
// runs.
package httpx
