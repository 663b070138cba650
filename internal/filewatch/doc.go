// Package filewatch follows files that people or Kubernetes change while a process runs.
//
// Flow: an event in a file's directory, or the interval -> the caller's function reads the files.
//
// Invariants: the directories are watched and not the files, since a file may be replaced by a rename, or by a link
// that changes. An event only makes a read come sooner; reads come at the interval in any case, one at a time. A read
// comes a moment after the first event, so that it does not see half of a change, and further events do not delay it.
package filewatch
