// Package expr parses PromQL and label matchers that come from outside, within bounds.
//
// The library's parser, its AST and the engine recurse as deep as an expression is nested, and they do not check a
// context. A stack overflow ends the process. So nothing is parsed before a scan in linear time has bounded its length,
// its nesting and the size of its regular expressions. The package also says what a parsed query needs, so that the
// engine's caller can refuse or prepare it: its steps (subqueries.go), its labels (labelgrowth.go), what it reads of
// downsampled data (downsampled.go), and samples of which times (reach.go).
//
// Flow: text -> scan (scan.go) -> size of regular expressions (regexp.go) -> the library's parser -> growth of labels
// (labelgrowth.go)
//
// Invariants:
//   - This is the only package that calls the library's parser, or that compiles a regular expression of a request.
//     internal/lint checks it.
//   - An expression that was accepted is at most MaxDepth levels deep, whatever its operators are.
//   - Errors about a bound have the kind TooLarge and name the limit.
//
// Locks: none. A Parser may be used by several goroutines, a Matchers by one.
package expr
