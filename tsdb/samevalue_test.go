package tsdb

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

var staleNaN = math.Float64frombits(value.StaleNaN)

// buckets is a histogram with these bucket counts, bucket 1 on.
func buckets(gauge bool, counts ...int64) *histogram.Histogram {
	h := &histogram.Histogram{Schema: 1, Sum: 3.5}
	if gauge {
		h.CounterResetHint = histogram.GaugeType
	}
	last, at := int64(0), int32(0)
	for i, n := range counts {
		if n == 0 {
			continue
		}
		h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: int32(i) - at, Length: 1})
		h.PositiveBuckets = append(h.PositiveBuckets, n-last)
		h.Count += uint64(n)
		last, at = n, int32(i)+1
	}
	return h
}

// kindsOfSamples are sequences of samples of one series, one per second, whose last ones the TSDB keeps in another form
// than they were sent in, if it does with any.
var kindsOfSamples = map[string]func() []sample{
	"float":       func() []sample { return []sample{{v: 1}, {v: 2}, {v: math.NaN()}, {v: math.Inf(1)}} },
	"float stale": func() []sample { return []sample{{v: 1}, {v: staleNaN}} },
	"stale alone": func() []sample { return []sample{{v: staleNaN}} },
	"counter": func() []sample {
		return []sample{{h: buckets(false, 1, 2)}, {h: buckets(false, 1, 3, 4)}, {h: buckets(false, 2, 3, 4)}}
	},
	"counter without an empty bucket": func() []sample {
		return []sample{{h: buckets(false, 1, 0, 2)}, {h: buckets(false, 1, 5, 2)}, {h: buckets(false, 1, 6, 2, 7)}}
	},
	"counter reset": func() []sample { return []sample{{h: buckets(false, 1, 2, 3)}, {h: buckets(false, 1)}} },
	"counter with a bucket that stays empty": func() []sample {
		e := buckets(false, 1, 2, 3)
		e.PositiveSpans = []histogram.Span{{Length: 4}}
		e.PositiveBuckets = append(e.PositiveBuckets, -3)
		return []sample{{h: e}, {h: buckets(false, 1, 2, 3)}}
	},
	"gauge": func() []sample { return []sample{{h: buckets(true, 5, 2)}, {h: buckets(true, 1, 2, 3)}} },
	"gauge with fewer buckets": func() []sample {
		return []sample{{h: buckets(true, 5, 2, 7, 8)}, {h: buckets(true, 1, 0, 0, 3)}, {h: buckets(true, 0, 4)}}
	},
	"float counter": func() []sample {
		return []sample{{fh: buckets(false, 1, 0, 2).ToFloat(nil)}, {fh: buckets(false, 1, 5, 2).ToFloat(nil)},
			{fh: buckets(false, 1, 6, 2, 7).ToFloat(nil)}}
	},
	"float gauge with fewer buckets": func() []sample {
		return []sample{{fh: buckets(true, 5, 2, 7, 8).ToFloat(nil)}, {fh: buckets(true, 1, 0, 0, 3).ToFloat(nil)}}
	},
	"custom buckets": func() []sample {
		return []sample{{h: tsdbutil.GenerateTestCustomBucketsHistogram(1)},
			{h: tsdbutil.GenerateTestCustomBucketsHistogram(2)}}
	},
	"float custom buckets": func() []sample {
		return []sample{{fh: tsdbutil.GenerateTestCustomBucketsFloatHistogram(1)},
			{fh: tsdbutil.GenerateTestCustomBucketsFloatHistogram(2)}}
	},
	"histogram stale":       func() []sample { return []sample{{h: buckets(false, 1, 2)}, {v: staleNaN}} },
	"float histogram stale": func() []sample { return []sample{{fh: buckets(false, 1, 2).ToFloat(nil)}, {v: staleNaN}} },
	"custom buckets stale":  func() []sample { return []sample{{h: tsdbutil.GenerateTestCustomBucketsHistogram(1)}, {v: staleNaN}} },
	"stale sent as a histogram": func() []sample {
		return []sample{{h: buckets(false, 1, 2)}, {h: &histogram.Histogram{Sum: staleNaN}}}
	},
	"stale sent as a float histogram": func() []sample {
		return []sample{{fh: buckets(false, 1, 2).ToFloat(nil)}, {fh: &histogram.FloatHistogram{Sum: staleNaN}}}
	},
	"stale sent as a histogram of floats": func() []sample { return []sample{{v: 1}, {h: &histogram.Histogram{Sum: staleNaN}}} },
	"all kinds": func() []sample {
		return []sample{{v: 1}, {h: buckets(false, 1, 2)}, {v: staleNaN}, {fh: buckets(true, 1, 2).ToFloat(nil)}, {v: 3}}
	},
}

