// Package gokit lets libraries that log through go-kit/log (dskit, memberlist, objstore) write to Hearth's slog.Logger,
// in Hearth's words: a person who reads the log at night should not have to know which libraries Hearth is made of.
//
// Flow: Log(keyvals...) -> the text is looked up in the library's Words -> slog.Logger.Log. What is not worth a warning
// by these words is a debug line with the library's own text.
//
// Invariants: a library never decides that somebody is called at night: its errors become warnings of ours or debug
// lines, and what they break is reported by who uses the library. One message is written at most once a minute.
package gokit
