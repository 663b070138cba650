// Command rule measures rulers that share groups, beside as many of Thanos's that have a part of the groups each.
//
// Flow: one all-in-one Hearth that stores, answers and is sent series -> the rulers of each kind in turn, over the same
// rules -> every slot of each group is looked for in what was recorded -> table
//
// Invariants: both kinds ask and write to the same process. What is counted is what a query gives afterwards, not what
// rulers say of themselves.
//
// Locks: none.
package main
