package query

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/hearth-metrics/hearth/internal/series"
)

// replica is a source over one Prometheus TSDB, as ring member n of several would hold it.
type replica struct {
	storage.SampleAndChunkQueryable
	about series.Info
	// keep says which samples this replica has, by their number in the series; nil = all, in the chunks of the TSDB.
	keep func(n int) bool
}

func (s *replica) Info(context.Context) (series.Info, error) { return s.about, nil }

func (s *replica) Select(ctx context.Context, r *series.Request) series.Set {
	q, err := s.ChunkQuerier(r.MinTime, r.MaxTime)
	if err != nil {
		return series.Failed(err)
	}
	hints := &storage.SelectHints{Start: r.MinTime, End: r.MaxTime, Limit: r.Limit, DisableTrimming: true}
	if r.SkipChunks {
		hints.Func = "series"
	}
	return &chunkSet{ChunkSeriesSet: q.Select(ctx, true, hints, r.Matchers...), q: q, r: r, keep: s.keep}
}

type chunkSet struct {
	storage.ChunkSeriesSet
	q    storage.ChunkQuerier
	r    *series.Request
	keep func(n int) bool
	at   series.Series
}

func (s *chunkSet) Next() bool {
	for s.ChunkSeriesSet.Next() {
		in := s.ChunkSeriesSet.At()
		if s.keep != nil {
			in = thin(in, s.keep)
		}
		s.at = series.Series{Labels: in.Labels()}
		it := in.Iterator(nil)
		for it.Next() {
			c := it.At()
			s.at.Chunks = append(s.at.Chunks, series.Chunk{
				MinTime: c.MinTime, MaxTime: c.MaxTime,
				Raw: series.Encoded{Encoding: c.Chunk.Encoding(), Data: slices.Clone(c.Chunk.Bytes())},
			})
		}
		if it.Err() != nil {
			panic(it.Err())
		}
		if len(s.at.Chunks) > 0 {
			return true
		}
	}
	return false
}

// thin is in with the samples that keep wants, encoded anew.
func thin(in storage.ChunkSeries, keep func(n int) bool) storage.ChunkSeries {
	var kept []chunks.Sample
	n := 0
	var reuse chunkenc.Iterator
	for it := in.Iterator(nil); it.Next(); {
		reuse = it.At().Chunk.Iterator(reuse)
		all, err := storage.ExpandSamplesWithoutReplacingNaNs(reuse, nil)
		if err != nil {
			panic(err)
		}
		for _, s := range all {
			if keep(n) {
				kept = append(kept, s)
			}
			n++
		}
	}
	return storage.NewSeriesToChunkEncoderWithFloatEncoding(storage.NewListSeries(in.Labels(), kept), chunkenc.EncXOR2)
}

func (s *chunkSet) At() series.Series         { return s.at }
func (s *chunkSet) Warnings() series.Warnings { return nil }
func (s *chunkSet) Close() error              { return s.q.Close() }

func (s *replica) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	q, err := s.Querier(r.MinTime, r.MaxTime)
	if err != nil {
		return nil, nil, err
	}
	defer q.Close()
	names, _, err := q.LabelNames(ctx, &storage.LabelHints{Limit: r.Limit}, r.Matchers...)
	return slices.Clone(names), nil, err
}

func (s *replica) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	q, err := s.Querier(r.MinTime, r.MaxTime)
	if err != nil {
		return nil, nil, err
	}
	defer q.Close()
	values, _, err := q.LabelValues(ctx, name, &storage.LabelHints{Limit: r.Limit}, r.Matchers...)
	return slices.Clone(values), nil, err
}

// replicas are three receivers over db. keep may leave out what another one has.
func replicas(db storage.SampleAndChunkQueryable, keep func(replica, n int) bool) []Endpoint {
	var all []Endpoint
	for i, name := range []string{"a", "b", "c"} {
		src := &replica{SampleAndChunkQueryable: db, about: series.Info{Instance: name, Role: "receive"}}
		if keep != nil {
			src.keep = func(n int) bool { return keep(i, n) }
		}
		all = append(all, Endpoint{Name: name, Source: src})
	}
	return all
}

