// Package gokit lets libraries that log through go-kit/log (dskit, memberlist, objstore) write to Hearth's slog.Logger,
// in Hearth's words: a person who reads the log at night should not have to know which libraries Hearth is made of.
//
// Flow: Log(keyvals...) -> the text is looked up in the library's Words -> slog.Logger.Log. A line that these words
// do not call a warning becomes a debug line with the library's own text.
//
// Invariants: a library never decides that somebody is called at night. Its errors become warnings of Hearth or debug
// lines, and the package that uses the library reports what the error breaks. A message is written at most once a
// minute.
package gokit
