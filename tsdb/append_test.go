package tsdb

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/seriesref"
)

func TestAppendAcceptance(t *testing.T) {
	o := testOptions(t)
	now := time.Now()
	o.Now = func() time.Time { return now }
	d := openDB(t, o)
	put(t, d, team, labels.FromStrings("a", "newest"), float64(now.UnixMilli()), 1)
	f := func(age time.Duration, want errs.Kind) {
		t.Helper()
		b := wire.NewBatch(team)
		b.Add(labels.FromStrings("a", age.String())).Samples = []wire.Sample{{T: now.Add(-age).UnixMilli(), V: 1}}
		failures, err := d.Append(t.Context(), wire.All(b))
		got := errs.OK
		if len(failures) > 0 {
			got = failures[0].Kind
		}
		if err != nil || got != want {
			t.Fatalf("%s old: %v %v, want %s", age, failures, err, want)
		}
	}
	f(0, errs.OK)
	f(o.Window, errs.OK)
	f(o.Window+time.Millisecond, errs.Conflict)
	f(-o.Future, errs.OK) // and the head's newest sample is ahead from here on
	f(-o.Future-time.Millisecond, errs.Conflict)
	f(o.Window, errs.OK)
}

func TestAppendFailures(t *testing.T) {
	d := openDB(t, testOptions(t))
	now := time.Now().UnixMilli()
	bad := tsdbutil.GenerateTestHistogram(1)
	bad.Count = 1
	b := wire.NewBatch(team)
	b.Add(labels.FromStrings("a", "good")).Samples = []wire.Sample{{T: now, V: 1}, {T: now + 1, V: 2}}
	b.Add(labels.FromStrings("a", "part")).Samples = []wire.Sample{{T: 5, V: 1}, {T: now, V: 1}, {T: 6, V: 1}}
	b.Add(labels.FromStrings("a", "twice")).Samples = []wire.Sample{{T: now, V: 1}, {T: now, V: 1}, {T: now, V: 2}}
	b.Add(labels.FromStrings("a", "hist")).Histograms = []wire.Histogram{{T: now, H: bad},
		{T: now + 1, H: tsdbutil.GenerateTestHistogram(1)}}
	b.Add(labels.FromStrings("a", "both")).Samples = []wire.Sample{{T: now, V: 1}, {T: now + 2, V: 1}}
	b.Series[4].Histograms = []wire.Histogram{{T: now, H: tsdbutil.GenerateTestHistogram(1)},
		{T: now + 1, H: tsdbutil.GenerateTestHistogram(1)}}
	failures, err := d.Append(t.Context(), wire.All(b))
	if err != nil {
		t.Fatal(err)
	}
	want := []wire.Failure{
		{Series: 1, Kind: errs.Conflict, Samples: 2, Reason: "older than the accepted window of 3h0m0s"},
		{Series: 2, Kind: errs.Conflict, Samples: 1, Reason: "two different values"},
		{Series: 3, Kind: errs.Invalid, Histograms: 1, Reason: "histogram"},
		{Series: 4, Kind: errs.Conflict, Histograms: 1, Reason: "two different values"},
	}
	if len(failures) != len(want) {
		t.Fatalf("failures %+v", failures)
	}
	for i, f := range failures {
		w := want[i]
		if !strings.Contains(f.Reason, w.Reason) || !strings.Contains(f.Reason, `a="`) || strings.Contains(f.Reason, "\n") {
			t.Fatalf("reason %q, want one with %q", f.Reason, w.Reason)
		}
		if f.Reason = w.Reason; f != w {
			t.Fatalf("failure %+v, want %+v", f, w)
		}
	}
	got := collect(t, d.Select(t.Context(), request(team, 0, math.MaxInt64)))
	for name, n := range map[string]int{"good": 2, "part": 1, "twice": 1, "hist": 1, "both": 3} {
		if len(got[`{a="`+name+`"}`]) != n {
			t.Fatalf("%s: %v, want %d samples", name, got[`{a="`+name+`"}`], n)
		}
	}
	// A subset of a batch is what is stored.
	b = wire.NewBatch(team)
	b.Add(labels.FromStrings("b", "no")).Samples = []wire.Sample{{T: now, V: 1}}
	b.Add(labels.FromStrings("b", "yes")).Samples = []wire.Sample{{T: 1, V: 1}}
	failures, err = d.Append(t.Context(), wire.Shard{Batch: b, Series: []int32{1}})
	if err != nil || len(failures) != 1 || failures[0].Series != 1 {
		t.Fatalf("%+v %v", failures, err)
	}
}

