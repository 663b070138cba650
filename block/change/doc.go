// Package change plans and makes the changes that people ask tools for: marks on blocks, and deletion of blocks.
//
// Flow: what is asked, and a view of the bucket -> Plan -> (a file, for somebody to read) -> Apply -> Report
//
// A plan is a list of steps, one for each block. Apply looks at each block again: where the plan was written to a file,
// a block that has other objects by now is left alone, and so is one that is gone. What was done is written to the
// bucket, below hearth/audit/.
//
// Invariants:
//   - Making a plan changes nothing.
//   - Each step may be made again: what is done already is no error. So an Apply that was broken off is finished by
//     planning and applying again.
//   - A step that counts on the clock is not made where the clock of the object store says something else.
//
// Locks: none; Apply makes the steps one after another.
package change
