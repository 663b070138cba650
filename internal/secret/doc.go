// Package secret holds configuration text that must not be shown, and takes it out of errors.
//
// Flow: a flag, an environment variable or a file is read into a Text. A Text prints as Hidden in a log, on a status
// page and in a panic. The one reader that needs the content calls Reveal, and passes the errors of its parser
// through Scrub.
//
// Invariants: only the method Reveal of Text gives the content.
package secret
