package tsdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

func read(t testing.TB, d *DB, id tenant.ID) map[string][]point2 {
	t.Helper()
	return collect(t, d.Select(context.Background(), request(id, 0, math.MaxInt64)))
}

// settleLook runs one look of the scheduler at a tenant and what it starts.
func settleLook(t *testing.T, d *DB, id tenant.ID) {
	t.Helper()
	entry := d.lookup(id)
	entry.look(d.opts.Now())
	eventually(t, func() bool { return !entry.busy.Load() })
}

func TestRestart(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	now := float64(time.Now().Add(-time.Minute).UnixMilli())
	ls := labels.FromStrings("a", "b")
	put(t, d, team, ls, now, 1, now+10, 2)
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, d, team, ls, now+20, 3, now+30, 4)
	put(t, d, team, ls, now+25, 5, now-5, 6) // out of order
	put(t, d, "other", ls, now, 7)
	want := fmt.Sprint(read(t, d, team), read(t, d, "other"))
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatalf("second close: %v", err)
		}
		blocks, _, err := listBlocks(filepath.Join(o.Dir, string(team)), nil)
		if err != nil || len(blocks) != 1 {
			t.Fatalf("stopping cut something: %v %v", blocks, err)
		}
		if _, err := d.Append(t.Context(), wire.All(wire.NewBatch(team))); errs.KindOf(err) != errs.Unavailable {
			t.Fatalf("append after close: %v", err)
		}
		if set := d.Select(t.Context(), request(team, 0, 1<<60)); errs.KindOf(set.Err()) != errs.Unavailable {
			t.Fatalf("select after close: %v", set.Err())
		}
		d = openDB(t, o)
		if got := fmt.Sprint(read(t, d, team), read(t, d, "other")); got != want {
			t.Fatalf("after a restart: %s, want %s", got, want)
		}
	}
	put(t, d, team, ls, now+40, 8)
	if got := len(read(t, d, team)[`{a="b"}`]); got != 7 {
		t.Fatalf("%d samples, want 7", got)
	}
}

