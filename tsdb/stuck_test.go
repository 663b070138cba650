package tsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// breakChunks makes the TSDB in dir unable to begin a file of mapped chunks, and returns what mends it.
func breakChunks(t *testing.T, dir string) (mend func()) {
	t.Helper()
	chunks := filepath.Join(dir, "chunks_head")
	if err := errors.Join(os.Rename(chunks, chunks+".away"), os.WriteFile(chunks, nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := errors.Join(os.Remove(chunks), os.Rename(chunks+".away", chunks)); err != nil {
			t.Fatal(err)
		}
	}
}

// outOfOrder writes n samples to each of the series, one request per sample, from the newest to the oldest.
type outOfOrder struct {
	d    *DB
	last int64
	acks []int64
}

func (o *outOfOrder) send(ctx context.Context, series int) error {
	b := wire.NewBatch(team)
	for i := range series {
		b.Add(labels.FromStrings("i", fmt.Sprint(i))).Samples = []wire.Sample{{T: o.last, V: float64(o.last)}}
	}
	failures, err := o.d.Append(ctx, wire.All(b))
	if len(failures) > 0 {
		err = errors.Join(err, errors.New(failures[0].Reason))
	}
	if err == nil {
		o.acks = append(o.acks, o.last)
	}
	o.last -= 10
	return err
}

// TestWedge lets the head panic in a commit, which leaves a series locked for good. Its writers must not hang, others
// must not notice, and the tenant must come back by itself with all that was acknowledged.
func TestWedge(t *testing.T) {
	o := testOptions(t)
	var ahead atomic.Int64
	o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	d := openDB(t, o)
	now := time.Now().UnixMilli()
	put(t, d, "other", labels.FromStrings("a", "b"), float64(now), 1)
	w := &outOfOrder{d: d, last: now}
	for range 33 { // one in order, and a chunk that is full
		if err := w.send(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
	}
	mend := breakChunks(t, d.TenantDir(team))

	// Many writers of the series that will be locked.
	var wg sync.WaitGroup
	results := make(chan error, 20)
	for i := range 20 {
		own := &outOfOrder{d: d, last: w.last - int64(i)}
		wg.Go(func() { results <- own.send(context.Background(), 3) })
	}
	waited := make(chan struct{})
	go func() { wg.Wait(); close(waited) }()
	select {
	case <-waited:
	case <-time.After(20 * time.Second):
		t.Fatal("writers of the locked series hang")
	}
	for range 20 {
		if err := <-results; errs.KindOf(err) != errs.Unavailable || errs.RetryAfter(err) == 0 {
			t.Errorf("append while the head is stuck: %v", err)
		}
	}
	put(t, d, "other", labels.FromStrings("a", "b"), float64(now+1), 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.send(ctx, 3); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("append: %v", err)
	}

	// It does not come back while the fault lasts, and the process stays ready.
	ahead.Add(int64(time.Minute))
	settleLook(t, d, team)
	eventually(t, func() bool { return d.Status()[1].State == Broken })
	ahead.Add(int64(time.Minute))
	settleLook(t, d, team)
	eventually(t, func() bool { return d.Status()[1].State == Broken })
	if err := d.Ready(); err != nil {
		t.Fatalf("one tenant is broken: %v", err)
	}

	// Once it is over a write brings the tenant back: not after half an hour.
	mend()
	ahead.Add(int64(10 * time.Second))
	eventually(t, func() bool { return w.send(t.Context(), 3) == nil })
	for range 70 {
		if err := w.send(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
	}
	checkAcks := func() {
		t.Helper()
		got := read(t, d, team)
		for name, points := range got {
			have := map[int64]bool{}
			for _, p := range points {
				have[p.t] = true
			}
			for _, at := range w.acks {
				if !have[at] {
					t.Fatalf("%s: the acknowledged sample at %d is gone", name, at)
				}
			}
		}
		if len(got) != 3 {
			t.Fatalf("%d series, want 3", len(got))
		}
	}
	checkAcks()
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkAcks()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	checkAcks()
}

// TestPanicBeforeCommit: a request that makes our code panic before the commit fails alone. Nothing of it is stored,
// the head goes on, and nothing is abandoned, however often it comes.
func TestPanicBeforeCommit(t *testing.T) {
	o := testOptions(t)
	o.MaxExemplars = 10
	o.Limits = func(tenant.ID) *tenant.Limits { return someLimits }
	var broken atomic.Bool
	o.Share = func(tenant.ID) float64 {
		if broken.Load() {
			panic("injected")
		}
		return 1
	}
	reg := prometheus.NewRegistry()
	d, err := New(slog.New(slog.DiscardHandler), reg, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	now := time.Now().UnixMilli()
	put(t, d, team, labels.FromStrings("a", "known"), float64(now), 1)
	put(t, d, "other", labels.FromStrings("a", "known"), float64(now), 1)
	in := d.lookup(team).in
	for i := range int64(maxAbandoned.heads + 10) {
		b := wire.NewBatch(team)
		b.Add(labels.FromStrings("a", "known")).Samples = []wire.Sample{{T: now + 1000*i + 1, V: 2}}
		s := b.Add(labels.FromStrings("a", fmt.Sprint("new", i)))
		s.Samples = []wire.Sample{{T: now, V: 1}}
		counter := d.m.exemplars
		if i%2 == 0 { // in our part of the transaction, after its samples
			s.Exemplars = []wire.Exemplar{{T: 1}}
			d.m.exemplars = nil
		} else { // in what the head calls
			broken.Store(true)
		}
		failures, err := d.Append(t.Context(), wire.All(b))
		broken.Store(false)
		d.m.exemplars = counter
		if errs.KindOf(err) != errs.Internal || !strings.Contains(err.Error(), string(team)) {
			t.Fatalf("request %d: %v %v, want an error of its own", i, failures, err)
		}
		put(t, d, team, labels.FromStrings("a", "known"), float64(now+1000*i+2), 3)
		put(t, d, "other", labels.FromStrings("a", "known"), float64(now+1000*i+2), 3)
	}
	settleLook(t, d, team)
	if d.lookup(team).in != in {
		t.Fatal("the tenant was opened again")
	}
	check := func(d *DB) {
		t.Helper()
		for name, ps := range read(t, d, team) {
			for _, p := range ps {
				if name != `{a="known"}` || p.v == "2" {
					t.Fatalf("%s has %v of a request that failed", name, p)
				}
			}
		}
		if got := read(t, d, team)[`{a="known"}`]; int64(len(got)) != maxAbandoned.heads+11 {
			t.Fatalf("%d samples, want %d", len(got), maxAbandoned.heads+11)
		}
	}
	check(d)
	if n := testutil.ToFloat64(d.m.panics); n != float64(maxAbandoned.heads+10) {
		t.Errorf("%v panics counted", n)
	}
	if n := testutil.ToFloat64(d.m.abandoned); n != 0 {
		t.Errorf("%v heads abandoned", n)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	check(openDB(t, o))
}

var someLimits = &tenant.Limits{ActiveSeries: 1000, Exemplars: 10}

// TestHeadsOfOneTenant: a tenant whose heads hang again and again is refused in the end, and no other tenant pays for
// it. TestWedge has a head that really hangs.
func TestHeadsOfOneTenant(t *testing.T) {
	d := openDB(t, testOptions(t))
	now := time.Now().UnixMilli()
	put(t, d, "other", labels.FromStrings("a", "b"), float64(now), 1)
	hang := func(id tenant.ID) (open bool) {
		t.Helper()
		entry := d.lookup(id)
		_ = entry.in.setStuck("injected")
		settleLook(t, d, id)
		eventually(t, func() bool { entry.mu.Lock(); defer entry.mu.Unlock(); return entry.state == Open })
		return !entry.in.isStuck()
	}
	for i := range maxAbandoned.heads / 2 {
		put(t, d, team, labels.FromStrings("a", "b"), float64(now+i), 1)
		if !hang(team) {
			t.Fatalf("head %d was not given up", i)
		}
	}
	put(t, d, team, labels.FromStrings("a", "b"), float64(now+1000), 1)
	if hang(team) {
		t.Fatal("one tenant has lost more heads than its part")
	}
	b := wire.NewBatch(team)
	b.Add(labels.FromStrings("a", "b")).Samples = []wire.Sample{{T: now + 2000, V: 1}}
	if _, err := d.Append(t.Context(), wire.All(b)); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("append: %v", err)
	}
	for i := range int64(3) {
		put(t, d, "other", labels.FromStrings("a", "b"), float64(now+1+i), 1)
		if !hang("other") {
			t.Fatal("another tenant cannot lose a head any more")
		}
	}
	d.lookup(team).in.stuck.Store(false) // so that it is closed: nothing really hangs
}

func TestMayLose(t *testing.T) {
	f := func(own, all abandonedHeads, series int64, want bool) {
		t.Helper()
		if got := mayAbandon(own, all, series); got != want {
			t.Errorf("own %v, all %v, %d series more: %t, want %t", own, all, series, got, want)
		}
	}
	f(abandonedHeads{}, abandonedHeads{}, 0, true)
	f(abandonedHeads{}, abandonedHeads{heads: 1000, series: 1 << 40}, 1<<40, true) // the first one whatever others lost
	f(abandonedHeads{1, 10}, abandonedHeads{}, 499_990, true)
	f(abandonedHeads{1, 10}, abandonedHeads{}, 499_991, false)
	f(abandonedHeads{24, 0}, abandonedHeads{heads: 23}, 1, true)
	f(abandonedHeads{25, 0}, abandonedHeads{heads: 24}, 1, false)
	f(abandonedHeads{1, 0}, abandonedHeads{heads: 49}, 1, true)
	f(abandonedHeads{1, 0}, abandonedHeads{heads: 50}, 1, false)
	f(abandonedHeads{1, 0}, abandonedHeads{series: 999_999}, 1, true)
	f(abandonedHeads{1, 0}, abandonedHeads{series: 1_000_000}, 1, false)
}
