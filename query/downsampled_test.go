package query

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

const (
	second = int64(1000)
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
)

// tiers is a source of chunks of several resolutions. Where the request allows none but raw ones it has all samples
// raw.
type tiers struct {
	sourcetest.Memory
	raw, mixed []series.Series
}

func (s *tiers) Select(_ context.Context, r *series.Request) series.Set {
	all := s.raw
	if r.MaxResolution > 0 {
		all = s.mixed
	}
	var out []series.Series
	for _, in := range all {
		if !matching(in.Labels, r.Matchers) {
			continue
		}
		kept := series.Series{Labels: in.Labels}
		for _, c := range in.Chunks {
			if c.MaxTime >= r.MinTime && c.MinTime <= r.MaxTime {
				kept.Chunks = append(kept.Chunks, wanted(c, r.Aggregates))
			}
		}
		if len(kept.Chunks) > 0 {
			out = append(out, kept)
		}
	}
	return series.List(out)
}

func matching(l labels.Labels, ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(l.Get(m.Name)) })
}

// wanted is c with the aggregates that are asked for, as a store gateway answers.
func wanted(c series.Chunk, aggregates []series.Aggregate) series.Chunk {
	if c.Aggr == nil || len(aggregates) == 0 {
		return c
	}
	out := c
	out.Aggr = new(series.AggrChunks)
	for _, a := range aggregates {
		out.Aggr[a] = c.Aggr[a]
	}
	return out
}

// add adds a series with all samples raw, and with parts of them, in windows, where resolutions above 0 may be read.
func (s *tiers) add(l labels.Labels, samples []sourcetest.Sample, parts ...series.Chunk) {
	s.raw = append(s.raw, series.Series{Labels: l, Chunks: sourcetest.Encode(samples, 0)})
	slices.SortStableFunc(parts, func(a, b series.Chunk) int { return int(a.MinTime - b.MinTime) })
	s.mixed = append(s.mixed, series.Series{Labels: l, Chunks: parts})
}

func (s *tiers) open(t testing.TB, opts Options) *Querier {
	s.About = series.Info{Role: "store", MinTime: 0, MaxTime: math.MaxInt64}
	byLabels := func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) }
	slices.SortFunc(s.raw, byLabels)
	slices.SortFunc(s.mixed, byLabels)
	return open(t, opts, Endpoint{Name: "s", Source: s})
}

// between are the samples of [from, to).
func between(samples []sourcetest.Sample, from, to int64) (out []sourcetest.Sample) {
	for _, s := range samples {
		if s.T >= from && s.T < to {
			out = append(out, s)
		}
	}
	return out
}

// ranged evaluates text from start to end with data up to a resolution; 0 = raw ones. Result by labels and time, in ms.
func ranged(
	t testing.TB,
	q *Querier,
	text string,
	start, end, step int64,
	resolution time.Duration,
) (map[string]map[int64]promql.Sample, []string) {
	t.Helper()
	p := q.defaultParams()
	p.maxResolution = resolution
	ctx := withParams(t.Context(), p)
	query, err := q.engine.NewRangeQuery(ctx, q, nil, text, time.UnixMilli(start), time.UnixMilli(end),
		time.Duration(step)*time.Millisecond)
	if err != nil {
		t.Fatal(text, err)
	}
	defer query.Close()
	res := query.Exec(ctx)
	m, err := res.Matrix()
	if err != nil {
		t.Fatal(text, err)
	}
	out := map[string]map[int64]promql.Sample{}
	for _, s := range m {
		of := map[int64]promql.Sample{}
		for _, p := range s.Floats {
			of[p.T] = promql.Sample{T: p.T, F: p.F}
		}
		for _, p := range s.Histograms {
			of[p.T] = promql.Sample{T: p.T, H: p.H.Copy()}
		}
		out[s.Metric.String()] = of
	}
	warnings, _ := res.Warnings.AsStrings(text, 0, 0)
	return out, warnings
}

