// Package upload takes blocks that others send over HTTP, by the protocol of Mimir's compactor (mimirtool backfill).
//
// Flow:
//
//	start:  meta.json -> checked, external labels set -> a session
//	files:  a file that the session names -> the bucket, below hearth/uploads/<ULID>/
//	finish: all files are there -> validate: copy into the block's directory -> block/verify -> meta.json, the commit
//	check:  how far the session is
//
// Sessions are objects in the bucket (docs/format/bucket.md), so they outlive this process, and any process with the
// same bucket goes on with them.
//
// Invariants:
//   - Nothing that a client sends gets into a block's directory before all of it was sent, and no meta.json before what
//     is in the directory was read back and found right.
//   - A name from outside is never a path: files are those of the session, whose names are checked, and the block is a
//     ULID.
//   - What a tenant has in unfinished sessions is bounded, and every session ends: it is removed after its lifetime.
//   - A directory is emptied only if it has no meta.json and a session of it had begun to fill it.
//
// Locks: mu guards which blocks and tenants this process works on; nothing is taken under it, and it is never held
// while the bucket is asked.
package upload
