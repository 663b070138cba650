// Package sidecar makes one Prometheus a source of series, and brings its blocks into a bucket. It runs beside the
// Prometheus, which needs no setting but external labels.
//
// Flow:
//
//	watch.go   asks Prometheus now and then for its settings -> judge decides whether they will do -> known
//	select.go  a Request -> remote read -> frames with other labels (frames.go, labels.go) -> a series.Set
//	ship.go    the blocks in Prometheus's directory -> which of them are to be shipped -> block/ship
//	lists.go   targets, metadata, exemplars, statistics: asked when they are wanted
//
// Sub-packages: promclient speaks to Prometheus, reloader writes its configuration and has it read again.
//
// Invariants:
//   - No loop ends the process, except that Prometheus was not there for Options.ReadyTimeout after the start.
//   - Loops do not wait for each other. In particular the reloader does not wait for Prometheus, which may wait for the
//     configuration that the reloader writes.
//   - External labels say which Prometheus a series is from. They never say whose it is: Options.Tenant does.
//   - A Prometheus without external labels, or with one that is called as the labels of tenant or replica, is not
//     served and not shipped: its blocks would look like those of others.
//   - What is not known is an error of kind Unavailable. A response that was broken off never looks like a short one.
//   - Frames pass through one by one. What must be held as a whole is bounded by Options.SortBudget for each request,
//     and the number of requests by Options.MaxReads.
//
// Locks: Sidecar.mu guards what is known of Prometheus and is never held during I/O. The shipper has locks of its own.
package sidecar
