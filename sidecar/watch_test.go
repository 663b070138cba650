package sidecar

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func TestJudge(t *testing.T) {
	o := DefaultOptions()
	o.Ship.Dir = "/prometheus/"
	f := func(want string, external labels.Labels, flags ...string) {
		t.Helper()
		s := settings{labels: external}
		for i := 0; i < len(flags); i += 2 {
			if s.flags == nil {
				s.flags = map[string]string{}
			}
			s.flags[flags[i]] = flags[i+1]
		}
		err := judge(s, o)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) ||
			errs.KindOf(err) != errs.Unavailable) {
			t.Errorf("%v %v: %v, want %q", external, flags, err, want)
		}
	}
	good := labels.FromStrings("prometheus", "a")
	f("", good)
	f("no external labels", labels.EmptyLabels())
	f("tenant_id", labels.FromStrings("prometheus", "a", "tenant_id", "b"))
	f("receive_replica", labels.FromStrings("receive_replica", "b"))
	f("", good, flagMinBlock, "2h", flagMaxBlock, "2h")
	f("must be equal", good, flagMinBlock, "2h", flagMaxBlock, "36h")
	record := filepath.Join("/prometheus", "thanos.shipper.json")
	f("", good, flagMinBlock, "2h", flagMaxBlock, "36h", flagDelayCompact, record)
	f("", good, flagMinBlock, "2h", flagMaxBlock, "36h", flagDelayCompact, "/prometheus/./thanos.shipper.json")
	f("the same file", good, flagMinBlock, "2h", flagMaxBlock, "2h", flagDelayCompact, "/other.json")
	o.Ship.IgnoreUnequal = true
	f("", good, flagMinBlock, "2h", flagMaxBlock, "36h")
	f("the same file", good, flagDelayCompact, "/other.json")
}

// TestComesAndGoes: what is known of a Prometheus that starts late, is down, and comes back with other labels.
func TestComesAndGoes(t *testing.T) {
	f := newFakePrometheus(t, labels.EmptyLabels())
	f.set(func() { f.down = true })
	s := f.sidecar(t)
	look := func(what string, ready bool, known string) {
		t.Helper()
		err := s.look(t.Context())
		got, kerr := s.known()
		if (err == nil) != ready || (s.Ready() == nil) != ready || (kerr == nil) != (known != "") ||
			kerr == nil && got.labels.String() != known {
			t.Errorf("%s: %v, ready %v, known %v %v", what, err, s.Ready(), got.labels, kerr)
		}
		if _, err := s.Info(t.Context()); (err == nil) != ready {
			t.Errorf("%s: info %v", what, err)
		}
	}
	look("down", false, "")
	f.set(func() { f.down = false })
	look("without external labels", false, "")
	f.set(func() { f.external = labels.FromStrings("a", "1") })
	look("up", true, `{a="1"}`)
	f.set(func() { f.down = true })
	look("down again", false, `{a="1"}`)
	f.set(func() { f.down, f.external = false, labels.FromStrings("b", "2") })
	look("other labels", true, `{b="2"}`)
	f.set(func() { f.external = labels.EmptyLabels() })
	look("without labels again", false, "")
}

// TestReadyTimeout: the process ends after the timeout, if it has something to ship, and at no other time.
func TestReadyTimeout(t *testing.T) {
	for _, ships := range []bool{false, true} {
		f := newFakePrometheus(t, labels.FromStrings("a", "1"))
		f.set(func() { f.down = true })
		var s *Sidecar
		var ended atomic.Pointer[error]
		if ships {
			f.set(func() { f.down = false })
			s = f.shipping(t, t.TempDir(), objstore.NewInMemBucket(), func(o *Options) { o.ReadyTimeout = time.Millisecond })
			f.set(func() { f.down = true })
		} else {
			s = f.sidecar(t, func(o *Options) { o.ReadyTimeout = time.Millisecond })
		}
		if err := s.Open(t.Context(), func(err error) { ended.Store(&err) }); err != nil {
			t.Fatal(err)
		}
		done := func() bool { return ended.Load() != nil || !ships && f.seen("/buildinfo") > 3 }
		for end := time.Now().Add(20 * time.Second); !done() && time.Now().Before(end); time.Sleep(time.Millisecond) {
			s.lookAgain()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if (ended.Load() != nil) != ships {
			t.Errorf("with blocks to ship %v: ended with %v", ships, ended.Load())
		}
	}
}
