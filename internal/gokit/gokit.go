package gokit

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// Words says what a library's line means.
type Words struct {
	// Theirs is a part of the line: its message, and then its other keys with their values as key=value.
	Theirs string
	// Ours is the warning that is written instead; "" makes it a debug line.
	Ours string
}

// repeat is how long a warning is not written again.
const repeat = time.Minute

// New is a logger for the library called name. It writes to l; a nil l discards. Warnings and errors are looked up in
// words, whose first match counts. A warning or error that matches nothing is a warning with the library's text where
// strict is set, else a debug line. All other lines are debug lines.
func New(l *slog.Logger, name string, words []Words, strict bool) log.Logger {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	return &adapter{log: l, library: name, words: words, strict: strict, written: map[string]time.Time{}}
}

// NewQuiet is New for a library whose user logs everything that goes wrong: each line of the library is a debug line.
func NewQuiet(l *slog.Logger, name string) log.Logger { return New(l, name, nil, false) }

// adapter is safe for concurrent use, as slog.Logger is.
type adapter struct {
	log     *slog.Logger
	library string
	words   []Words
	strict  bool

	mu      sync.Mutex // guards written
	written map[string]time.Time
}

// Log writes one line. It never fails: the error is there for go-kit's interface.
func (a *adapter) Log(keyvals ...any) error {
	ctx := context.Background()
	debug := a.log.Enabled(ctx, slog.LevelDebug)
	warning := levelOf(keyvals) >= slog.LevelWarn
	if !debug && !(warning && (a.strict || len(a.words) > 0)) {
		return nil
	}
	text := textOf(keyvals)
	ours := ""
	if warning {
		ours = a.ours(text)
	}
	switch {
	case ours != "" && a.due(ours):
		a.log.Warn(ours, "library", a.library, "text", text)
	case debug:
		a.log.Debug("library", "library", a.library, "text", text)
	}
	return nil
}

// ours is the warning that words have for text, "" for none.
func (a *adapter) ours(text string) string {
	for _, w := range a.words {
		if strings.Contains(text, w.Theirs) {
			return w.Ours
		}
	}
	if a.strict {
		return "a library reports a fault that Hearth has no words for"
	}
	return ""
}

// due reports whether a warning is written now, and remembers when it was.
func (a *adapter) due(ours string) bool {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, ok := a.written[ours]; ok && now.Sub(last) < repeat {
		return false
	}
	a.written[ours] = now
	return true
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

// maxText bounds the text of a line in bytes: a peer may have written a part of it.
const maxText = 2000

// textOf is the message in keyvals with the other keys and values behind it, without what slog adds itself.
func textOf(keyvals []any) string {
	var msg string
	var rest strings.Builder
	for i := 0; i < len(keyvals); i += 2 {
		if i+1 == len(keyvals) { // go-kit itself never leaves a value out
			break
		}
		switch key := fmt.Sprint(keyvals[i]); key {
		case "msg", "message":
			msg = strings.TrimSpace(fmt.Sprint(plain(keyvals[i+1])))
		case "level", "ts", "caller":
		default:
			fmt.Fprintf(&rest, " %s=%v", key, plain(keyvals[i+1]))
		}
	}
	text := strings.TrimSpace(msg + rest.String())
	return strings.ToValidUTF8(text[:min(len(text), maxText)], "")
}

// plain is v, or what v computes where go-kit computes a value when it logs.
func plain(v any) any {
	if f, ok := v.(log.Valuer); ok {
		return f()
	}
	return v
}