func TestAppendAgain(t *testing.T) {
	d := openDB(t, testOptions(t))
	now := float64(time.Now().Add(-time.Minute).UnixMilli())
	ls := labels.FromStrings("a", "b")
	samples := []float64{now, 1, now + 1, 2, now + 2, math.Float64frombits(value.StaleNaN), now + 3, 4}
	put(t, d, team, ls, samples...)
	want := collect(t, d.Select(t.Context(), request(team, 0, math.MaxInt64)))
	for range 2 {
		put(t, d, team, ls, samples...)
		if err := d.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := collect(t, d.Select(t.Context(), request(team, 0, math.MaxInt64)))
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("after writing the same again: %v, want %v", got, want)
		}
	}
	b := wire.NewBatch(team)
	b.Add(ls).Samples = []wire.Sample{{T: int64(now) + 30_000, V: 1}}
	mustAppend(t, d, b)
	b.Series[0].Samples[0].V = 2
	if failures, err := d.Append(t.Context(), wire.All(b)); err != nil || len(failures) != 1 ||
		failures[0].Kind != errs.Conflict {
		t.Fatalf("another value for one time: %v %v", failures, err)
	}
}

// TestDeadReference writes by references whose series the head has dropped.
func TestDeadReference(t *testing.T) {
	d := openDB(t, testOptions(t))
	now := time.Now().Add(-time.Minute).UnixMilli()
	write := func(at int64) {
		t.Helper()
		b := wire.NewBatch(team)
		for i := range 100 {
			b.Add(labels.FromStrings("a", fmt.Sprint(i))).Samples = []wire.Sample{{T: at, V: float64(i)}}
		}
		mustAppend(t, d, b)
	}
	write(now)
	in := d.lookup(team).in
	stale := in.refs // a copy of the table as it was, so that PostDeletion changes nothing that is used
	kept := seriesref.NewCache()
	for key, ref := range stale.All() {
		kept.Put(key, ref)
	}
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := stale.Len(); n != 0 {
		t.Fatalf("%d references of dropped series are left", n)
	}
	in.refs = kept
	write(now + 1)
	verifyRefs(t, in)
	for name, ps := range collect(t, d.Select(t.Context(), request(team, 0, math.MaxInt64))) {
		if want := strings.TrimSuffix(strings.TrimPrefix(name, `{a="`), `"}`); len(ps) != 2 || ps[0].v != want ||
			ps[1].v != want {
			t.Fatalf("%s: %v", name, ps)
		}
	}
}

// verifyRefs checks that every cached reference belongs to its key's labels.
func verifyRefs(t *testing.T, in *instance) {
	t.Helper()
	app := in.db.Head().AppenderV2(context.Background())
	defer app.Rollback()
	set := maps.Collect(in.refs.All())
	q, err := in.db.Querier(0, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	ss := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "", ""))
	for ss.Next() {
		ls := ss.At().Labels()
		key, _ := wire.Identify(wire.AppendLabels(wire.AppendTenant(nil, in.id), ls))
		want, _ := app.(storage.GetRef).GetRef(ls, ls.Hash())
		if ref, ok := set[key]; ok && want != 0 && ref != want {
			t.Fatalf("%s: cached %d, the head says %d", ls, ref, want)
		}
		delete(set, key)
	}
	for key, ref := range set {
		t.Errorf("reference %d under key %x of no series", ref, key)
	}
}