// batchOfPoints is a request with the points, a second apart from at on; the head may keep what is in them.
func batchOfPoints(ls labels.Labels, at int64, ps []sample) *wire.Batch {
	b := wire.NewBatch(team)
	s := b.Add(ls)
	for i, p := range ps {
		if t := at + int64(i)*1000; p.h != nil || p.fh != nil {
			s.Histograms = append(s.Histograms, wire.Histogram{T: t, H: p.h, FH: p.fh})
		} else {
			s.Samples = append(s.Samples, wire.Sample{T: t, V: p.v})
		}
	}
	return b
}

// TestAgain sends every kind of samples a second time after all that may happen to them meanwhile: it is success, and
// what is read stays as it was. Another value for the same time is a Conflict, as long as the first is in the head.
func TestAgain(t *testing.T) {
	crash := func(t *testing.T, d *DB, o *Options) *DB {
		dir := filepath.Join(t.TempDir(), "crashed")
		if err := os.CopyFS(dir, os.DirFS(o.Dir)); err != nil {
			t.Fatal(err)
		}
		o.Dir = dir
		return openDB(t, *o)
	}
	restart := func(t *testing.T, d *DB, o *Options) *DB {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		return openDB(t, *o)
	}
	fill := func(from, step int64) func(*testing.T, *DB, *Options) *DB { // another 300 samples from there on
		return func(t *testing.T, d *DB, _ *Options) *DB {
			for name := range kindsOfSamples {
				b := wire.NewBatch(team)
				s := b.Add(labels.FromStrings("__name__", name))
				for i := range int64(300) {
					s.Samples = append(s.Samples, wire.Sample{T: againAt + from + i*step, V: float64(i)})
				}
				mustAppend(t, d, b)
			}
			d.lookup(team).in.db.ForceHeadMMap()
			return d
		}
	}
	cut := func(t *testing.T, d *DB, _ *Options) *DB {
		if err := d.Cut(t.Context()); err != nil {
			t.Fatal(err)
		}
		return d
	}
	keep := func(_ *testing.T, d *DB, _ *Options) *DB { return d }
	type step = func(*testing.T, *DB, *Options) *DB
	for name, steps := range map[string]struct {
		late   bool // a newer sample comes first
		then   []step
		blocks bool // what was sent is in blocks
	}{
		"at once":                        {then: []step{keep}},
		"after newer samples":            {then: []step{fill(10_000, 1000)}},
		"after newer samples, a crash":   {then: []step{fill(10_000, 1000), crash}},
		"after a restart":                {then: []step{restart}},
		"after a crash":                  {then: []step{crash}},
		"after newer samples, a restart": {then: []step{fill(10_000, 1000), restart}},
		"after a cut":                    {then: []step{cut}, blocks: true},
		"late":                           {late: true, then: []step{keep}},
		"late, after a restart":          {late: true, then: []step{restart}},
		"late, after a crash":            {late: true, then: []step{crash}},
		"late, in a mapped chunk":        {late: true, then: []step{fill(-400_000, 1000)}},
		"late, mapped, after a crash":    {late: true, then: []step{fill(-400_000, 1000), crash, crash}},
		"late, after a cut":              {late: true, then: []step{cut}, blocks: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			o.Now = func() time.Time { return time.UnixMilli(againAt).Add(time.Hour) }
			d := openDB(t, o)
			send := func(kind string, ps []sample, apart bool) {
				t.Helper()
				size := len(ps)
				if apart { // each in a request of its own
					size = 1
				}
				for i := 0; i < len(ps); i += size {
					b := batchOfPoints(labels.FromStrings("__name__", kind), againAt+int64(i)*1000, ps[i:i+size])
					if failures, err := d.Append(t.Context(), wire.All(b)); err != nil || len(failures) > 0 {
						t.Errorf("%s: sample %d: %+v %v", kind, i, failures, err)
					}
				}
			}
			for kind, ps := range kindsOfSamples {
				if steps.late {
					put(t, d, team, labels.FromStrings("__name__", kind), againAt+1_000_000, 1)
				}
				send(kind, ps(), len(kind)%2 == 0)
			}
			for _, s := range steps.then {
				d = s(t, d, &o)
			}
			want := readValues(t, d)
			for _, apart := range []bool{false, true, true} {
				for kind, ps := range kindsOfSamples {
					send(kind, ps(), apart)
				}
			}
			got := readValues(t, d)
			for kind := range want {
				if fmt.Sprint(got[kind]) != fmt.Sprint(want[kind]) {
					t.Errorf("%s: read %v, before it came again %v", kind, got[kind], want[kind])
				}
			}
			if steps.blocks {
				return
			}
			for kind, ps := range kindsOfSamples {
				others := ps()
				for i := range others {
					others[i] = sample{v: 12345}
				}
				failures, err := d.Append(t.Context(),
					wire.All(batchOfPoints(labels.FromStrings("__name__", kind), againAt, others)))
				if err != nil || len(failures) != 1 || failures[0].Kind != errs.Conflict || failures[0].Samples != len(others) {
					t.Errorf("%s: other values for the same times: %+v %v, want a Conflict of %d samples", kind, failures, err,
						len(others))
				}
			}
			if after := readValues(t, d); fmt.Sprint(after) != fmt.Sprint(got) {
				t.Errorf("values that were refused are read: %v, before %v", after, got)
			}
		})
	}
}

