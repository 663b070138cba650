package tsdb

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// limited are limits that a test changes while they are in force.
type limited struct{ atomic.Pointer[tenant.Limits] }

func limitsOf(o *Options, l tenant.Limits) *limited {
	set := &limited{}
	set.Store(&l)
	o.Limits = func(tenant.ID) *tenant.Limits { return set.Load() }
	return set
}

func (l *limited) change(f func(*tenant.Limits)) {
	next := *l.Load()
	f(&next)
	l.Store(&next)
}

// batchOf has one sample at now of each series that name and from..to say.
func batchOf(name string, from, to int, now time.Time) *wire.Batch {
	b := wire.NewBatch(team)
	for i := from; i < to; i++ {
		b.Add(labels.FromStrings("__name__", name, "i", fmt.Sprint(i))).Samples = []wire.Sample{{T: now.UnixMilli(), V: 1}}
	}
	return b
}

// wantRefused appends b, and wants just the last n of its series refused by the limit.
func wantRefused(t *testing.T, d *DB, b *wire.Batch, n int, limit string) []wire.Failure {
	t.Helper()
	failures, err := d.Append(t.Context(), wire.All(b))
	if err != nil || len(failures) != n {
		t.Fatalf("%d failures, want %d; error %v", len(failures), n, err)
	}
	for i, f := range failures {
		if f.Series != len(b.Series)-n+i || f.Kind != errs.Limited || f.Samples != len(b.Series[f.Series].Samples) {
			t.Fatalf("failure %+v", f)
		}
		for _, part := range []string{"tenant team", limit, "--runtime-config.file"} {
			if !strings.Contains(f.Reason, part) {
				t.Fatalf("%q does not say %q", f.Reason, part)
			}
		}
	}
	return failures
}

