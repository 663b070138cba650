// Package conf reads the configuration that people write. Its errors name the file, the line and the key, say what is
// expected, and name the key that was most likely meant.
//
// Flow: ReadFile -> Parser.Document (is it YAML?) -> Parser.Decode (does it fit a Go type?), or Parser.Mapping and
// Parser.Pairs for a reader that walks by itself -> Parser.Err, which has every fault.
//
// Invariants: an error never has a value of the file in it, since a value may be a secret, except numbers, durations
// and the like; and it never has words of a parser or of Go in it.
package conf