// readValues is read, with stale markers alike whatever their form.
func readValues(t *testing.T, d *DB) map[string][]point2 {
	got := read(t, d, team)
	for _, ps := range got {
		for i := range ps {
			if strings.HasPrefix(ps[i].v, "{count:0, sum:NaN") {
				ps[i].v = "stale"
			}
		}
	}
	return got
}

const againAt = 1_700_000_000_000

// TestTwoValuesInARequest: of two values for one time in one series of a request one is stored, and the other one is a
// Conflict that counts as one sample, in order and out of order.
func TestTwoValuesInARequest(t *testing.T) {
	h1, h2 := buckets(false, 1, 2), buckets(false, 1, 3)
	for name, two := range map[string][2]sample{"floats": {{v: 1}, {v: 2}},
		"histograms":          {{h: h1}, {h: h2}},
		"float histograms":    {{fh: h1.ToFloat(nil)}, {fh: h2.ToFloat(nil)}},
		"gauges":              {{h: buckets(true, 5, 0, 1)}, {h: buckets(true, 0, 1)}},
		"float and histogram": {{v: 1}, {h: h1}}, "kinds of histograms": {{h: h1}, {fh: h1.ToFloat(nil)}},
		"float and stale": {{v: 1}, {v: staleNaN}}, "stale and float": {{v: staleNaN}, {v: 1}},
		"histogram and stale":         {{h: h1}, {h: &histogram.Histogram{Sum: staleNaN}}},
		"NaNs of different bits":      {{v: math.NaN()}, {v: math.Float64frombits(math.Float64bits(math.NaN()) + 1)}},
		"stale float, then histogram": {{v: staleNaN}, {h: h1}}} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", late ", late), func(t *testing.T) {
				d := openDB(t, testOptions(t))
				now := time.Now().UnixMilli()
				ls := labels.FromStrings("a", "b")
				if late {
					put(t, d, team, ls, float64(now), 0)
				}
				b := batchOfPoints(ls, now-60_000, two[:])
				for i := range b.Series[0].Samples {
					b.Series[0].Samples[i].T = now - 60_000
				}
				for i := range b.Series[0].Histograms {
					b.Series[0].Histograms[i].T = now - 60_000
				}
				failures, err := d.Append(t.Context(), wire.All(b))
				if err != nil || len(failures) != 1 || failures[0].Kind != errs.Conflict ||
					failures[0].Samples+failures[0].Histograms != 1 {
					t.Fatalf("%+v %v, want one Conflict of one sample", failures, err)
				}
				if got := collect(t, d.Select(t.Context(), request(team, now-60_000, now-60_000)))[ls.String()]; len(got) == 0 ||
					got[0].t != now-60_000 {
					t.Fatalf("read %v", got)
				}
			})
		}
	}
}

