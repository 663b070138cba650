package gokit

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// logTo writes to buf without times.
func logTo(buf *bytes.Buffer, min slog.Level) *slog.Logger {
	return slog.New(
		slog.NewTextHandler(buf, &slog.HandlerOptions{Level: min, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
}

func TestLog(t *testing.T) {
	words := []Words{{"shutting down", ""}, {"handshake err=bad", "TLS is wrong"}}
	f := func(min slog.Level, strict bool, write func(log.Logger) error, want string) {
		t.Helper()
		var buf bytes.Buffer
		if err := write(New(logTo(&buf, min), "lib", words, strict)); err != nil {
			t.Fatal(err)
		}
		if got := buf.String(); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	info := func(l log.Logger) error { return level.Info(l).Log("msg", "hello", "n", 1) }
	stop := func(l log.Logger) error { return level.Error(l).Log("msg", "transport is shutting down") }
	tls := func(l log.Logger) error { return level.Error(l).Log("msg", "handshake", "err", errors.New("bad")) }
	odd := func(l log.Logger) error { return level.Error(l).Log("msg", errors.New("bad"), "a", 1, "odd") }
	callers := func(l log.Logger) error {
		return level.Warn(
			log.With(l, "caller", log.DefaultCaller, "ts", log.DefaultTimestampUTC, "part", "kv")).Log("msg", "m")
	}

	f(slog.LevelInfo, true, info, "")
	f(slog.LevelDebug, true, info, "level=DEBUG msg=library library=lib text=\"hello n=1\"\n")
	f(slog.LevelInfo, true, stop, "")
	f(slog.LevelInfo, true, tls, "level=WARN msg=\"TLS is wrong\" library=lib text=\"handshake err=bad\"\n")
	f(slog.LevelInfo, false, odd, "")
	const unknown = "level=WARN msg=\"a library reports a fault that Hearth has no words for\" library=lib text="
	f(slog.LevelInfo, true, odd, unknown+"\"bad a=1 odd=(MISSING)\"\n")
	f(slog.LevelInfo, true, callers, unknown+"\"m part=kv\"\n")
}

// A warning that comes again and again is written once a minute.
func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		l := New(logTo(&buf, slog.LevelInfo), "lib", []Words{{"x", "y"}}, false)
		for range 10 {
			_ = level.Warn(l).Log("msg", "x")
			time.Sleep(10 * time.Second)
		}
		if n := bytes.Count(buf.Bytes(), []byte("\n")); n != 2 {
			t.Errorf("%d lines in 100 seconds, want 2:\n%s", n, &buf)
		}
	})
}

func TestNilDiscards(t *testing.T) {
	if err := level.Error(NewQuiet(nil, "lib")).Log("msg", "x"); err != nil {
		t.Fatal(err)
	}
}
