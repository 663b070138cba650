// Package plan decides what a compactor does: which blocks become which, which are replaced, and which have served
// their time (docs/design/033-plan.md). All of it is functions of values: a view of the bucket, settings, and the
// time.
//
// Flow:  block.View -> streams -> units (blocks that overlap) -> aligned windows -> parts -> Jobs, States, Todo
//
// Invariants:
//   - The outputs of a job have all samples of its inputs, and no job has an input that another one has, or that is
//     replaced, marked for deletion or set aside.
//   - An output's id depends on everything that can change its bytes, and on nothing else. So two compactors with one
//     view make the same objects.
//   - Blocks of two tenants are never the inputs of one job.
//   - A block expires only if coarser blocks, which are kept longer, have its samples.
//
// Locks: none. Everything here is stateless.
package plan