// TestCrash opens a copy of the directory of a DB that was not closed.
func TestCrash(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	now := float64(time.Now().Add(-time.Minute).UnixMilli())
	for i := range 20 {
		put(t, d, team, labels.FromStrings("n", fmt.Sprint(i)), now, 1, now+10, 2, now+5, 3)
		if i == 10 {
			if err := d.Cut(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		put(t, d, team, labels.FromStrings("n", fmt.Sprint(i)), now+3, 4, now+20, 5)
	}
	want := fmt.Sprint(read(t, d, team))
	crashed := o
	crashed.Dir = t.TempDir()
	if err := os.CopyFS(crashed.Dir, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(read(t, openDB(t, crashed), team)); got != want {
		t.Fatalf("after a crash: %s, want %s", got, want)
	}
}

func TestOneProcess(t *testing.T) {
	o := testOptions(t)
	openDB(t, o)
	second, err := New(slog.New(slog.DiscardHandler), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Open(t.Context(), nil); err == nil {
		t.Fatal("a second DB opened the same directory")
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

// breakLog makes a tenant that is closed one that cannot be opened.
func breakLog(t *testing.T, dir string) (mend func()) {
	t.Helper()
	wal, aside := filepath.Join(dir, "wal"), filepath.Join(t.TempDir(), "wal")
	if err := errors.Join(os.Rename(wal, aside), os.WriteFile(wal, nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := errors.Join(os.Remove(wal), os.Rename(aside, wal)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuarantine(t *testing.T) {
	o := testOptions(t)
	var mu sync.Mutex
	now := time.Now()
	o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	d := openDB(t, o)
	put(t, d, "good", labels.FromStrings("a", "b"), float64(now.UnixMilli()), 1)
	put(t, d, "bad", labels.FromStrings("a", "b"), float64(now.UnixMilli()), 1)
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	blocks, _ := d.Blocks("bad")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(blocks[0].Dir, "index")
	whole, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(index, 5); err != nil {
		t.Fatal(err)
	}

	mend := breakLog(t, d.TenantDir("bad"))
	var log syncBuffer
	d, err = New(slog.New(slog.NewTextHandler(&log, nil)), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	eventually(t, func() bool { return d.Ready() == nil })
	if got := read(t, d, "good"); len(got) != 1 {
		t.Fatalf("the good tenant is not served: %v", got)
	}
	set := d.Select(t.Context(), request("bad", 0, math.MaxInt64))
	if set.Next() || errs.KindOf(set.Err()) != errs.Unavailable {
		t.Fatalf("select from the broken tenant: %v", set.Err())
	}
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	b := wire.NewBatch("bad")
	b.Add(labels.FromStrings("a", "b")).Samples = []wire.Sample{{T: now.UnixMilli(), V: 1}}
	if _, err := d.Append(t.Context(), wire.All(b)); errs.KindOf(err) != errs.Unavailable || errs.RetryAfter(err) == 0 {
		t.Fatalf("append to the broken tenant: %v", err)
	}
	if err := d.Cut(t.Context()); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("cut of all with a broken one: %v", err)
	}
	st := d.Status()
	if st[0].State != Broken || st[0].Error == "" || st[1].State != Open {
		t.Fatalf("status %+v", st)
	}
	if err := d.Whole(); err == nil || !strings.Contains(err.Error(), "tenant bad (broken)") ||
		strings.Contains(err.Error(), "good") {
		t.Fatalf("whole: %v", err)
	}
	if local, err := d.Blocks("bad"); err != nil || len(local) != 1 {
		t.Fatalf("blocks of the broken tenant: %v %v", local, err)
	}
	settleLook(t, d, "bad") // too early for a retry
	if n := strings.Count(log.String(), "tenant quarantined"); n != 1 {
		t.Fatalf("%d lines say that it is quarantined, want 1\n%s", n, log.String())
	}
	if err := os.WriteFile(index, whole, 0o666); err != nil {
		t.Fatal(err)
	}
	mend()
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	settleLook(t, d, "bad")
	eventually(t, func() bool { return d.Status()[0].State == Open })
	if got := read(t, d, "bad"); len(got) != 1 {
		t.Fatalf("after the repair: %v", got)
	}
	if err := d.Whole(); err != nil {
		t.Fatalf("whole: %v", err)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestIdle(t *testing.T) {
	o := testOptions(t)
	var clock atomic.Int64
	clock.Store(time.Now().UnixMilli())
	o.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	var shipped atomic.Bool
	o.Shipped = func(tenant.ID, ulid.ULID) bool { return shipped.Load() }
	d := openDB(t, o)
	at := clock.Load()
	state := func() State { return d.Status()[0].State }
	put(t, d, team, labels.FromStrings("a", "b"), float64(at), 1)
	b := wire.NewBatch(team)
	b.Metadata = []wire.Metadata{{Family: "m", Type: "counter", Help: "h"}}
	mustAppend(t, d, b)

	settleLook(t, d, team)
	clock.Add(o.IdleTimeout.Milliseconds())
	settleLook(t, d, team) // cuts
	settleLook(t, d, team) // is not shipped
	if blocks, _ := d.Blocks(team); len(blocks) != 1 || state() != Open {
		t.Fatalf("%d blocks, %s", len(blocks), state())
	}
	shipped.Store(true)
	settleLook(t, d, team)
	st := d.Status()[0]
	if st.State != Idle || st.MinTime != at || st.MaxTime != at || st.Blocks != 1 || st.Series != 1 {
		t.Fatalf("status %+v, want idle at %d", st, at)
	}
	if ids := d.Tenants(); !slices.Equal(ids, []tenant.ID{team}) {
		t.Fatalf("tenants %v", ids)
	}
	md, _, err := d.Metadata(t.Context(), team, "m", 0)
	if err != nil || len(md["m"]) != 1 || md["m"][0].Help != "h" {
		t.Fatalf("metadata of a closed tenant: %v %v", md, err)
	}
	if got := collect(t, d.Select(t.Context(), request(team, at+1, math.MaxInt64))); len(got) != 0 || state() != Idle {
		t.Fatalf("a select beside its range: %v, %s", got, state())
	}
	info, err := d.Info(t.Context())
	if err != nil || info.MinTime != at || !info.Covers(team, at, at) {
		t.Fatalf("info %+v %v", info, err)
	}

	// A restart leaves it closed, a read of its range and a write open it.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	if state() != Idle {
		t.Fatalf("after a restart: %s", state())
	}
	if got := read(t, d, team); len(got[`{a="b"}`]) != 1 || state() != Open {
		t.Fatalf("after a read: %v %s", got, state())
	}
	if _, err := os.Stat(filepath.Join(o.Dir, string(team), "summary.json")); err == nil {
		t.Fatal("an open tenant has a summary")
	}
	clock.Add(o.IdleTimeout.Milliseconds())
	settleLook(t, d, team)
	settleLook(t, d, team)
	if state() != Idle {
		t.Fatalf("not idle again: %s", state())
	}
	put(t, d, team, labels.FromStrings("a", "b"), float64(clock.Load()), 2)
	if got := read(t, d, team); len(got[`{a="b"}`]) != 2 {
		t.Fatalf("after a write: %v", got)
	}

	// Blocks of a closed tenant expire.
	clock.Add(o.IdleTimeout.Milliseconds())
	settleLook(t, d, team)
	settleLook(t, d, team)
	clock.Add(o.Retention.Milliseconds() + o.BlockDuration.Milliseconds())
	settleLook(t, d, team)
	if ids := d.Tenants(); len(ids) != 0 || tenantdir.Exists(d.TenantDir(team)) {
		t.Fatalf("past the retention: tenants %v, directory %t", ids, tenantdir.Exists(d.TenantDir(team)))
	}
	put(t, d, team, labels.FromStrings("a", "b"), float64(clock.Load()), 3)
	if got := read(t, d, team); len(got[`{a="b"}`]) != 1 {
		t.Fatalf("after its return: %v", got)
	}
}

// TestRemovedUnderWrites removes a tenant whose data has expired as often as it can while others write to it.
func TestRemovedUnderWrites(t *testing.T) {
	o := testOptions(t)
	o.Retention = time.Millisecond
	d := openDB(t, o)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var writes atomic.Int64
	var closing sync.RWMutex // writers go on when it is closed, and race with its removal
	for w := range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				b := wire.NewBatch(team)
				b.Add(labels.FromStrings("w", fmt.Sprint(w))).Samples = []wire.Sample{
					{T: time.Now().Add(-time.Minute).UnixMilli(), V: 1}}
				closing.RLock()
				failures, err := d.Append(t.Context(), wire.All(b))
				if writes.Add(1)%3 == 0 {
					read(t, d, team)
				}
				closing.RUnlock()
				if err != nil || len(failures) > 0 {
					t.Error(failures, err)
					return
				}
			}
		})
	}
	eventually(t, func() bool { return writes.Load() > 0 })
	removed := 0
	for deadline := time.Now().Add(time.Minute); removed < 5 && time.Now().Before(deadline) && !t.Failed(); {
		entry := d.lookup(team)
		if entry == nil {
			continue
		}
		closing.Lock()
		err := errors.Join(entry.cut(t.Context(), math.MaxInt64), entry.closeIdle(t.Context(), math.MaxInt64))
		closing.Unlock()
		if err = errors.Join(err, entry.expireIdle()); err != nil {
			t.Error(err)
		}
		if now := d.lookup(team); now != entry {
			removed++
		}
	}
	close(stop)
	wg.Wait()
	if removed == 0 {
		t.Error("the tenant was never removed")
	}
}

// TestIdleUnderWrites closes a tenant as often as it can while others write to it and read it.
func TestIdleUnderWrites(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	w := &stressWriter{t: t, stop: make(chan struct{}), series: []labels.Labels{labels.FromStrings("a", "b")},
		written: make([][]int64, 1)}
	last := time.Now().Add(-time.Minute).UnixMilli()
	burst := func() {
		for range 5 {
			last++
			w.append(d, map[int][]int64{0: {last}})
			read(t, d, team)
		}
	}
	burst()
	entry := d.lookup(team)
	var wg sync.WaitGroup
	wg.Go(func() {
		for !w.stopped() {
			if entry.status().State != Open { // being closed, or just closed
				burst()
			}
			runtime.Gosched()
		}
	})
	instanceOf := func() *instance {
		in, release, err := entry.use(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		return in
	}
	for closed, before := 0, instanceOf(); closed < 20; {
		if err := errors.Join(entry.cut(t.Context(), math.MaxInt64),
			entry.closeIdle(t.Context(), math.MaxInt64)); err != nil {
			t.Fatal(err)
		}
		if now := instanceOf(); now != before {
			before, closed = now, closed+1
		}
	}
	close(w.stop)
	wg.Wait()
	check(t, d, []*stressWriter{w})
}

func TestRetention(t *testing.T) {
	o := testOptions(t)
	var clock atomic.Int64
	start := time.Now().Truncate(2 * time.Hour)
	clock.Store(start.UnixMilli())
	o.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	o.Retention, o.IdleTimeout = 6*time.Hour, 0
	keep := ulid.ULID{}
	o.Shipped = func(_ tenant.ID, id ulid.ULID) bool { return id != keep }
	d := openDB(t, o)
	for i := range 6 {
		put(t, d, team, labels.FromStrings("a", "b"), float64(clock.Load()), float64(i))
		clock.Add(2 * time.Hour.Milliseconds())
		if i == 1 {
			keep = func() ulid.ULID { b, _ := d.Blocks(team); return b[0].ID }()
		}
		if err := d.lookup(team).cut(t.Context(), clock.Load()); err != nil {
			t.Fatal(err)
		}
	}
	blocks, err := d.Blocks(team)
	if err != nil || len(blocks) != 4 || blocks[0].ID != keep {
		t.Fatalf("%d blocks %v, want the unshipped one and 3", len(blocks), err)
	}
	for _, b := range blocks {
		if b.Meta.MinTime/o.BlockDuration.Milliseconds() != (b.Meta.MaxTime-1)/o.BlockDuration.Milliseconds() {
			t.Fatalf("block [%d, %d) crosses a boundary", b.Meta.MinTime, b.Meta.MaxTime)
		}
	}
	if got := read(t, d, team)[`{a="b"}`]; len(got) != 4 {
		t.Fatalf("samples %v", got)
	}
}

func TestDecide(t *testing.T) {
	yes, no := func() bool { return true }, func() bool { return false }
	f := func(v facts, want task) {
		t.Helper()
		if got := decide(v); got != want {
			t.Fatalf("%+v: %d, want %d", v, got, want)
		}
	}
	open := facts{state: Open, now: 1000, end: 800, lastWrite: 990, cutTo: 800, idleAfter: 100, shipped: no}
	f(open, nothing)
	v := open
	v.end = 900
	f(v, cutRange)
	v.retryAt = 1001
	f(v, nothing)
	v = open
	v.logFailed = true
	f(v, reopenLog)
	v = open
	v.lastWrite = 900
	f(v, cutAll)
	v.idleAfter = 0
	f(v, nothing)
	v.idleAfter, v.clean = 100, true
	f(v, nothing)
	v.shipped = yes
	f(v, closeIdle)
	f(facts{state: Broken, now: 1}, openBroken)
	f(facts{state: Broken, now: 1, retryAt: 2}, nothing)
	f(facts{state: Idle, now: 1}, expireIdle)
	f(facts{state: Opening, now: 1}, nothing)
	f(facts{state: Closing, now: 1}, nothing)
}

func TestDue(t *testing.T) {
	const width = 7200_000
	spread := map[int64]bool{}
	for i := range 200 {
		id := tenant.ID(fmt.Sprint("t", i))
		first := int64(0)
		for now := int64(10 * width); now < 11*width; now += 60_000 {
			end := due(now, width, id, "r-1")
			if end%width != 0 || end > now-width/8 || end < now-width-width/2-60_000 {
				t.Fatalf("at %d: %d is due", now, end)
			}
			if end == 10*width && first == 0 {
				first = now
			}
		}
		if late := first - 10*width; late < width/8 || late > width/2+60_000 {
			t.Fatalf("%s is cut %d ms after the end of its range", id, late)
		}
		spread[first/600_000] = true
	}
	if len(spread) < 4 {
		t.Fatalf("200 tenants are cut within %d ten minutes", len(spread))
	}
	same := true
	for now := int64(10 * width); now < 11*width; now += 60_000 {
		same = same && due(now, width, "a", "r-1") == due(now, width, "a", "r-2")
	}
	if same {
		t.Fatal("two instances cut a tenant at once")
	}
}

// TestSchedule runs the real loop over short blocks.
func TestSchedule(t *testing.T) {
	o := testOptions(t)
	o.BlockDuration, o.Tick, o.IdleTimeout = time.Second, 5*time.Millisecond, 0
	d := openDB(t, o)
	put(t, d, team, labels.FromStrings("a", "b"), float64(time.Now().UnixMilli()), 1)
	eventually(t, func() bool { b, _ := d.Blocks(team); return len(b) == 1 })
	if got := read(t, d, team); len(got) != 1 {
		t.Fatalf("after the cut: %v", got)
	}
}

func TestMetadata(t *testing.T) {
	o := testOptions(t)
	o.MaxMetadata = 3
	d := openDB(t, o)
	put := func(ms ...wire.Metadata) {
		t.Helper()
		b := wire.NewBatch(team)
		b.Metadata = ms
		mustAppend(t, d, b)
	}
	put(wire.Metadata{Family: "a", Type: "counter", Help: "old", Unit: "s"})
	put(wire.Metadata{Family: "a", Type: "gauge", Help: strings.Repeat("é", 1024)}, wire.Metadata{Family: "b"},
		wire.Metadata{Family: "c"}, wire.Metadata{Family: "d"}, wire.Metadata{Family: strings.Repeat("x", 512+1)})
	f := func() {
		t.Helper()
		all, _, err := d.Metadata(t.Context(), team, "", 0)
		if err != nil || len(all) != 3 || all["a"][0].Type != "gauge" || len(all["a"][0].Help) > 1024 ||
			all["a"][0].Unit != "" {
			t.Fatalf("%v %v", all, err)
		}
		if two, _, _ := d.Metadata(t.Context(), team, "", 2); len(two) != 2 {
			t.Fatalf("limit 2: %v", two)
		}
		if one, _, _ := d.Metadata(t.Context(), team, "b", 0); len(one) != 1 {
			t.Fatalf("one: %v", one)
		}
	}
	f()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	f()
	if none, _, err := d.Metadata(t.Context(), "nobody", "", 0); err != nil || none == nil || len(none) != 0 {
		t.Fatalf("%v %v", none, err)
	}
	raw, err := os.ReadFile(filepath.Join(o.Dir, string(team), "metadata.json"))
	if err != nil || !json.Valid(raw) {
		t.Fatalf("%s: %s %v", "metadata.json", raw, err)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	o := testOptions(t)
	d, err := New(slog.New(slog.DiscardHandler), reg, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	now := float64(time.Now().UnixMilli())
	for _, id := range []tenant.ID{"one", "two"} {
		put(t, d, id, labels.FromStrings("a", "b"), now, 1)
	}
	f := func(name string, tenants ...string) {
		t.Helper()
		all, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, family := range all {
			if family.GetName() != name {
				continue
			}
			for _, m := range family.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "tenant" {
						got = append(got, l.GetValue())
					}
				}
			}
		}
		if !slices.Equal(got, tenants) {
			t.Fatalf("%s of %v, want %v", name, got, tenants)
		}
	}
	f("prometheus_tsdb_head_series", "one", "two")
	f("prometheus_tsdb_wal_fsync_duration_seconds") // not in the list
	for _, name := range o.TenantMetrics {
		all, _ := reg.Gather()
		if !slices.ContainsFunc(all, func(f *dto.MetricFamily) bool { return f.GetName() == name }) &&
			!strings.Contains(name,
				"out_of_order_samples") && !strings.Contains(name, "too_old") && !strings.Contains(name, "samples_appended") {
			t.Errorf("no TSDB has a metric %s", name)
		}
	}
	entry := d.lookup("one")
	if err := entry.cut(t.Context(), math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	if err := entry.closeIdle(t.Context(), math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	f("prometheus_tsdb_head_series", "two")
	put(t, d, "one", labels.FromStrings("a", "b"), now, 1)
	f("prometheus_tsdb_head_series", "one", "two")
}

var _ interface {
	series.Source
	series.ExemplarSource
	series.MetadataSource
} = (*DB)(nil)