func TestActiveSeries(t *testing.T) {
	o := testOptions(t)
	reg := prometheus.NewPedanticRegistry()
	set := limitsOf(&o, tenant.Limits{ActiveSeries: 100})
	clock := time.Now()
	o.Now = func() time.Time { return clock }
	d, err := New(slog.New(slog.DiscardHandler), reg, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	defer func() { d.Close() }()
	now := clock
	at := func(i int) time.Time { return now.Add(time.Duration(i) * time.Second) }
	b := batchOf("m", 0, 120, at(0))
	b.Series[110].Samples = append(b.Series[110].Samples, wire.Sample{T: at(1).UnixMilli(), V: 2})
	f := wantRefused(t, d, b, 20, "active_series 100")
	if !strings.Contains(f[0].Reason, `i="100"`) || !strings.Contains(f[0].Reason, "has 100 series") {
		t.Fatalf("reason %q", f[0].Reason)
	}
	mustAppend(t, d, batchOf("m", 0, 100, at(2))) // known series go on
	wantRefused(t, d, batchOf("m", 99, 101, at(3)), 1, "active_series 100")
	if got := testutil.ToFloat64(d.m.limited.WithLabelValues("team", "active_series")); got != 21 {
		t.Fatalf("%v refused series counted, want 21", got)
	}
	const text = `# HELP hearth_tsdb_active_series Series in memory of a tenant that has a limit on them.
# TYPE hearth_tsdb_active_series gauge
hearth_tsdb_active_series{tenant="team"} 100
# HELP hearth_tsdb_active_series_bound How many series this receiver takes of the tenant: its part of the limit active_series.
# TYPE hearth_tsdb_active_series_bound gauge
hearth_tsdb_active_series_bound{tenant="team"} 100
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(text), "hearth_tsdb_active_series",
		"hearth_tsdb_active_series_bound"); err != nil {
		t.Fatal(err)
	}

	// A restart knows them all.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	wantRefused(t, d, batchOf("m", 99, 101, at(4)), 1, "active_series 100")
	mustAppend(t, d, batchOf("m", 0, 100, at(5)))

	// A higher limit is in force at once, a lower one drops nothing.
	set.change(func(l *tenant.Limits) { l.ActiveSeries = 101 })
	wantRefused(t, d, batchOf("m", 0, 102, at(6)), 1, "active_series 101")
	set.change(func(l *tenant.Limits) { l.ActiveSeries = 10 })
	mustAppend(t, d, batchOf("m", 0, 101, at(7)))
	wantRefused(t, d, batchOf("m", 100, 102, at(8)), 1, "active_series 10")
	set.change(func(l *tenant.Limits) { l.ActiveSeries = 101 })

	// What a cut drops from the head counts no longer.
	mustAppend(t, d, batchOf("m", 0, 40, at(9)))
	if err := d.lookup(team).in.cut(t.Context(), at(9).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, d, batchOf("n", 0, 70, at(10)), 9, "active_series 101")
	set.change(func(l *tenant.Limits) { l.ActiveSeries = 0 })
	mustAppend(t, d, batchOf("n", 0, 500, at(11)))
}

// TestActiveSeriesConcurrently makes series from many writers at once while others leave the head.
func TestActiveSeriesConcurrently(t *testing.T) {
	o := testOptions(t)
	limitsOf(&o, tenant.Limits{ActiveSeries: 200, SeriesPerMetric: 150})
	d := openDB(t, o)
	start := time.Now().Add(-time.Minute)
	var wg sync.WaitGroup
	var most atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			for i := range 60 {
				b := batchOf(fmt.Sprintf("m%d", i%3), (w*7+i)%20*20, (w*7+i)%20*20+40, start.Add(time.Duration(i)*time.Second))
				if _, err := d.Append(context.Background(), wire.All(b)); err != nil {
					t.Error(err)
				}
				in := d.lookup(team).in
				for n := int64(in.db.Head().NumSeries()); ; {
					if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
						break
					}
				}
				if w == 0 && i%20 == 19 {
					if err := d.Cut(context.Background()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > 200 || n < 190 {
		t.Fatalf("up to %d series, want nearly 200", n)
	}
	if _, err := d.Append(t.Context(), wire.All(batchOf("m0", 0, 300, time.Now()))); err != nil {
		t.Fatal(err)
	}
	compareCounts(t, d.lookup(team).in)
}

// compareCounts compares what is counted by births and deaths with what is in the head.
func compareCounts(t *testing.T, in *instance) {
	t.Helper()
	counted := in.seriesCounts.metrics
	in.seriesCounts.metrics = nil
	if err := in.startCounting(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(in.seriesCounts.metrics) == 0 || fmt.Sprint(counted) != fmt.Sprint(in.seriesCounts.metrics) {
		t.Fatalf("counted %v, in the head are %v", counted, in.seriesCounts.metrics)
	}
}

func TestSeriesPerMetric(t *testing.T) {
	o := testOptions(t)
	set := limitsOf(&o, tenant.Limits{SeriesPerMetric: 30})
	d := openDB(t, o)
	now := time.Now().Add(-time.Minute)
	at := func(i int) time.Time { return now.Add(time.Duration(i) * time.Second) }
	wantRefused(t, d, batchOf("a", 0, 35, at(0)), 5, "series_per_metric 30")
	wantRefused(t, d, batchOf("b", 0, 31, at(0)), 1, "series of metric b")
	mustAppend(t, d, batchOf("a", 0, 30, at(1)))
	nameless := wire.NewBatch(team)
	for i := range 40 {
		nameless.Add(labels.FromStrings("i", fmt.Sprint(i))).Samples = []wire.Sample{{T: at(1).UnixMilli(), V: 1}}
	}
	mustAppend(t, d, nameless)
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = openDB(t, o)
		compareCounts(t, d.lookup(team).in)
	}
	wantRefused(t, d, batchOf("a", 29, 31, at(2)), 1, "series_per_metric 30")
	mustAppend(t, d, batchOf("a", 0, 10, at(3)))
	if err := d.lookup(team).in.cut(t.Context(), at(3).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	compareCounts(t, d.lookup(team).in)
	wantRefused(t, d, batchOf("a", 10, 35, at(4)), 5, "series_per_metric 30")

	// Switched off, and on again: the scheduler counts what there is.
	set.change(func(l *tenant.Limits) { l.SeriesPerMetric = 0 })
	mustAppend(t, d, batchOf("a", 0, 40, at(5)))
	if in := d.lookup(team).in; in.seriesCounts.metrics != nil {
		t.Fatal("counts are kept without a limit")
	}
	set.change(func(l *tenant.Limits) { l.SeriesPerMetric = 45 })
	mustAppend(t, d, batchOf("a", 0, 40, at(6)))
	d.lookup(team).housekeep()
	wantRefused(t, d, batchOf("a", 0, 50, at(7)), 5, "series_per_metric 45")
	compareCounts(t, d.lookup(team).in)
}

func TestWindowsOfATenant(t *testing.T) {
	o := testOptions(t)
	o.Window, o.Future = time.Hour, time.Minute
	set := limitsOf(&o, tenant.Limits{})
	d := openDB(t, o)
	now := time.Now()
	f := func(age time.Duration, taken bool) {
		t.Helper()
		failures, err := d.Append(t.Context(), wire.All(batchOf("m", 0, 1, now.Add(-age))))
		if err != nil || taken != (len(failures) == 0) {
			t.Fatalf("age %s: %v %v", age, failures, err)
		}
		if !taken && failures[0].Kind != errs.Conflict {
			t.Fatalf("kind %s", failures[0].Kind)
		}
	}
	f(0, true)
	f(30*time.Minute, true)
	f(2*time.Hour, false)
	f(-5*time.Minute, false)
	set.change(func(l *tenant.Limits) {
		l.OutOfOrderWindow, l.FutureWindow = model.Duration(48*time.Hour), model.Duration(10*time.Minute)
	})
	f(-5*time.Minute, true)
	f(2*time.Hour, true)
	f(47*time.Hour, true)
	f(49*time.Hour, false)
	if info, err := d.Info(t.Context()); err != nil || info.MinTime > now.Add(-48*time.Hour).UnixMilli()+1000 {
		t.Fatalf("info %+v %v", info, err)
	}
	set.change(func(l *tenant.Limits) { l.OutOfOrderWindow = model.Duration(time.Hour) })
	f(59*time.Minute, true)
	f(2*time.Hour, false)
	want := fmt.Sprint(read(t, d, team))
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = openDB(t, o)
		if got := fmt.Sprint(read(t, d, team)); got != want {
			t.Fatalf("%s after a restart, want %s", got, want)
		}
	}
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(read(t, d, team)); got != want {
		t.Fatalf("%s after the cut, want %s", got, want)
	}
}

func TestRetentionOfATenant(t *testing.T) {
	o := testOptions(t)
	var ago atomic.Int64
	o.Now = func() time.Time { return time.Now().Add(time.Duration(ago.Load())) }
	set := limitsOf(&o, tenant.Limits{Retention: model.Duration(48 * time.Hour)})
	d := openDB(t, o)
	cutAt := func(after time.Duration, blocks int) {
		t.Helper()
		ago.Store(int64(after))
		mustAppend(t, d, batchOf("m", 0, 1, o.Now()))
		if err := d.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Blocks(team); err != nil || len(got) != blocks {
			t.Fatalf("%d blocks, want %d; %v", len(got), blocks, err)
		}
	}
	cutAt(0, 1)
	cutAt(24*time.Hour, 2)
	cutAt(47*time.Hour, 3)
	cutAt(50*time.Hour, 3) // the first is gone
	set.change(func(l *tenant.Limits) { l.Retention = model.Duration(10 * time.Hour) })
	cutAt(54*time.Hour, 3)
}

func TestExemplarsOfATenant(t *testing.T) {
	o := testOptions(t)
	set := limitsOf(&o, tenant.Limits{Exemplars: 4})
	d := openDB(t, o)
	now := time.Now().Add(-time.Minute)
	n, refused := 0, 0
	send := func(count int) {
		t.Helper()
		for range count {
			n++
			b := batchOf("m", n, n+1, now)
			trace := wire.AppendLabels(nil, labels.FromStrings("trace_id", fmt.Sprint(n)))
			b.Series[0].Exemplars = []wire.Exemplar{{T: now.UnixMilli(), V: 1, Labels: trace}}
			failures, err := d.Append(t.Context(), wire.All(b))
			if err != nil || len(failures) != refused ||
				refused > 0 && (failures[0].Kind != errs.OK || failures[0].Exemplars != 1) {
				t.Fatalf("%+v %v, want %d exemplars refused", failures, err, refused)
			}
		}
	}
	kept := func(want int) {
		t.Helper()
		got, _, err := d.Exemplars(t.Context(), team, 0, 1<<60,
			[]*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")})
		if err != nil || len(got) != want {
			t.Fatalf("%d exemplars, want %d; %v", len(got), want, err)
		}
	}
	mustAppend(t, d, batchOf("m", 0, 1, now))
	if hasExemplars(d.TenantDir(team)) {
		t.Fatal("room for exemplars before the first one")
	}
	send(3)
	kept(3)
	send(3)
	kept(4)
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = openDB(t, o)
		kept(4)
	}
	set.change(func(l *tenant.Limits) { l.Exemplars = 6 })
	send(1)
	kept(5)
	send(3)
	kept(6)
	set.change(func(l *tenant.Limits) { l.Exemplars = 0 })
	refused = 1
	send(1)
	kept(0)
	refused = 0
	set.change(func(l *tenant.Limits) { l.Exemplars = 2 })
	send(3)
	kept(2)
}

func TestMaxTenants(t *testing.T) {
	o := testOptions(t)
	o.MaxTenants = 2
	d := openDB(t, o)
	now := time.Now()
	put(t, d, "a", labels.FromStrings("x", "y"), float64(now.UnixMilli()), 1)
	put(t, d, "b", labels.FromStrings("x", "y"), float64(now.UnixMilli()), 1)
	b := wire.NewBatch("c")
	b.Add(labels.FromStrings("x", "y")).Samples = []wire.Sample{{T: now.UnixMilli(), V: 1}}
	_, err := d.Append(t.Context(), wire.All(b))
	if errs.KindOf(err) != errs.Limited || errs.RetryAfter(err) == 0 ||
		!strings.Contains(err.Error(), "--receive.max-tenants") {
		t.Fatalf("third tenant: %v", err)
	}
	put(t, d, "a", labels.FromStrings("x", "y"), float64(now.UnixMilli()+1), 1)
	if ids := d.Tenants(); len(ids) != 2 {
		t.Fatalf("tenants %v", ids)
	}
}

func TestLocalBound(t *testing.T) {
	f := func(limit int, part float64, want int) {
		t.Helper()
		if got := localBound(limit, part); got != want {
			t.Fatalf("%d x %v: %d, want %d", limit, part, got, want)
		}
	}
	f(1000, 1, 1000)
	f(1000, 0, 1000)
	f(1000_000, 0.5, 551_415)
	f(1000, 0.3, 365)
	f(10, 0.3, 7)
	f(1, 0.1, 1)
	for limit := 1300; limit < 1e7; limit *= 2 { // 400 series a receiver, or more
		for _, part := range []float64{0.31, 0.5, 0.9} {
			if got := float64(localBound(limit, part)); got > 1.2*float64(limit)*part+1 {
				t.Fatalf("%d x %v: %v is more than a fifth over", limit, part, got)
			}
		}
	}
}

func TestShare(t *testing.T) {
	var s recentPart
	t0 := time.Unix(1e9, 0)
	f := func(after time.Duration, part, want float64) {
		t.Helper()
		if got := s.observe(part, t0.Add(after), time.Hour); got != want {
			t.Fatalf("after %s: %v, want %v", after, got, want)
		}
	}
	f(0, 1, 1)
	f(time.Minute, 0.5, 1)
	f(59*time.Minute, 0.5, 1)
	f(61*time.Minute, 0.5, 1)
	f(119*time.Minute, 0.7, 1)
	f(122*time.Minute, 0.5, 0.7)
	f(10*time.Hour, 0.2, 0.2)
}

func TestShareOfALimit(t *testing.T) {
	o := testOptions(t)
	part := 0.5
	o.Share = func(id tenant.ID) float64 { return part }
	limitsOf(&o, tenant.Limits{ActiveSeries: 1000})
	d := openDB(t, o)
	now := time.Now().Add(-time.Minute)
	wantRefused(t, d, batchOf("m", 0, 700, now), 700-595, "active_series 1000")
	part = 0.6 // a member left the ring
	wantRefused(t, d, batchOf("m", 0, 800, now.Add(time.Second)), 800-709, "active_series 1000")
	part = 0.1 // many have come: what is no longer ours is still in the head
	wantRefused(t, d, batchOf("m", 0, 800, now.Add(time.Second)), 800-709, "active_series 1000")
}