// TestReferencesUnderChurn drops and makes series in a loop while others write them.
func TestReferencesUnderChurn(t *testing.T) {
	d := openDB(t, testOptions(t))
	base := time.Now().Add(-time.Hour).UnixMilli()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var count, allowed atomic.Int64
	allowed.Store(60)
	for w := range 3 {
		pace := &stressWriter{stop: stop, count: &count, allowed: &allowed}
		wg.Go(func() {
			for i := int64(0); !pace.stopped(); i++ {
				count.Add(1)
				b := wire.NewBatch(team)
				for range 20 {
					n := rand.IntN(200)
					b.Add(labels.FromStrings("n", fmt.Sprint(n))).Samples = []wire.Sample{{T: base + i*3 + int64(w), V: float64(n)}}
				}
				if _, err := d.Append(context.Background(), wire.All(b)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range int64(25) {
		eventually(t, func() bool { return count.Load() >= (i+1)*30 })
		allowed.Store((i + 3) * 30)
		if err := d.Cut(t.Context()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	verifyRefs(t, d.lookup(team).in)
	for name, ps := range collect(t, d.Select(t.Context(), request(team, 0, math.MaxInt64))) {
		for _, p := range ps {
			if name != `{n="`+p.v+`"}` {
				t.Fatalf("series %s has a sample of %s", name, p.v)
			}
		}
	}
}

func TestExemplars(t *testing.T) {
	o := testOptions(t)
	o.MaxExemplars = 10
	d := openDB(t, o)
	now := time.Now().UnixMilli()
	b := wire.NewBatch(team)
	s := b.Add(labels.FromStrings("a", "b"))
	s.Samples = []wire.Sample{{T: now, V: 1}}
	trace := wire.AppendLabels(nil, labels.FromStrings("trace_id", "x"))
	long := wire.AppendLabels(nil, labels.FromStrings("trace_id", strings.Repeat("x", 200)))
	s.Exemplars = []wire.Exemplar{{T: now, V: 2, Labels: trace}, {T: now - 1, V: 1, Labels: trace},
		{T: now, V: 1, Labels: long}, {T: 1, V: 1, Labels: trace}}
	lone := b.Add(labels.FromStrings("a", "without samples"))
	lone.Exemplars = []wire.Exemplar{{T: now, V: 2, Labels: trace}}
	refused := []wire.Failure{{Series: 0, Kind: errs.OK, Exemplars: 2}, {Series: 1, Kind: errs.OK, Exemplars: 1}}
	for range 2 { // those that are kept may come again
		failures, err := d.Append(t.Context(), wire.All(b))
		if err != nil || !slices.Equal(failures, refused) {
			t.Fatalf("%+v %v, want %+v", failures, err, refused)
		}
	}
	got, _, err := d.Exemplars(t.Context(), team, 0, math.MaxInt64,
		[]*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "b")})
	if err != nil || len(got) != 1 || len(got[0].Exemplars) != 2 ||
		got[0].Exemplars[1].Labels.String() != `{trace_id="x"}` {
		t.Fatalf("%+v %v", got, err)
	}
	if got, _, err := d.Exemplars(t.Context(), "nobody", 0, math.MaxInt64); err != nil || len(got) != 0 {
		t.Fatalf("%+v %v", got, err)
	}
}

// Senders may send exemplars apart from samples.
func TestExemplarsAlone(t *testing.T) {
	o := testOptions(t)
	o.MaxExemplars = 10
	d := openDB(t, o)
	now := time.Now().UnixMilli()
	of := func() (*wire.Batch, *wire.Series) {
		b := wire.NewBatch(team)
		return b, b.Add(labels.FromStrings("a", "b"))
	}
	b, s := of()
	s.Samples = []wire.Sample{{T: now, V: 1}}
	mustAppend(t, d, b)
	b, s = of()
	s.Exemplars = []wire.Exemplar{{T: now, V: 2, Labels: wire.AppendLabels(nil, labels.FromStrings("trace_id", "x"))}}
	mustAppend(t, d, b)
	b, s = of() // beside a sample that is not taken
	s.Samples = []wire.Sample{{T: 1, V: 1}}
	s.Exemplars = []wire.Exemplar{{T: now + 1, V: 2, Labels: wire.AppendLabels(nil, labels.FromStrings("trace_id", "y"))},
		{T: 1, V: 1}}
	failures, err := d.Append(t.Context(), wire.All(b))
	if err != nil || len(failures) != 1 || failures[0].Kind != errs.Conflict || failures[0].Samples != 1 ||
		failures[0].Exemplars != 1 {
		t.Fatalf("%+v %v", failures, err)
	}
	got, _, err := d.Exemplars(t.Context(), team, 0, math.MaxInt64,
		[]*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "b")})
	if err != nil || len(got) != 1 || len(got[0].Exemplars) != 2 {
		t.Fatalf("%+v %v", got, err)
	}
}

// TestExemplarsDecideNothing: whatever becomes of exemplars, the samples of the request are stored, no series fails,
// and what is not kept is counted.
func TestExemplarsDecideNothing(t *testing.T) {
	o := testOptions(t)
	o.MaxExemplars = 100
	d := openDB(t, o)
	now := time.Now().Add(-time.Minute).UnixMilli()
	trace := func(i int) []byte { return wire.AppendLabels(nil, labels.FromStrings("trace_id", fmt.Sprint(i))) }
	sent := 0
	f := func(name string, want int, add func(b *wire.Batch, e []wire.Exemplar)) {
		t.Helper()
		sent++
		b := wire.NewBatch(team)
		add(b, []wire.Exemplar{{T: now + int64(sent), V: 1, Labels: trace(sent)}})
		failures, err := d.Append(t.Context(), wire.All(b))
		lost := 0
		for i, f := range failures {
			if lost += f.Exemplars; f.Kind != errs.OK || f.Samples+f.Histograms > 0 ||
				i > 0 && failures[i-1].Series >= f.Series {
				t.Errorf("%s: %+v", name, failures)
			}
		}
		if err != nil || lost != want {
			t.Errorf("%s: %d exemplars not kept, want %d: %+v %v", name, lost, want, failures, err)
		}
	}
	a := labels.FromStrings("a", "a")
	f("alone, in an empty head", 1, func(b *wire.Batch, e []wire.Exemplar) { b.Add(a).Exemplars = e })
	f("with the first sample", 0, func(b *wire.Batch, e []wire.Exemplar) {
		s := b.Add(a)
		s.Samples, s.Exemplars = []wire.Sample{{T: now, V: 1}}, e
	})
	f("of an unknown series, before others", 1, func(b *wire.Batch, e []wire.Exemplar) {
		b.Add(labels.FromStrings("a", "unknown")).Exemplars = e
		b.Add(a).Samples = []wire.Sample{{T: now + 1, V: 1}}
	})
	f("newer than the sample", 0, func(b *wire.Batch, e []wire.Exemplar) { b.Add(a).Exemplars = e })
	f("beside a late sample", 0, func(b *wire.Batch, e []wire.Exemplar) {
		s := b.Add(a)
		s.Samples, s.Exemplars = []wire.Sample{{T: now - 1000, V: 1}}, e
	})
	f("of a sample that comes again", 0, func(b *wire.Batch, e []wire.Exemplar) {
		s := b.Add(a)
		s.Samples, s.Exemplars = []wire.Sample{{T: now, V: 1}}, e
	})
	f("before the series' samples in the request", 0, func(b *wire.Batch, e []wire.Exemplar) {
		b.Add(labels.FromStrings("a", "later")).Exemplars = e
		b.Add(labels.FromStrings("a", "later")).Samples = []wire.Sample{{T: now, V: 1}}
	})
	cut := labels.FromStrings("a", "cut")
	put(t, d, team, cut, float64(now), 1)
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	f("of a series that was cut", 1, func(b *wire.Batch, e []wire.Exemplar) {
		b.Add(cut).Exemplars = e
		b.Add(labels.FromStrings("a", "other")).Samples = []wire.Sample{{T: now + 30_000, V: 1}}
	})
	f("in any order", 0, func(b *wire.Batch, e []wire.Exemplar) {
		e[0].T = now - 60_000
		s := b.Add(labels.FromStrings("a", "other"))
		s.Samples = []wire.Sample{{T: now + 31_000, V: 1}}
		s.Exemplars = append([]wire.Exemplar{{T: now + 31_000, Labels: trace(0)}}, e...)
	})
}

func TestClassify(t *testing.T) {
	f := func(err error, want errs.Kind) {
		t.Helper()
		if got := classify(err); got != want {
			t.Fatalf("%v is %s, want %s", err, got, want)
		}
	}
	f(storage.ErrOutOfOrderSample, errs.Conflict)
	f(fmt.Errorf("x: %w", storage.ErrTooOldSample), errs.Conflict)
	f(storage.NewDuplicateFloatErr(1, 2, 3), errs.Conflict)
	f(histogram.ErrHistogramCountMismatch, errs.Invalid)
	f(fmt.Errorf("x: %w", histogram.ErrHistogramSpanNegativeOffset), errs.Invalid)
	f(context.Canceled, errs.Internal)
}

// TestNewSeriesAreSeen makes series from several requests at once: a reader sees all that were acknowledged before.
func TestNewSeriesAreSeen(t *testing.T) {
	d := openDB(t, testOptions(t))
	now := time.Now().UnixMilli()
	const writers, each = 4, 400
	var acked [writers]atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				b := wire.NewBatch(team)
				b.Add(labels.FromStrings("__name__", "new", "w", fmt.Sprint(w), "i", fmt.Sprint(i))).Samples = []wire.Sample{
					{T: now, V: 1}}
				if f, err := d.Append(context.Background(), wire.All(b)); err != nil || len(f) > 0 {
					t.Error(f, err)
				}
				acked[w].Store(int64(i + 1))
			}
		})
	}
	for done := false; !done; {
		var want [writers]int64
		done = true
		for w := range want {
			want[w] = acked[w].Load()
			done = done && want[w] == each
		}
		seen := [writers]int64{}
		for name := range read(t, d, team) {
			var w int
			if _, err := fmt.Sscanf(name[strings.Index(name, ` w="`):], ` w="%d"`, &w); err != nil {
				t.Fatal(name, err)
			}
			seen[w]++
		}
		for w := range want {
			if seen[w] < want[w] {
				t.Fatalf("a reader saw %d series of writer %d, %d were acknowledged", seen[w], w, want[w])
			}
		}
	}
	wg.Wait()
}
