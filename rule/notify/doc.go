// Package notify sends the alerts of rules to Alertmanagers, by Prometheus's notifier.
//
// Flow: Notify -> labels are dropped and added -> relabelling -> a bounded queue for each Alertmanager -> API v2
//
// Invariants:
//   - An Alertmanager that does not answer, or answers slowly, costs only its own queue.
//   - Whose alert it is cannot be forged by a rule: the label or header of the tenant is set here.
//   - Which Alertmanagers there are is the operator's setting alone.
//
// Locks: Sender.mu guards the managers of tenants, and is not held during I/O.
package notify
