package tsdb

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// named are the paths below dir that have a text in them.
func named(t *testing.T, dir, text string) []string {
	return slices.DeleteFunc(tree(t, dir), func(p string) bool { return !strings.Contains(p, text) })
}

// TestRemove deletes a tenant in each of its states, with blocks, faulty ones, and parts of damaged logs. The other
// tenant stays, and the tenant can be made anew.
func TestRemove(t *testing.T) {
	now := float64(time.Now().UnixMilli())
	for _, state := range []State{Open, Idle, Broken} {
		o := testOptions(t)
		d := openDB(t, o)
		one := labels.FromStrings("a", "b")
		put(t, d, team, one, now, 1)
		put(t, d, "other", one, now, 2)
		if err := d.Cut(t.Context(), team); err != nil {
			t.Fatal(err)
		}
		put(t, d, team, one, now+1, 1)
		lay(t, filepath.Join(o.Dir, string(team)), "faulty/"+someBlock+".2/index", "damaged/20260101T000000Z-wal-00000001",
			someBlock+".tmp-for-creation/chunks/000001", "thanos/upload/"+someBlock+"/meta.json")
		x := d.lookup(team)
		switch state {
		case Idle:
			if err := x.closeForGood(t.Context()); err != nil {
				t.Fatal(err)
			}
		case Broken:
			if err := x.closeForGood(t.Context()); err != nil {
				t.Fatal(err)
			}
			x.mu.Lock()
			x.quarantine(errors.New("test"), 0)
			x.mu.Unlock()
		}
		if made, err := d.Made(team); err != nil || time.Since(made) > time.Minute {
			t.Errorf("%s: made %s, %v", state, made, err)
		}
		if err := d.Remove(t.Context(), team); err != nil {
			t.Fatalf("%s: %v", state, err)
		}
		if d.Has(team) || len(named(t, o.Dir, string(team))) > 0 {
			t.Errorf("%s: left: %v", state, tree(t, o.Dir))
		}
		all := func(id string) map[string][]point2 {
			return collect(t, d.Select(t.Context(), request(team, 0, int64(now)+10)))
		}
		if got := all("team"); len(got) != 0 {
			t.Errorf("%s: %v", state, got)
		}
		if got := collect(t, d.Select(t.Context(), request("other", 0, int64(now)+10))); len(got) != 1 {
			t.Errorf("%s: the other tenant: %v", state, got)
		}
		if err := errors.Join(d.Remove(t.Context(), team), d.Remove(t.Context(), "nobody")); err != nil {
			t.Errorf("%s: again: %v", state, err)
		}
		x.housekeep() // a round that began before must not write into the new tenant's directory
		put(t, d, team, one, now+2, 3)
		if got := all("team")[one.String()]; len(got) != 1 {
			t.Errorf("%s: made anew: %v", state, got)
		}
	}
}

// TestRemoveIsDetached: after a crash at any moment the tenant is there as a whole, or not at all. What nobody knows
// stays, out of the way.
func TestRemoveIsDetached(t *testing.T) {
	o := testOptions(t)
	o.Tick = time.Hour
	now := float64(time.Now().UnixMilli())
	d := openDB(t, o)
	put(t, d, team, labels.FromStrings("a", "b"), now, 1)
	if err := errors.Join(d.Cut(t.Context()), d.lookup(team).closeForGood(t.Context())); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(o.Dir, string(team))
	lay(t, dir, "notes.txt", "wal/mine")
	if err := d.Remove(t.Context(), team); err == nil || !strings.Contains(err.Error(), "notes.txt") {
		t.Errorf("foreign files: %v", err)
	}
	gone := filepath.Join(o.Dir, removingPrefix+string(team))
	if got := tree(t, gone); !slices.Equal(got, []string{"notes.txt", "wal", "wal/mine"}) {
		t.Errorf("left: %v", got)
	}
	// It crashed after the directory was renamed: the next start deletes the rest.
	put(t, d, team, labels.FromStrings("a", "b"), now, 1)
	if err := errors.Join(d.Cut(t.Context()), d.lookup(team).closeForGood(t.Context())); err != nil {
		t.Fatal(err)
	}
	second, err := tenantdir.Detach(dir)
	if err != nil || second != gone+"~2" || tenantdir.Exists(dir) {
		t.Fatalf("%q, %v", second, err)
	}
	again := o
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, again)
	if d.Has(team) || tenantdir.Exists(second) || !tenantdir.Exists(filepath.Join(gone, "notes.txt")) {
		t.Errorf("after the start: %v", tree(t, o.Dir))
	}
}

// TestRemoveWhileWritten: writers and a remover at once. Each write is stored or refused, and what is there in the end
// was written after the last removal.
func TestRemoveWhileWritten(t *testing.T) {
	d := openDB(t, testOptions(t))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := appendOne(t, d, team); err != nil && errs.KindOf(err) != errs.Unavailable {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		if err := d.Remove(t.Context(), team); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if err := d.Remove(t.Context(), team); err != nil || d.Has(team) {
		t.Error(err)
	}
	if got := named(t, d.opts.Dir, string(team)); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// TestRemoveWaits: a reader keeps the tenant; then it is removed.
func TestRemoveWaits(t *testing.T) {
	d := openDB(t, testOptions(t))
	put(t, d, team, labels.FromStrings("a", "b"), float64(time.Now().UnixMilli()), 1)
	_, _, release, err := d.writer(t.Context(), team)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- d.Remove(t.Context(), team) }()
	eventually(t, func() bool { x := d.lookup(team); x.mu.Lock(); defer x.mu.Unlock(); return x.state == Closing })
	if _, err := os.Stat(d.TenantDir(team)); err != nil {
		t.Error(err)
	}
	release()
	if err := <-done; err != nil || d.Has(team) {
		t.Error(err)
	}
}
