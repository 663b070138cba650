// Package conf reads the configuration that people write. Its errors name the file, the line and the key, say what is
// expected, and name the key that was probably meant.
//
// Flow: ReadFile -> Parser.Document (is it YAML?) -> Parser.Decode (does it fit a Go type?), or Parser.Mapping and
// Parser.Pairs for a reader that walks by itself -> Parser.Err, which has every fault.
//
// Invariants: an error shows no value of the file but numbers, durations and the like, since a value may be a secret.
// It has no words of a parser or of Go.
package conf