// ringStorage writes to one TSDB and reads through a Querier over replicas of it.
type ringStorage struct {
	*teststorage.TestStorage
	q *Querier
}

func (s *ringStorage) Querier(mint, maxt int64) (storage.Querier, error) {
	return s.q.Querier(mint, maxt)
}

func (s *ringStorage) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return s.q.ChunkQuerier(mint, maxt)
}

// hintScripts print counter reset hints. Where a series is put together from replicas with gaps the hints are unknown,
// rightly: readers then compare values. Apart from that their results are the same.
var hintScripts = []string{"testdata/native_histograms.test", "testdata/range_queries.test"}

// TestPromQL runs Prometheus's own test scripts of the language over three replicas, each with gaps that others fill;
// those that print hints over replicas without gaps.
func TestPromQL(t *testing.T) {
	f := func(keep func(replica, n int) bool, wanted func(script string) bool) {
		engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
		promqltest.RunBuiltinTestsWithStorage(&runner{t, wanted}, engine, func(t testing.TB) storage.Storage {
			db := promqltest.NewBuiltinTestStorage(t)
			return &ringStorage{db, open(t, DefaultOptions(), replicas(db, keep)...)}
		})
	}
	f(func(replica, n int) bool { return n%3 != replica },
		func(script string) bool { return !slices.Contains(hintScripts, script) })
	f(nil, func(script string) bool { return slices.Contains(hintScripts, script) })
}

// runner is *testing.T for the scripts that are wanted.
type runner struct {
	*testing.T
	wanted func(script string) bool
}

func (r *runner) Run(name string, f func(*testing.T)) bool {
	return !r.wanted(name) || r.T.Run(name, f)
}

// rnd is a small random generator whose numbers are the same in every run.
type rnd uint64

func (r *rnd) next(n int) int {
	*r ^= *r << 13
	*r ^= *r >> 7
	*r ^= *r << 17
	return int(uint64(*r) % uint64(n))
}

