// Package repair makes of the logs of a tenant what its TSDB can replay in full. It works on a directory, before each
// opening of the TSDB, and needs nothing else. The TSDB's own repair of a log deletes everything after the first
// damage, and its replay trusts what a crash may have left behind; each step of Logs says which fault in the library
// it stands against.
//
// Flow: Logs -> undo half-done repairs -> salvage what is behind damage -> correct markers in the WBL -> reserve
// references
//
// Invariants:
//   - A log that is in order is not touched, and neither is one whose end alone is torn: the TSDB repairs that.
//   - Logs may be ended at any moment, by a crash or a full disk, and run again.
//   - What is taken out of a log is kept in the directory damaged, for people.
//
// Nobody else may use the directory meanwhile. There are no locks.
package repair
