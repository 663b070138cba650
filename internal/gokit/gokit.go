package gokit

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// New is a go-kit logger that writes to l, at the level the library chose (info when it chose none). A nil l discards.
func New(l *slog.Logger) log.Logger { return adapter{orDiscard(l), 0} }

// NewQuiet is New for a library whose info lines matter only to who debugs it: they become debug lines. Warnings and
// errors keep their level.
func NewQuiet(l *slog.Logger) log.Logger {
	return adapter{orDiscard(l), slog.LevelInfo - slog.LevelDebug}
}

func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// adapter is safe for concurrent use, as slog.Logger is.
type adapter struct {
	log *slog.Logger
	// demote is subtracted from the level of lines below a warning.
	demote slog.Level
}

// Log writes one line. It never fails: the error is there for go-kit's interface.
func (a adapter) Log(keyvals ...any) error {
	lvl := levelOf(keyvals)
	if lvl < slog.LevelWarn {
		lvl -= a.demote
	}
	ctx := context.Background()
	if !a.log.Enabled(ctx, lvl) {
		return nil
	}
	msg, args := split(keyvals)
	a.log.Log(ctx, lvl, msg, args...)
	return nil
}

// levelOf finds the level among keyvals.
func levelOf(keyvals []any) slog.Level {
	for i := 0; i+1 < len(keyvals); i += 2 {
		if keyvals[i] != level.Key() {
			continue
		}
		switch keyvals[i+1] {
		case level.DebugValue():
			return slog.LevelDebug
		case level.WarnValue():
			return slog.LevelWarn
		case level.ErrorValue():
			return slog.LevelError
		}
	}
	return slog.LevelInfo
}

// split takes the message out of keyvals and drops what slog adds itself.
func split(keyvals []any) (msg string, args []any) {
	args = make([]any, 0, len(keyvals))
	for i := 0; i < len(keyvals); i += 2 {
		if i+1 == len(keyvals) {
			args = append(args, "value", keyvals[i])
			break
		}
		key, val := fmt.Sprint(keyvals[i]), keyvals[i+1]
		switch key {
		case "msg", "message":
			msg = text(val)
		case "level", "ts", "caller":
		default:
			args = append(args, key, plain(val))
		}
	}
	if msg == "" {
		msg = "library event"
	}
	return msg, args
}

// plain makes of a value go-kit computes at log time the computed value.
func plain(v any) any {
	if f, ok := v.(log.Valuer); ok {
		return f()
	}
	return v
}

func text(v any) string {
	if s, ok := plain(v).(string); ok {
		return s
	}
	return fmt.Sprint(plain(v))
}
