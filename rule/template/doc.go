// Package template expands the labels and annotations of alerts as Prometheus does, within bounds.
//
// A tenant writes these templates, and Prometheus runs them as they are: a loop over a number, a template that calls
// itself, a text that doubles in each turn, or a number printed with a million digits ends when the process does.
//
// Flow: text -> parsed with Prometheus's functions -> guards are put into loops and definitions -> executed
//
// Invariants:
//   - A template that stays within the bounds gives what Prometheus's library gives, errors included.
//   - No value becomes larger than MaxBytes before somebody looks at its size.
//   - Whatever can be repeated takes from the Budget before it is done. All templates of one evaluation share one.
//
// There are no locks: a Budget belongs to one goroutine.
package template
