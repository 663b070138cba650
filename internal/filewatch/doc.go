// Package filewatch follows files that people, or Kubernetes, change while a process runs.
//
// Flow: an event in a file's directory, or the interval -> the caller's function reads the files.
//
// Invariants: the directories are watched, not the files, since a file may be replaced: by a rename, or by a link that
// changes. Events only make a read come sooner; it comes at the interval in any case. One read at a time. A read
// comes a moment after the first event, so as not to see half of a change, and further events do not put it off.
package filewatch
