// Package objects keeps groups of rules as objects of a bucket: one object for each group (docs/format/rules.md).
//
// Flow: a client of the API -> Put, Delete -> objects -> a listing every Options.Interval, and after each change that
// this process made -> new objects are read -> definition.Source
//
// Hearth's own objects never change: their names have a version, so a listing alone shows all changes. The newest
// version of a group counts. Objects as Mimir and Cortex write them are read, too. These may change, so their time of
// change is compared; where the bucket does not tell it, they are read at each listing. A group that Hearth has counts
// before one of the same name that Mimir has.
//
// Invariants:
//   - Names of namespaces and groups become parts of object names only in base64, and are bounded.
//   - An object of Hearth is read only if it is whole: not every bucket writes objects at once.
//   - A group whose object cannot be read keeps its last good form, and is named.
//
// Locks: Store.mu guards what is known, and is never held during I/O. One goroutine lists the bucket as a whole.
package objects
