// Package block is a Prometheus block in a bucket, in the layout of Thanos: its names, its meta.json, its marks, and
// the orders in which its objects are written, read and removed; which blocks a bucket has, and whose bucket it is
// (docs/format/bucket.md).
//
// Flow:  local block directory -> Upload -> bucket -> Fetcher -> View -> store gateway, compactor
//
// Invariants:
//   - A block exists when its meta.json does: Upload writes it last, Delete removes it first.
//   - A block's objects never change once meta.json exists; only marks come and go.
//   - Names found in a bucket are not trusted: a block id is parsed as a ULID, and a path inside a block is checked,
//     before either becomes part of a path.
//   - Filters, and the decision whose bucket it is, are functions of values: they do no I/O.
//
// Locks: a Fetcher is used by one goroutine; everything else here is stateless.
package block