// gauge is samples each 30 s that walk at random, away at some times, with a stale marker where they go if marked.
func gauge(rnd *rand.Rand, from, to int64, marked bool, away ...[2]int64) (out []sourcetest.Sample) {
	v := 100.0
	for t := from + 13*second; t < to; t += 30 * second {
		v += rnd.Float64() - 0.5
		if slices.ContainsFunc(away, func(a [2]int64) bool { return t >= a[0] && t < a[1] }) {
			if n := len(out); marked && n > 0 && !value.IsStaleNaN(out[n-1].V) {
				out = append(out, sourcetest.Sample{T: t, V: math.Float64frombits(value.StaleNaN)})
			}
			continue
		}
		out = append(out, sourcetest.Sample{T: t, V: math.Round(v*64) / 64}) // sums of them are exact
	}
	return out
}

// growing is samples each 30 s of a counter that grows by 1/s, about, and is reset at some times.
func growing(rnd *rand.Rand, from, to int64, resets ...int64) (out []sourcetest.Sample) {
	v := 1e6
	for t := from + 13*second; t < to; t += 30 * second {
		v += float64(20 + rnd.IntN(21))
		for _, r := range resets {
			if t >= r && t < r+30*second {
				v = float64(rnd.IntN(20))
			}
		}
		out = append(out, sourcetest.Sample{T: t, V: v})
	}
	return out
}

const since = 100 * day

// TestDownsampledInstants: an instant has the value of the window that was complete last, at each of them.
func TestDownsampledInstants(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, res := range []int64{5 * minute, hour} {
		var s tiers
		samples := gauge(rnd, since, since+day, false)
		s.add(labels.FromStrings("__name__", "m"), samples, sourcetest.Downsample(samples, res, 700)...)
		q := s.open(t, DefaultOptions())
		limit := time.Duration(res) * time.Millisecond
		const step = 400 * second
		for _, text := range []string{"m", "m offset 7m", "last_over_time(m[1h:5m])", "sum(m)"} {
			got, warnings := ranged(t, q, text, since+2*hour, since+2*hour+191*step, step, limit)
			if len(got) != 1 || len(warnings) > 0 {
				t.Fatalf("%s: %d series, %q", text, len(got), warnings)
			}
			for _, points := range got {
				if len(points) != 192 {
					t.Errorf("%s of windows of %s: %d of 192 points", text, limit, len(points))
				}
				for at, p := range points {
					if text != "m" {
						continue
					}
					end := (at + 1) / res * res // the window that ended last, or with this instant
					sum, n := 0.0, 0.0
					for _, in := range between(samples, end-res, end) {
						sum, n = sum+in.V, n+1
					}
					if p.F != sum/n {
						t.Fatalf("at %d: %v, want the average %v of the hour before %d", at, p.F, sum/n, end)
					}
				}
			}
		}
		// After its end a series is there until the end of the next window, and no longer.
		got, _ := ranged(t, q, "m", since+day-minute, since+day+3*hour, minute, limit)
		last := int64(0)
		for at := range got[`{__name__="m"}`] {
			last = max(last, at)
		}
		if last < since+day+3*minute || last > since+day+res {
			t.Errorf("windows of %s: the series ends at %s", limit, time.Duration(last-since-day)*time.Millisecond)
		}
	}
}

