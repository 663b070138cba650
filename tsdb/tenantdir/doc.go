// Package tenantdir knows the files of a receiver's directory that are Hearth's own: the marks that say whose a
// directory is, the summary and the metadata of a tenant, and which files may be deleted.
// docs/format/tenant-directory.md lists the files, docs/design/009-whose-directory.md says why it is so careful.
//
// Flow:  Examine the directory of all tenants -> Take or refuse each directory in it -> Create new ones -> Remove those
// that are empty
//
// Invariants:
//   - A directory without a mark is neither opened nor written into.
//   - A mark is written and synced before the directory gets the tenant's name.
//   - Nothing is deleted except the files listed in remove.go, one by one. A directory that holds anything else is kept
//     as a whole; the error is then a *Stranger.
//
// Locks: Metadata.saving before Metadata.mu. All else is safe as long as each directory is changed by one goroutine.
package tenantdir
