package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/tsdb"
)

// storageOf is what the flags make of the options of local data.
func storageOf(t *testing.T, args ...string) (storageFlags, string, error) {
	t.Helper()
	var f storageFlags
	app := kingpin.New("test", "")
	c := app.Command("receive", "")
	f.bind(c)
	shared := defaultShared()
	shared.bindStored(c)
	if _, err := app.Parse(append([]string{"receive"}, args...)); err != nil {
		return f, "", err
	}
	log := new(bytes.Buffer)
	_, err := f.settle(slog.New(slog.NewTextHandler(log, nil)), shared)
	return f, log.String(), err
}

func TestTuningFlags(t *testing.T) {
	f := func(want string, ok func(storageFlags) bool, args ...string) {
		t.Helper()
		got, log, err := storageOf(t, args...)
		text := log
		if err != nil {
			text = err.Error()
		}
		if (ok == nil) != (err != nil) || !strings.Contains(text, want) || want == "" && text != "" ||
			ok != nil && err == nil && !ok(got) {
			t.Errorf("%q: %+v, %q, want %q", args, got.tsdb, text, want)
		}
		if err == nil {
			if err := got.tsdb.Validate(); err != nil {
				t.Errorf("%q: %v", args, err)
			}
		}
	}
	d := tsdb.DefaultOptions()
	f("", func(f storageFlags) bool {
		return f.tsdb.Window == d.Window && f.tsdb.Future == d.Future && f.tsdb.BlockDuration == d.BlockDuration &&
			f.tsdb.WALCompression == compression.Snappy && f.tsdb.MaxBytes == 0 && !f.receive.HashFiles &&
			f.receive.Validate() != nil
	})
	f("--tsdb.out-of-order.time-window=0s means the default",
		func(f storageFlags) bool { return f.tsdb.Window == 3*time.Hour }, "--tsdb.out-of-order.time-window=0s")
	f("--tsdb.too-far-in-future.time-window=0s means the default",
		func(f storageFlags) bool { return f.tsdb.Future == 10*time.Minute }, "--tsdb.too-far-in-future.time-window=0s")
	f("", func(f storageFlags) bool { return f.tsdb.Window == 30*time.Minute }, "--tsdb.out-of-order.time-window=30m")
	f("", func(f storageFlags) bool { return f.tsdb.Retention == forever }, "--tsdb.retention=0d")
	f("", func(f storageFlags) bool { return f.tsdb.BlockDuration == 2*time.Hour }, "--tsdb.min-block-duration=2h",
		"--tsdb.max-block-duration=2h")
	f("", func(f storageFlags) bool { return f.tsdb.BlockDuration == 2*time.Hour }, "--tsdb.max-block-duration=2h")
	f("", func(f storageFlags) bool { return f.tsdb.BlockDuration == time.Hour }, "--tsdb.min-block-duration=1h",
		"--tsdb.max-block-duration=1h")
	f("", func(f storageFlags) bool { return f.tsdb.BlockDuration == time.Hour }, "--tsdb.block-duration=1h")
	f("differ", nil, "--tsdb.min-block-duration=1h")
	f("differ", nil, "--tsdb.min-block-duration=1h", "--tsdb.max-block-duration=4h")
	f("differ", nil, "--tsdb.min-block-duration=1h", "--tsdb.max-block-duration=1h", "--tsdb.block-duration=4h")
	f("", func(f storageFlags) bool { return f.tsdb.WALCompression == compression.Snappy }, "--tsdb.wal-compression")
	f("", func(f storageFlags) bool { return f.tsdb.WALCompression == compression.None }, "--no-tsdb.wal-compression")
	f("", func(f storageFlags) bool { return f.tsdb.MaxBytes == 3<<30 }, "--tsdb.max-retention-bytes=3GB")
	f("want a number of bytes", nil, "--tsdb.max-retention-bytes=much")
	f("", func(f storageFlags) bool { return f.tsdb.MaxExemplars == 0 && f.tsdb.OutOfOrderCap == 0 },
		"--tsdb.max-exemplars=-1", "--tsdb.out-of-order.cap-max=-1")
	f("", func(f storageFlags) bool { return f.tsdb.OutOfOrderCap == 64 && f.tsdb.NoLock },
		"--tsdb.out-of-order.cap-max=64", "--tsdb.no-lockfile")
	f("", func(f storageFlags) bool { return f.receive.HashFiles && f.receive.FileConcurrency == 4 }, "--hash-func=SHA256",
		"--shipper.upload-concurrency=4")
	f("enum value must be one of", nil, "--hash-func=MD5")
}

func TestByteSize(t *testing.T) {
	f := func(s string, want int64) {
		t.Helper()
		var b byteSize
		if err := b.Set(s); (err == nil) != (want >= 0) || err == nil && int64(b) != want {
			t.Errorf("%q: %d, %v, want %d", s, b, err, want)
		}
	}
	f("0", 0)
	f("17", 17)
	f("17B", 17)
	f("1KB", 1<<10)
	f("512MB", 512<<20)
	f("512MiB", 512<<20)
	f("2G", 2<<30)
	f("1EB", 1<<60)
	f("100EB", -1)
	f("-1", -1)
	f("MB", -1)
	f("1.5GB", -1)
	f("", -1)
	f("10XB", -1)
}

func TestCopyNumber(t *testing.T) {
	f := func(header string, want int) {
		t.Helper()
		if got, err := copyNumber(header, 3); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v, want %d", header, got, err, want)
		}
	}
	f("", 0)
	f("0", 0)
	f("1", 1)
	f("3", 3)
	f("4", -1)
	f("-1", -1)
	f("first", -1)
}