// TestRawAmongDownsampled: raw series of a query that may read windows of an hour have the values of a query that may
// not: they do not live on for longer. So do raw stretches of series of which another part is downsampled, at times
// that are not next to it.
func TestRawAmongDownsampled(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	for round := range 30 {
		var s tiers
		var away [][2]int64
		for range rnd.IntN(6) {
			at := since + rnd.Int64N(day)
			away = append(away, [2]int64{at, at + rnd.Int64N(2*hour)})
		}
		for i := range 3 {
			samples := gauge(rnd, since, since+day-rnd.Int64N(2*hour), i > 0, away...)
			s.add(labels.FromStrings("__name__", "raw", "i", fmt.Sprint(i)), samples, sourcetest.Encode(samples, 0)...)
		}
		old := gauge(rnd, since, since+day/2, false)
		s.add(labels.FromStrings("__name__", "old"), old, sourcetest.Downsample(old, hour, 500)...)
		q := s.open(t, DefaultOptions())
		step := 30*second + rnd.Int64N(20*minute)
		for _, text := range []string{
			"raw", "raw offset 10m", "count(raw)", "absent(raw)", "raw @ " + fmt.Sprint((since+hour)/second), "timestamp(raw)",
			"count_over_time(raw[10m])", "avg_over_time(raw[10m])", "avg_over_time(raw[1h] @ end())", "sum(avg_over_time(raw[1h]))", "max_over_time(raw[1h:5m])", "avg_over_time(raw[1h:5m])",
			"count_over_time(raw[1h:5m])", "sum_over_time(raw[10m])", "rate(raw[10m])", "-max(-raw)", "quantile_over_time(0.5, raw[10m])",
			"present_over_time(raw[10m])", "absent_over_time(raw[10m])", `absent_over_time(raw{i="0"}[10m])`, "resets(raw[10m])", "changes(raw[10m])",
		} {
			want, _ := ranged(t, q, text, since, since+day+2*hour, step, 0)
			got, warnings := ranged(t, q, text, since, since+day+2*hour, step, time.Hour)
			if len(warnings) > 0 {
				t.Errorf("%s: %q", text, warnings)
			}
			sameRanges(t, fmt.Sprintf("round %d, %s, step %d", round, text, step), got, want, 1e-12)
		}
	}
}

// sameRanges compares results, whose values may differ by a part of tolerance.
func sameRanges(t *testing.T, what string, got, want map[string]map[int64]promql.Sample, tolerance float64) {
	t.Helper()
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: series %s is there", what, name)
		}
	}
	for name, points := range want {
		for at, p := range points {
			if g, ok := got[name][at]; !ok || p.H == nil && math.Abs(g.F-p.F) > tolerance*max(1, math.Abs(p.F)) {
				t.Fatalf("%s: %s at %d: got %v (%v), want %v", what, name, at-since, g, ok, p)
			}
		}
		for at, g := range got[name] {
			if _, ok := points[at]; !ok {
				t.Fatalf("%s: %s at %d: got %v, want nothing", what, name, at-since, g)
			}
		}
	}
}

// TestDownsampledFunctions: what windows tell exactly is exact, over whole windows: whatever part of the series is raw,
// in windows of five minutes or an hour, and where several are there for one moment.
func TestDownsampledFunctions(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for round := range 12 {
		var s tiers
		hole := since + 30*hour + rnd.Int64N(hour)
		samples := gauge(rnd, since, since+3*day, false, [2]int64{hole, hole + rnd.Int64N(5*hour)})
		one, two := since+rnd.Int64N(24)*hour, since+(24+rnd.Int64N(24))*hour
		more := rnd.Int64N(3) * 6 * hour // how far they overlap
		within := since + rnd.Int64N(
			12*24)*5*minute // a chunk of hours made from chunks of five minutes may end within an hour
		parts := sourcetest.Downsample(between(samples, since, min(within, one)), hour, 300+rnd.IntN(1000))
		parts = append(
			parts,
			sourcetest.Downsample(between(samples, min(within, one), one+more), hour, 300+rnd.IntN(1000))...)
		parts = append(parts, sourcetest.Downsample(between(samples, one, two+more), 5*minute, 300+rnd.IntN(1000))...)
		parts = append(parts, sourcetest.Encode(between(samples, two, since+4*day), 0)...)
		s.add(labels.FromStrings("__name__", "m"), samples, parts...)
		q := s.open(t, DefaultOptions())
		for _, text := range []string{
			"count_over_time(m[6h])", "sum_over_time(m[6h])", "avg_over_time(m[6h])", "min_over_time(m[6h])", "max_over_time(m[6h])",
			"present_over_time(m[6h])", "absent_over_time(m[6h])", "sum(count_over_time(m[2h])) by (x)", "avg_over_time(m[2h] offset 3h)",
		} {
			want, _ := ranged(t, q, text, since+6*hour, since+3*day+8*hour, hour, 0)
			got, warnings := ranged(t, q, text, since+6*hour, since+3*day+8*hour, hour, time.Hour)
			if len(warnings) > 0 {
				t.Errorf("%s: %q", text, warnings)
			}
			sameRanges(t, fmt.Sprintf("round %d, %s", round, text), got, want, 1e-9)
		}
	}
}