// TestSeriesTwiceInARequest: a request that names a series several times is treated as if its samples came in as many
// requests.
func TestSeriesTwiceInARequest(t *testing.T) {
	now := time.Now().Add(-time.Minute).UnixMilli()
	ls := labels.FromStrings("a", "b")
	for _, known := range []bool{false, true} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint("known ", known, ", late ", late), func(t *testing.T) {
				o := testOptions(t)
				d := openDB(t, o)
				if known {
					put(t, d, team, ls, float64(now-50_000), 0)
				}
				if late {
					put(t, d, team, ls, float64(now+50_000), 0)
				}
				put(t, d, team, labels.FromStrings("a", "other"), float64(now-50_000), 0)
				b := wire.NewBatch(team)
				for i, samples := range [][]wire.Sample{{{T: now, V: 1}}, {{T: now, V: 2}}, {{T: now, V: 1}}, {{T: now,
					V: 3}, {T: now + 1, V: 4}}} {
					one := wire.NewBatch(team) // so that nobody joins them
					one.Add(ls).Samples = samples
					b.Series = append(b.Series, one.Series[0])
					other := wire.NewBatch(team)
					other.Add(labels.FromStrings("a", "other")).Samples = []wire.Sample{{T: now + int64(i), V: 1}}
					b.Series = append(b.Series, other.Series[0])
				}
				failures, err := d.Append(t.Context(), wire.All(b))
				var refused []int
				for _, f := range failures {
					if refused = append(refused, f.Series); f.Kind != errs.Conflict || f.Samples != 1 {
						t.Errorf("%+v", f)
					}
				}
				if err != nil || fmt.Sprint(refused) != "[2 6]" {
					t.Fatalf("%v %v, want conflicts of series 2 and 6", failures, err)
				}
				check := func() {
					t.Helper()
					got := collect(t, d.Select(t.Context(), request(team, now, now+10)))
					if s := fmt.Sprint(got[ls.String()]); !strings.Contains(s, fmt.Sprintf("{%d 1} {%d 4}", now, now+1)) {
						t.Fatal(s)
					}
					if n := len(got[`{a="other"}`]); n < 4 {
						t.Fatalf("%d samples of the other series", n)
					}
				}
				check()
				verifyRefs(t, d.lookup(team).in)
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				d = openDB(t, o)
				check()
			})
		}
	}
}

// TestTwoValuesInTwoRequests: the second one is a Conflict wherever in the head the first one is, also when many
// senders come at once, so that what is read is what was acknowledged.
func TestTwoValuesInTwoRequests(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	now := time.Now().UnixMilli()
	ls := labels.FromStrings("a", "b")
	put(t, d, team, ls, float64(now), 0)
	send := func(at int64, v float64) bool {
		b := wire.NewBatch(team)
		b.Add(ls).Samples = []wire.Sample{{T: at, V: v}}
		failures, err := d.Append(t.Context(), wire.All(b))
		if err != nil || len(failures) > 0 && failures[0].Kind != errs.Conflict {
			t.Error(failures, err)
		}
		return len(failures) == 0
	}
	var want []point2
	for i := range int64(200) { // late, so that many chunks are mapped; and then new ones
		at := now - (200-i)*1000
		if i >= 150 {
			at = now + (i-149)*1000
		}
		var wg sync.WaitGroup
		var acked [4]atomic.Bool
		for v := range acked {
			wg.Go(func() { acked[v].Store(send(at, float64(v))) })
		}
		wg.Wait()
		n := 0
		for v := range acked {
			if acked[v].Load() {
				n++
				want = append(want, point2{at, fmt.Sprint(float64(v))})
			}
		}
		if n != 1 {
			t.Fatalf("time %d: %d of 4 different values were acknowledged", i, n)
		}
	}
	want = append(want, point2{now, "0"})
	check := func() {
		t.Helper()
		got := map[int64]string{}
		for _, p := range read(t, d, team)[ls.String()] {
			got[p.t] = p.v
		}
		for _, p := range want {
			if got[p.t] != p.v {
				t.Fatalf("at %d: read %s, %s was acknowledged", p.t, got[p.t], p.v)
			}
		}
	}
	check()
	for _, p := range want {
		if send(p.t, 100) {
			t.Fatalf("another value for %d was acknowledged", p.t)
		}
	}
	check()
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	check()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDB(t, o)
	check()
}

