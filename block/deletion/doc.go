// Package deletion is what operators asked a bucket to delete: small objects below hearth/deletions/ that never change
// (docs/format/deletions.md), and what each of them means at a time (docs/design/037-tenant-deletion.md).
//
// Flow:  tool, endpoint -> Put -> bucket -> Reader -> List -> receivers, gateways, compactors: each asks the List
//
// Invariants:
//   - What a request means is a function of the objects and the time: nobody writes "done" anywhere.
//   - What cannot be read deletes nothing. A request counts only if every field of it is known, and an undo that cannot
//     be read holds its request.
//   - A tenant's name is in the object and never in its name.
//   - A List never changes.
//
// Locks: none. A Reader is used by one goroutine, and a Watcher swaps whole Lists.
package deletion