// TestDownsampledCounters: an increase over resets, wherever chunks and resolutions change, is that of raw samples
// except for what comes within a window at both ends of the range, an hour of six.
func TestDownsampledCounters(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	for round := range 20 {
		var s tiers
		var resets []int64
		for range rnd.IntN(8) {
			resets = append(resets, since+rnd.Int64N(3*day))
		}
		samples := growing(rnd, since, since+3*day, resets...)
		one, two := since+rnd.Int64N(24)*hour, since+(24+rnd.Int64N(24))*hour
		more := rnd.Int64N(3) * 6 * hour
		parts := sourcetest.Downsample(between(samples, since, one+more), hour, 300+rnd.IntN(1000))
		parts = append(parts, sourcetest.Downsample(between(samples, one, two+more), 5*minute, 300+rnd.IntN(1000))...)
		parts = append(parts, sourcetest.Encode(between(samples, two, since+4*day), 0)...)
		s.add(labels.FromStrings("__name__", "m"), samples, parts...)
		fh := histograms(samples)
		parts = sourcetest.Downsample(between(fh, since, one+more), hour, 300+rnd.IntN(1000))
		parts = append(parts, sourcetest.Downsample(between(fh, one, two+more), 5*minute, 300+rnd.IntN(1000))...)
		parts = append(parts, sourcetest.Encode(between(fh, two, since+4*day), 0)...)
		s.add(labels.FromStrings("__name__", "h"), fh, parts...)
		q := s.open(t, DefaultOptions())
		for _, text := range []string{"increase(m[6h])", "rate(m[6h])", "histogram_count(increase(h[6h]))", "histogram_sum(rate(h[6h]))"} {
			want, _ := ranged(t, q, text, since+6*hour, since+3*day, 17*minute, 0)
			got, _ := ranged(t, q, text, since+6*hour, since+3*day, 17*minute, time.Hour)
			for name, points := range want {
				for at, p := range points {
					g, ok := got[name][at]
					if off := math.Abs(g.F-p.F) / p.F; !ok || off > 0.2 {
						t.Fatalf("round %d, %s at %d: got %v (%v), want %v (resets %v, %v, %v)", round, text, at-since, g.F, ok, p.F,
							resets, one-since, two-since)
					}
				}
			}
		}
	}
}

// histograms are those of a counter: as many observations, three quarters of them in one bucket.
func histograms(samples []sourcetest.Sample) (out []sourcetest.Sample) {
	for _, s := range samples {
		n := math.Floor(s.V / 4)
		out = append(out, sourcetest.Sample{T: s.T, FH: &histogram.FloatHistogram{
			Schema: 1, Count: 4 * n, Sum: 8 * n, ZeroThreshold: 0.001,
			PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []float64{n, 3 * n},
		}})
	}
	return out
}

// TestDownsampledWarnings: what windows cannot tell comes with a warning that says so.
func TestDownsampledWarnings(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	var s tiers
	samples := gauge(rnd, since, since+day, false)
	s.add(labels.FromStrings("__name__", "m"), samples, sourcetest.Downsample(samples, hour, 700)...)
	q := s.open(t, DefaultOptions())
	f := func(text, want string) {
		t.Helper()
		_, warnings := ranged(t, q, text, since+6*hour, since+12*hour, hour, time.Hour)
		if all := strings.Join(warnings, "\n"); want == "" && all != "" || !strings.Contains(all, want) {
			t.Errorf("%s: %q, want %q", text, all, want)
		}
		if _, warnings = ranged(t, q, text, since+6*hour, since+12*hour, hour, 0); len(warnings) > 0 {
			t.Errorf("%s of raw data: %q", text, warnings)
		}
	}
	f("m", "")
	f("max_over_time(m[6h])", "")
	f("quantile_over_time(0.9, m[6h])", "quantile_over_time is computed from one value for each 1h")
	f("stddev_over_time(m[6h])", "stddev_over_time is computed")
	f("changes(m[6h])", "changes is computed")
	f("resets(m[6h])", "resets is computed")
	f("rate(m[1h])",
		"a range of 1h is too short for data downsampled to 1h, and has no value at some times: it should be 2h or more")
	f("max_over_time(m[30m])", "a range of 30m is too short")
}
