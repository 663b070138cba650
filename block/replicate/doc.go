// Package replicate copies blocks from one bucket into another, and says whether both have the same ones.
//
// Flow: Allowed once; then for each pass: views of both buckets -> Choice -> copy each block -> views again -> Report
//
// Invariants:
//   - A block is in the target when its meta.json is: that comes last, behind every other object and the marks, and is
//     removed first where an object of the block must be written again.
//   - Blocks become visible in the target in the order of their time, whatever the order in which they were copied.
//   - An object counts as whole by its size, and by its bytes while the target has no meta.json that vouches for it.
//     One that is whole is not sent again.
//   - What is left in the target when a pass is broken off at any moment is finished by the next one.
//   - Only objects of blocks that the source has are written. Blocks and marks that only the target has stay.
//
// Locks: a Replicator is used by one goroutine. The goroutines of a pass share nothing but a semaphore and counters.
package replicate
