// Package memory accounts for the memory of requests whose size nobody knows beforehand: who holds how much, and no more
// than there is.
//
// Flow:  a Budget has a number of bytes; a part of the process is an Owner of it; each request opens a Lease for its tenant,
// takes bytes before it uses them, and gives all back with Close.
//
// Invariants:
//   - The bytes of all leases are never more than the budget's.
//   - One tenant never holds all: Decide leaves room for the next tenant, however many there are.
//   - Waits are bounded in time and in number. Only Take waits; Grow answers at once, for those who hold what others wait for.
//   - Metrics are by owner, never by tenant. Holders names the tenants, for people.
//
// Locks: Budget.mu guards a budget and all its leases. Nothing is waited for under it.
package memory
