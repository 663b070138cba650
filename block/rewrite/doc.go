// Package rewrite makes a block anew without samples that are to be deleted, and with other labels.
//
// Flow:
//
//	Config: YAML of deletions, relabelling rules
//	Block:  input -> [relabel: runs that are sorted, merged again] -> delete -> block/merge's writer -> upload -> mark
//
// Relabelling comes first, so the selectors of deletions see the new labels. Relabelled series are in another order, so
// they are collected up to a number of bytes, sorted and written as small blocks (runs), which block/merge unites:
// series that get the same labels are united like replicas.
//
// Invariants:
//   - Only a chunk that the border of an interval cuts is decoded. All others are copied byte for byte or left out.
//   - Memory is bounded, whatever the size of the block; one series is in memory as a whole.
//   - The id of the new block follows from the old one's id and the configuration. So a run that was broken off is
//     finished by another one, and two at once do no harm.
//
// Locks: none; a block is rewritten by one goroutine.
package rewrite
