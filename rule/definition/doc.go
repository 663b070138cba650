// Package definition holds groups of recording and alerting rules as people write them, and says where they come from.
//
// Flow: a Source reads text or objects -> they are checked -> Groups -> the evaluation, which asks again after each
// Changed.
//
// Invariants:
//   - A Group that a Source returns was checked: its expressions parse, its names are valid, its interval is in bounds.
//   - One text that is wrong takes nothing else with it. A Source returns all other groups, and the last good form of
//     the wrong one if it knows one.
//   - The name of a namespace or group never becomes a path.
package definition