// load appends series of every kind to db: counters with resets, gauges, histograms, with gaps and stale markers.
func load(t testing.TB, db *teststorage.TestStorage, r *rnd, count, samples int) {
	t.Helper()
	app := db.AppenderV2(context.Background())
	for i := range count {
		l := labels.FromStrings("__name__", []string{"requests_total", "temperature", "latency"}[i%3], "pod",
			fmt.Sprint("p", i/3), "ns", fmt.Sprint("n", i%5))
		total := 0.0
		for n := range samples {
			if r.next(20) == 0 {
				continue
			}
			var h *histogram.Histogram
			v := float64(r.next(1000)) / 7
			switch i % 3 {
			case 0:
				if total += v; r.next(40) == 0 {
					total = 0
				}
				v = total
			case 2:
				h = histogramOf(uint64(1 + n%60))
				v = 0
			}
			if _, err := app.Append(0, l, 0, int64(n)*15_000, v, h, nil, storage.AppendV2Options{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

func histogramOf(n uint64) *histogram.Histogram {
	return &histogram.Histogram{
		Count: 3 * n, Sum: float64(n) * 1.5, Schema: 1, ZeroThreshold: 0.001, ZeroCount: n,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{int64(n), 0},
	}
}

// queries are compared between a querier over replicas and Prometheus itself.
var queries = []string{
	`requests_total`,
	`temperature{pod="p3"}`,
	`latency`,
	`sum by (ns) (rate(requests_total[5m]))`,
	`increase(requests_total[10m])`,
	`irate(requests_total[2m])`,
	`resets(requests_total[1h])`,
	`changes(temperature[20m])`,
	`count by (ns) (temperature)`,
	`max_over_time(temperature[10m]) - min_over_time(temperature[10m])`,
	`count_over_time({__name__=~".+"}[5m])`,
	`max by (ns) (temperature)`,
	`histogram_quantile(0.9, sum by (ns) (rate(latency[5m])))`,
	`histogram_count(increase(latency[10m]))`,
	`sum(latency)`,
	`rate(requests_total[5m] offset 20m)`,
	`avg_over_time(rate(requests_total[2m])[10m:1m])`,
	`temperature @ 3000`,
	`absent(nothing)`,
	`sum(requests_total{ns!="n1"}) by (pod) / on (pod) group_left count(temperature) by (pod)`,
	`quantile_over_time(0.5, temperature[15m])`,
	`last_over_time(temperature[3m])`,
	`label_replace(temperature{ns=""}, "x", "$1", "pod", "(.*)")`,
	`predict_linear(temperature[10m], 600)`,
}

// TestDifferential: what a querier answers over replicas with gaps, in different chunks, is what Prometheus answers
// that holds all samples.
func TestDifferential(t *testing.T) {
	for _, seed := range []rnd{1, 77, 4242} {
		db := teststorage.New(t)
		r := seed
		load(t, db, &r, 24, 500)
		gaps := func(replica, n int) bool { // every sample is on two of three
			h := uint64(n)/uint64(3+seed%5)*0x9e3779b97f4a7c15 + uint64(seed)
			return int(h>>40)%3 != replica
		}
		q := open(t, DefaultOptions(), replicas(db, gaps)...)
		for _, expr := range queries {
			for _, step := range []time.Duration{15 * time.Second, 77 * time.Second} {
				want, got := evaluate(t, q, db, expr, step), evaluate(t, q, q, expr, step)
				if text := differs(got, want); text != "" {
					t.Errorf("seed %d, step %s: %s: %s", seed, step, expr, text)
				}
			}
		}
	}
}

func evaluate(t *testing.T, q *Querier, from storage.Queryable, expr string, step time.Duration) promql.Matrix {
	t.Helper()
	query, err := q.engine.NewRangeQuery(context.Background(), from, nil, expr, time.Unix(60, 0), time.Unix(7600, 0), step)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer query.Close()
	result := query.Exec(context.Background())
	if result.Err != nil {
		t.Fatalf("%s: %v", expr, result.Err)
	}
	m, err := result.Matrix()
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	out := make(promql.Matrix, len(m)) // its points are the query's
	for i, s := range m {
		out[i] = promql.Series{Metric: s.Metric.Copy(), Floats: slices.Clone(s.Floats)}
		for _, h := range s.Histograms {
			out[i].Histograms = append(out[i].Histograms, promql.HPoint{T: h.T, H: h.H.Copy()})
		}
	}
	slices.SortFunc(out, func(a, b promql.Series) int { return labels.Compare(a.Metric, b.Metric) })
	return out
}

// differs says where got is not want; sums may differ in the last bits, since series are added up in another order.
func differs(got, want promql.Matrix) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d series, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if !labels.Equal(g.Metric, w.Metric) || len(g.Floats) != len(w.Floats) || len(g.Histograms) != len(w.Histograms) {
			return fmt.Sprintf("%s with %d floats and %d histograms, want %s with %d and %d",
				g.Metric, len(g.Floats), len(g.Histograms), w.Metric, len(w.Floats), len(w.Histograms))
		}
		for n, p := range w.Floats {
			if q := g.Floats[n]; p.T != q.T || !near(p.F, q.F) {
				return fmt.Sprintf("%s: %v, want %v", w.Metric, q, p)
			}
		}
		for n, p := range w.Histograms {
			if q := g.Histograms[n]; p.T != q.T || !near(p.H.Count, q.H.Count) || !near(p.H.Sum, q.H.Sum) ||
				len(p.H.PositiveBuckets) != len(q.H.PositiveBuckets) {
				return fmt.Sprintf("%s: %v, want %v", w.Metric, q, p)
			}
		}
	}
	return ""
}

func near(a, b float64) bool {
	return a == b || math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b))
}
