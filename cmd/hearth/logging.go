package main

import (
	"fmt"
	"io"
	"log/slog"
)

// newLogger makes a logger that writes to w all messages that are at least as severe as level.
func newLogger(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: l, ReplaceAttr: plainAttr}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// plainAttr makes each value a string, a number, a boolean or a list of strings. Durations become what people write,
// addresses and panics become texts. So a key has one type in JSON, whatever Go type a line gives it: systems that
// store logs refuse a line whose key has another type than before. (A test in internal/lint compares the types of all
// lines.)
func plainAttr(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().String())
	case slog.KindAny:
		v := a.Value.Any()
		if list, ok := v.([]string); ok {
			if list == nil {
				a.Value = slog.AnyValue([]string{})
			}
			return a
		}
		if a.Key == slog.LevelKey { // slog writes it itself
			return a
		}
		a.Value = slog.StringValue(fmt.Sprint(v))
	}
	return a
}
