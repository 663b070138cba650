// Package memory bounds requests whose size nobody knows beforehand: how many bytes they hold together, and how many of
// them are worked on at a time. It counts; it does not allocate.
//
// Flow: a Budget has a number of bytes. Each part of the process that uses it is an Owner. Each request opens a Lease
// for its tenant, takes bytes before it uses them, and gives them all back with Close. A Gate does the same for the
// number of requests at a time.
//
// Invariants:
//   - All leases of a budget together never hold more bytes than the budget has.
//   - One tenant never holds everything: Decide always keeps a part free for the next tenant, however many there are.
//   - Waits are bounded in number, and in time: Take by its owner's wait, Enter by the request's context. Grow never
//     waits, because its caller already holds bytes that others wait for: two callers could wait for each other.
//   - Metrics are by owner, never by tenant. Holders names the tenants, for people.
//
// Locks: Budget.mu guards a budget and all its leases, Gate.mu a gate. Nobody waits while holding one of them.
package memory
