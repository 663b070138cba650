// Package api is the HTTP API by which tenants change their rules, as Mimir and Cortex have it.
//
// Flow: request -> tenant and names -> a group as YAML, checked within bounds and limits -> Store
//
// Invariants: a request reads and changes rules of the one tenant that it names, and its sender may use. A group that
// reads other tenants is stored only if its sender may use these, too.
//
// Locks: none. At most maxParsing groups are parsed at a time, since a text takes a hundred times its size in memory.
package api
