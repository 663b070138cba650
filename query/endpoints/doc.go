// Package endpoints keeps the list of sources that a querier asks: the sources of its own process, the members that
// gossip knows, and the StoreAPIs that --endpoint names by address or by DNS.
//
// Flow: Open looks all names up, and again every Options.Interval -> List, for each poll of the querier: targets (a
// pure function of members and names) decides whom to ask, and Options.Dial makes a source of each.
//
// Invariants: a name that cannot be looked up keeps its last addresses. A name without any address is on the list as an
// endpoint that does not answer, since nobody knows what is behind it, and answers must say so.
//
// Locks: names.mu is held for a few steps, never while a name is looked up.
package endpoints
