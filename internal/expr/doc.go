// Package expr parses PromQL and label matchers that come from outside, within bounds.
//
// The library's parser, its AST and the engine recurse as deep as an expression is nested, and they do not look at a
// context. A stack that overflows ends the process. So nothing is parsed before a scan in linear time has bounded its
// length, its nesting and the size of its regular expressions.
//
// Flow:  text -> scan (scan.go) -> size of regular expressions (regexp.go) -> the library's parser.
//
// Invariants:
//   - This is the only package that calls the library's parser or compiles a regular expression that a request named;
//     internal/lint sees to it.
//   - An expression that was accepted is at most MaxDepth levels deep, whatever its operators are.
//   - Refusals are of kind TooLarge and name the limit.
package expr
