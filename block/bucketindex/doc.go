// Package bucketindex is the index object of a bucket as bytes: a copy of what the meta.json files and the marks of all
// blocks say, so that a process that starts reads one object instead of one for each block
// (docs/format/bucket-index.md).
//
// Flow:  Index -> Encode -> content, whose hash is its name -> Pointer -> whoever reads -> Pointer.Check -> Decode
//
// Invariants:
//   - The index is a cache. It never proves that a block exists; a listing does.
//   - The content for equal blocks, marks and leftovers is equal, so it has the same name.
//   - A reader trusts no byte: sizes are bounded before anything is read or allocated, and the hash is checked before
//     anything is decoded. Whatever the bytes are, Decode returns an error or an index that Encode could have made.
//
// Locks: none; all is functions of values.
package bucketindex