// TestTwoValuesInBlocks: a value that comes when another one for its time is in a block is stored beside it. All
// members then read the same of the two, whichever came first, and however their chunks lie.
func TestTwoValuesInBlocks(t *testing.T) {
	ls := labels.FromStrings("a", "b")
	for name, c := range map[string]struct {
		one, two sample
		want     string
	}{
		"larger bits":        {sample{v: 1}, sample{v: 2}, "2"},
		"negative":           {sample{v: -1}, sample{v: 2}, "-1"},
		"a value over stale": {sample{v: 1}, sample{v: staleNaN}, "1"},
		"histogram":          {sample{v: 1}, sample{h: buckets(false, 1, 2)}, fmt.Sprint(buckets(false, 1, 2))},
	} {
		for order, values := range [][2]sample{{c.one, c.two}, {c.two, c.one}} {
			for _, cuts := range []int{1, 2} {
				t.Run(fmt.Sprint(name, ", order ", order, ", cuts ", cuts), func(t *testing.T) {
					o := testOptions(t)
					o.Now = func() time.Time { return time.UnixMilli(againAt).Add(time.Hour) }
					d := openDB(t, o)
					put(t, d, team, ls, againAt+1000, 7)
					for i, p := range values {
						if order == 1 { // the chunk is another one
							put(t, d, team, ls, againAt-float64(1000*i+500), 5)
						}
						mustAppend(t, d, batchOfPoints(ls, againAt, []sample{p}))
						if i < cuts {
							if err := d.Cut(t.Context()); err != nil {
								t.Fatal(err)
							}
						}
					}
					got := map[int64]string{}
					set := d.Select(t.Context(), request(team, 0, math.MaxInt64))
					defer set.Close()
					for set.Next() {
						chunks := set.At().Chunks
						for i := 1; i < len(chunks); i++ {
							if cuts == 2 && chunks[i].MinTime <= chunks[i-1].MaxTime {
								t.Errorf("chunks of blocks overlap: %v", chunks)
							}
						}
						for _, p := range points(t, set.At()) {
							got[p.t] = p.v
						}
					}
					if set.Err() != nil {
						t.Fatal(set.Err())
					}
					if got[againAt] != c.want {
						t.Fatalf("read %q, want %q", got[againAt], c.want)
					}
				})
			}
		}
	}
}

func TestSame(t *testing.T) {
	f := func(a, b sample, want bool) {
		t.Helper()
		if a.same(b) != want || b.same(a) != want {
			t.Errorf("%v and %v: want %t", a, b, want)
		}
	}
	stales := []sample{{v: staleNaN}, {h: &histogram.Histogram{Sum: staleNaN}},
		{fh: &histogram.FloatHistogram{Sum: staleNaN}}}
	for _, a := range stales {
		for _, b := range stales {
			f(a, b, true)
		}
		f(a, sample{v: 1}, false)
		f(a, sample{v: math.NaN()}, false)
		f(a, sample{h: buckets(false, 1)}, false)
	}
	f(sample{v: 0}, sample{v: math.Copysign(0, -1)}, false)
	f(sample{v: math.NaN()}, sample{v: math.NaN()}, true)
	f(sample{v: 1}, sample{h: buckets(false, 1)}, false)
	f(sample{h: buckets(false, 1)}, sample{fh: buckets(false, 1).ToFloat(nil)}, false)
	wide := buckets(false, 1, 2)
	wide.PositiveSpans[1].Length += 2
	wide.PositiveBuckets = append(wide.PositiveBuckets, -2, 0)
	f(sample{h: buckets(false, 1, 2)}, sample{h: wide}, true)
	f(sample{fh: buckets(false, 1, 2).ToFloat(nil)}, sample{fh: wide.ToFloat(nil)}, true)
	f(sample{h: buckets(false, 1, 2)}, sample{h: buckets(false, 1, 0, 2)}, false)
	other := buckets(false, 1, 2)
	other.Sum++
	f(sample{h: buckets(false, 1, 2)}, sample{h: other}, false)
}
