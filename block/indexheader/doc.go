// Package indexheader is the part of a block's index that a store gateway keeps on local disk: symbols, and where each
// label pair's postings are. With it a block is opened, and its label names and values answered, without the bucket.
//
// The file is Thanos's index-header version 1 (docs/format/bucket.md), so that a Thanos store's data directory serves:
//
//	magic 0xBAAAD792 <4b> | 1 <1b> | version of the index <1b> | where postings end in the index <8b>
//	symbols, as in the index, up to its series
//	postings offset table, as in the index, up to its end (with its table of contents)
//	offset here of symbols <8b> | of the postings offset table <8b> | CRC32-C of these 16 bytes <4b>
//
// Flow:
//
//	Shipped: local index -> what a producer puts beside the block
//
//	Fetch: bucket -> what was shipped, or else Build: range reads of the index -> temporary file, verified -> renamed
//
//	Open: mmap -> checksums -> Reader
//
// Invariants: a file under its final name was whole when it was written, and Open checks it again: symbols and table
// carry the index's own checksums. Strings from a Reader point into the mapping and are valid until its Close.
//
// Locks: none; a Reader is read-only.
package indexheader
