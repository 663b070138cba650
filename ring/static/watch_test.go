package static

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// safeBuffer is a log that tests read while it is written.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func openWatcher(t *testing.T, opts Options) (*Watcher, *safeBuffer) {
	t.Helper()
	log := &safeBuffer{}
	w, err := Watch(slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if p := w.Placement(); p != nil {
		t.Fatalf("a placement before Open: %v", p)
	}
	if err := w.Open(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, log
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for " + what)
		}
	}
}

// primary is the member that every series of this test's one-member hashrings is on.
func primary(w *Watcher) string { return replicas(w.Placement(), "t", 1)[0] }

func TestWatcherFollowsTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hashrings.json")
	write(t, file, `[{"hashring":"h","endpoints":["one:1"]}]`)
	opts := DefaultOptions()
	opts.File = file
	w, log := openWatcher(t, opts)
	first := w.Placement()
	if primary(w) != "one:1" {
		t.Fatalf("placed on %s, want one:1", primary(w))
	}

	write(t, file, `[{"hashring":"h","endpoints":["two:1"]}]`)
	await(t, "the second version", func() bool { return primary(w) == "two:1" })
	if got := replicas(first, "t", 1)[0]; got != "one:1" {
		t.Fatalf("an old placement changed: %s", got)
	}

	write(t, file, `[{`)
	await(t, "the fault to be logged", func() bool { return strings.Contains(log.String(), "not valid JSON") })
	if primary(w) != "two:1" {
		t.Fatalf("a bad file changed the placement to %s", primary(w))
	}
	if testutil.ToFloat64(w.metrics.good) != 0 || testutil.ToFloat64(w.metrics.faults) == 0 {
		t.Fatal("metrics do not show the bad file")
	}

	// As editors and Kubernetes do: another file is renamed over it.
	write(t, file+".new", `[{"hashring":"h","endpoints":["three:1"]}]`)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	await(t, "the third version",
		func() bool { return primary(w) == "three:1" && testutil.ToFloat64(w.metrics.good) == 1 })
	await(t, "the end of the fault to be logged", func() bool { return strings.Contains(log.String(), "valid again") })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal("Close is not idempotent:", err)
	}
}

func TestWatcherRereadsNowAndThen(t *testing.T) {
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "real.json")
	write(t, elsewhere, `[{"endpoints":["one:1"]}]`)
	opts := DefaultOptions()
	opts.File, opts.RefreshInterval = filepath.Join(dir, "link.json"), 20*time.Millisecond
	if err := os.Symlink(elsewhere, opts.File); err != nil {
		t.Fatal(err)
	}
	w, _ := openWatcher(t, opts)
	write(t, elsewhere, `[{"endpoints":["two:1"]}]`) // no event in the directory that is watched
	await(t, "the second version", func() bool { return primary(w) == "two:1" })
}

func TestWatcherOfContent(t *testing.T) {
	opts := DefaultOptions()
	opts.Content = []byte(`[{"endpoints":["one:1"]}]`)
	w, _ := openWatcher(t, opts)
	if primary(w) != "one:1" {
		t.Fatalf("placed on %s", primary(w))
	}
}

func TestWatcherOpenNeedsValidHashrings(t *testing.T) {
	f := func(opts Options, want string) {
		t.Helper()
		w, err := Watch(slog.New(slog.DiscardHandler), nil, opts)
		if err == nil {
			err = w.Open(context.Background(), nil)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("error %v, want %q", err, want)
		}
	}
	opts := DefaultOptions()
	f(opts, "no hashring file")
	opts.File = t.TempDir()
	f(opts, "is a directory")
	opts.File, opts.Content, opts.Algorithm, opts.ReplicationFactor = "", []byte(
		`[{"hashring":"h","endpoints":["a"]}]`), Ketama, 3
	f(opts, `hashring "h"`)
	opts.Content = []byte(`[{}]`)
	f(opts, "nobody can fill a flag later")
	opts.ReplicationFactor, opts.RefreshInterval = 0, 0
	f(opts, "refresh interval")
}

// TestWatcherWaitsForAController: a file that is not there, or has no endpoints, is followed until it has. Once it had
// some, it is not emptied any more.
func TestWatcherWaitsForAController(t *testing.T) {
	for _, start := range []string{"absent", "", "[]", "[{}]", `[{"hashring":"h","tenants":["t"],"algorithm":"ketama"}]`} {
		t.Run(start, func(t *testing.T) {
			opts := DefaultOptions()
			opts.File, opts.ReplicationFactor, opts.Local = filepath.Join(t.TempDir(), "hashrings.json"), 3, "one:1"
			if start != "absent" {
				write(t, opts.File, start)
			}
			w, log := openWatcher(t, opts)
			if got := replicas(w.Placement(), "t", 1); len(got) > 0 || len(w.Placement().Members()) > 0 ||
				w.Placement().ReplicationFactor() != 3 {
				t.Errorf("placed on %q of %v", got, w.Placement().Members())
			}
			if err := w.Ready(); err == nil || !strings.Contains(err.Error(), opts.File+" names no endpoints yet") ||
				!strings.Contains(log.String(), "names no endpoints yet") {
				t.Errorf("Ready: %v; log: %s", err, log)
			}
			if err := w.Listed(); err != nil {
				t.Error("the local endpoint is looked for before there are any:", err)
			}
			write(t, opts.File, `[{"hashring":"h","endpoints":["one:1","two:1","three:1"]}]`)
			await(t, "the endpoints", func() bool { return w.Ready() == nil })
			if testutil.ToFloat64(w.metrics.local) != 1 || w.Listed() != nil {
				t.Errorf("the local endpoint is not found: %v", w.Listed())
			}
			for _, empty := range []string{"", "[]", "[{}]", `[{"hashring":"h"},{"hashring":"i","endpoints":["four:1"]}]`} {
				write(t, opts.File, empty)
				await(t, "the fault of "+empty, func() bool { return testutil.ToFloat64(w.metrics.good) == 0 })
				if n := len(w.Placement().Members()); n != 3 || w.Ready() != nil {
					t.Errorf("%q took the endpoints away: %d are left", empty, n)
				}
				write(t, opts.File, `[{"hashring":"h","endpoints":["one:1","two:1","three:1"]}]`)
				await(t, "the end of the fault", func() bool { return testutil.ToFloat64(w.metrics.good) == 1 })
			}
			if !strings.Contains(log.String(), "endpoints any more") ||
				!strings.Contains(log.String(), "the last good ones stay in use") {
				t.Error(log)
			}
		})
	}
}

func TestWatcherNamesAMissingLocalEndpoint(t *testing.T) {
	opts := DefaultOptions()
	opts.Content, opts.Local = []byte(
		`[{"endpoints":["a.svc:10901","b.svc:10901","c.svc:10901","d.svc:10901"],"tenant":["x"]}]`), "a:10901"
	w, log := openWatcher(t, opts)
	if testutil.ToFloat64(w.metrics.local) != 0 {
		t.Error("the metric says that it is there")
	}
	err := w.Listed()
	for _, part := range []string{"a:10901", "--receive.local-endpoint", "stores nothing", "a.svc:10901, b.svc:10901, c.svc:10901, ..."} {
		if err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(log.String(), part) {
			t.Errorf("want %q in %v and in the log: %s", part, err, log)
		}
	}
	if !strings.Contains(log.String(), `unknown key \"tenant\", did you mean \"tenants\"?`) {
		t.Error(log)
	}
}
