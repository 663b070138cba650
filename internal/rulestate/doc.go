// Package rulestate is what can be seen of rules while they run: groups, rules, and their active alerts.
//
// Flow: a ruler, a sidecar or another process is a Source -> Merge unites what several Sources say -> HandleRules and
// HandleAlerts answer as Prometheus and Thanos do. internal/rpc carries the same over gRPC.
//
// Keeper is what rulers that share groups say to each other.
//
// Invariants:
//   - What a Source returned does not change. Whoever filters or merges makes new groups.
//   - A Group belongs to one tenant. The tenant is no label of its rules, unless a request names several tenants.
//   - Rules of a group keep their order.
//
// Locks: none.
package rulestate
