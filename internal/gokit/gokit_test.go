package gokit

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

func TestLog(t *testing.T) {
	f := func(min slog.Level, make func(*slog.Logger) log.Logger, write func(log.Logger) error, want string) {
		t.Helper()
		var buf bytes.Buffer
		h := slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: min, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
		if err := write(make(slog.New(h))); err != nil {
			t.Fatal(err)
		}
		if got := buf.String(); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	info := func(l log.Logger) error { return level.Info(l).Log("msg", "hello", "n", 1) }
	warn := func(l log.Logger) error { return level.Warn(l).Log("msg", "hot", "err", errors.New("x y")) }

	f(slog.LevelInfo, New, info, "level=INFO msg=hello n=1\n")
	f(slog.LevelInfo, NewQuiet, info, "")
	f(slog.LevelDebug, NewQuiet, info, "level=DEBUG msg=hello n=1\n")
	f(slog.LevelInfo, New, warn, "level=WARN msg=hot err=\"x y\"\n")
	f(slog.LevelInfo, NewQuiet, warn, "level=WARN msg=hot err=\"x y\"\n")
	f(slog.LevelInfo, New, func(l log.Logger) error { return level.Debug(l).Log("msg", "no") }, "")
	f(slog.LevelInfo, New, func(l log.Logger) error { return level.Error(l).Log("msg", errors.New("bad")) }, "level=ERROR msg=bad\n")
	f(slog.LevelInfo, New, func(l log.Logger) error { return l.Log("a", 1, "odd") }, "level=INFO msg=\"library event\" a=1 value=odd\n")
	f(slog.LevelInfo, New, func(l log.Logger) error {
		return log.With(l, "caller", log.DefaultCaller, "ts", log.DefaultTimestampUTC, "part", "kv").Log("msg", "m")
	}, "level=INFO msg=m part=kv\n")
}

func TestNilDiscards(t *testing.T) {
	if err := level.Error(New(nil)).Log("msg", "x"); err != nil {
		t.Fatal(err)
	}
}
