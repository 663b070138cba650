// Package endpoints keeps the list of sources that a querier asks: the sources of its own process, the members that
// gossip knows, and the StoreAPIs that --endpoint names by address or by DNS.
//
// Flow: Open looks all names up, and then again every Options.Interval -> List is called for each poll of the querier:
// targets, a pure function of members and names, decides which addresses to ask, and Options.Dial makes a source of
// each.
//
// Invariants: a name that cannot be looked up keeps its last addresses. A name without any address is on the list as an
// endpoint that does not answer. It may stand for stores with data, so answers must say that they may be incomplete.
//
// Locks: names.mu is held for a few steps, never while a name is looked up.
package endpoints
