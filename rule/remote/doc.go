// Package remote asks queriers over HTTP for a ruler: Hearth's, Thanos's or Prometheus's.
//
// Flow: rule.Query -> POST /api/v1/query at one of the addresses -> JSON -> rule.Answer
//
// Invariants:
//   - An address that does not answer costs a few seconds, not its timeout: another one is asked meanwhile.
//   - Warnings of stores make an answer incomplete. Warnings about the expression do not.
//   - What a querier answers is bounded before it is held.
//
// Locks: none.
package remote
