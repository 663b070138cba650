// Package verify looks for what is wrong with the blocks of a bucket. It changes nothing.
//
// Flow: a view -> Overlaps, Duplicates (from metas alone); a block -> Scan (reads all of it, by block/merge)
//
// Invariants: each block is looked at, whatever is wrong with others. A block that cannot be read is not called faulty:
// the error says so. Memory does not grow with the size of a block.
package verify
