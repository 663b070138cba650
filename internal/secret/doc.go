// Package secret holds configuration text that must not be shown, and takes it out of errors.
//
// Flow: a flag, an environment variable or a file is read into a Text; whoever prints a Text, in a log, a status page
// or a panic, prints Hidden; the one reader that needs the content calls Reveal; what a parser says of the content
// passes Scrub.
//
// Invariants: no method of Text but Reveal gives the content.
package secret
