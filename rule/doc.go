// Package rule evaluates recording and alerting rules of tenants, as Prometheus's rules package does, in a loop of its
// own.
//
// Flow:
//
//	definition.Source  groups as people wrote them, checked
//	rule.go            Reload: groups that changed are exchanged, all others go on; Snapshot
//	compile.go         a definition becomes a group that can run; which rules may run at the same time; rules that two
//	                   groups have
//	slot.go            when a group is evaluated, pure
//	group.go           one slot: each rule is evaluated, its alerts are sent, its results are stored, in this order
//	query.go           what a rule asks, and when it asks again; alert.go: the templates and the state of alerts
//	append.go          results go to a distributor; Prometheus's own storages need nothing in between
//	progress.go        what a group has come to, as a value; who takes it over when rules move
//	statefile.go       that value on disk, over a restart; restore.go: alerts are looked for in stored series
//	share.go           which of several rulers evaluates a group, pure; peers.go: who the others are, and what they have
//	takeover.go        a group is taken from another ruler, and its state given to the one that stands by; keeper.go: the
//	                   other side of both; held.go: the states that are held for others
//	snapshot.go        what APIs show of all this (internal/rulestate)
//
// The state of an alert is the library's (rules.AlertingRule). The library sees samples whose labels are already those
// of alerts, so its state can be read as a whole, and be set again in another process.
//
// Invariants:
//   - A group is evaluated in slots that only its names and its interval decide, each at most once, in order. Results
//     have the time of the slot, whenever they are computed.
//   - What a rule wrote is acknowledged by the storage before a rule is evaluated that reads it.
//   - Of several rulers one evaluates a group: the one that has taken it. It does so until another one takes it,
//     whatever the ring says. Where rulers do not reach each other several do, and write and send the same.
//   - A rule that fails writes nothing in that slot, and no end of a series.
//   - Alerts survive: a reload, a move to another group or file, and a restart within Options.OutageTolerance. Where no
//     state was kept they are looked for in stored series, until these can be read.
//   - A group that cannot be loaded, or that fails, holds up no other.
//
// Locks: Ruler.applying before Ruler.mu; group.mu before rule.mu; heldStates.mu. None is held during I/O, except
// applying and heldStates.mu.
package rule
