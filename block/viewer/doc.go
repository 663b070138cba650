// Package viewer shows the blocks of a bucket to people: as the JSON of Thanos's block viewer, and as pages of short
// rows, with which a page shows a hundred thousand blocks. It also takes marks from the page.
//
// Flow: a source of States (a gateway, a compactor, or Poller) -> Viewer -> http.go
//
// Invariants:
//   - A request reads the bucket only for one meta.json, or to write one mark: what is listed is in memory.
//   - A refresh that failed keeps what was known, and says why.
//   - Rows of one listing are of one State: a page that comes from another one says so by its version.
//
// Locks: Poller.mu guards the state; nothing is called while it is held. A Viewer has none.
package viewer
