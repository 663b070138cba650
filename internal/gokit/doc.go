// Package gokit lets libraries that log through go-kit/log (dskit, objstore) write to Hearth's slog.Logger.
//
// Flow: Log(keyvals...) -> the level, message and error are taken out of keyvals -> slog.Logger.Log.
//
// Invariants: nothing a library logs is lost but its caller and timestamp, which slog adds itself; a line that the
// logger's level suppresses costs no formatting.
package gokit
