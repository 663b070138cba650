package filewatch

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// reads follows files; the channel gets one element for each read.
func reads(t *testing.T, interval time.Duration, log *slog.Logger, files ...string) <-chan struct{} {
	ch := make(chan struct{}, 1000)
	t.Cleanup(Follow(log, files, interval, time.Millisecond, func() { ch <- struct{}{} }))
	return ch
}

func await(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: not read within 20s", what)
	}
}

func drain(ch <-chan struct{}) {
	for len(ch) > 0 {
		<-ch
	}
}

func TestChanges(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(file, []byte("1"), 0o666))
	ch := reads(t, time.Hour, slog.New(slog.DiscardHandler), file)
	must(os.WriteFile(file, []byte("2"), 0o666))
	await(t, "written", ch)
	drain(ch)
	must(os.WriteFile(file+".new", []byte("3"), 0o666))
	must(os.Rename(file+".new", file))
	await(t, "renamed", ch)
	// As Kubernetes does: the file is a link into a directory that is swapped.
	drain(ch)
	must(os.Mkdir(filepath.Join(dir, "..2"), 0o777))
	must(os.Symlink("..2", filepath.Join(dir, "..tmp")))
	must(os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	await(t, "link swapped", ch)
}

func TestInterval(t *testing.T) {
	await(t, "interval", reads(t, time.Millisecond, slog.New(slog.DiscardHandler), filepath.Join(t.TempDir(), "f")))
	var logged strings.Builder
	log := slog.New(slog.NewTextHandler(&logged, nil))
	ch := reads(t, time.Millisecond, log, filepath.Join(t.TempDir(), "absent", "f"))
	await(t, "directory that is not there", ch)
	if !strings.Contains(logged.String(), "only read now and then") {
		t.Errorf("logged %q", logged.String())
	}
}

// After stop nothing is read any more.
func TestStop(t *testing.T) {
	n := 0 // the race detector tells when stop does not wait
	stop := Follow(slog.New(slog.DiscardHandler), []string{filepath.Join(t.TempDir(), "f")}, time.Microsecond,
		time.Millisecond, func() { n++ })
	stop()
	n++
}
