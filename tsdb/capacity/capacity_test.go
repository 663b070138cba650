package capacity

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestReserve(t *testing.T) {
	f := func(least int64, size, want uint64) {
		t.Helper()
		if got := reserve(least, size); got != want {
			t.Fatalf("reserve(%d, %d) = %d, want %d", least, size, got, want)
		}
	}
	f(0, 64<<20, 16<<20)
	f(0, 1<<30, 256<<20)
	f(0, 10<<30, 640<<20)
	f(0, 16<<30, 16<<30/20)
	f(0, 1<<40, 1<<30)
	f(7, 1<<40, 7)
}

func TestDisk(t *testing.T) {
	free, size, fault := uint64(100), uint64(400), error(nil)
	d := &Disk{log: slog.New(slog.DiscardHandler), Stat: func(string) (uint64, uint64, error) { return free, size, fault }}
	now := time.Unix(1000, 0)
	f := func(step time.Duration, f uint64, want bool) {
		t.Helper()
		free, now = f, now.Add(step)
		if got := d.Look(now); got != want {
			t.Fatalf("full = %v with %d of %d free, want %v", got, free, size, want)
		}
	}
	f(0, 100, false)
	f(lookEvery/2, 99, false) // not looked yet
	f(lookEvery, 99, true)
	f(lookEvery, 105, true) // not to and fro
	f(lookEvery, 113, false)
	f(lookEvery, 10, true)
	f(-time.Hour, 400, false) // the clock was put back
	fault = errors.New("no answer")
	f(lookEvery, 0, false)
	fault, size = nil, 0
	f(lookEvery, 0, false)
}

func TestFilesWarning(t *testing.T) {
	var log bytes.Buffer
	f := Files{log: slog.New(slog.NewTextHandler(&log, nil)), MaxFiles: 10_000, MaxMaps: 500}
	f.tenants.Store(50)
	warned := func(blocks, want int) {
		t.Helper()
		f.blocks.Store(int64(blocks))
		f.Warn()
		if n := strings.Count(log.String(), "level=WARN"); n != want {
			t.Fatalf("%d blocks: %d warnings, want %d\n%s", blocks, n, want, log.String())
		}
	}
	warned(100, 0)
	warned(130, 1)
	warned(140, 1)
	warned(100, 1)
	warned(140, 2)
	if !strings.Contains(log.String(), "vm.max_map_count") {
		t.Fatalf("%s", log.String())
	}
}
