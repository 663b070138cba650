package tsdb

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// benchSeries is series i of a fleet: 12 labels.
func benchSeries(i int) labels.Labels {
	return labels.FromStrings(
		"__name__",
		fmt.Sprintf("metric_%d_total", i%500),
		"cluster",
		"eu-1",
		"namespace",
		fmt.Sprintf("ns-%d", i%40),
		"pod",
		fmt.Sprintf("app-%d-7d9f8c6b5-x2x4z", i/500),
		"container",
		"app",
		"instance",
		fmt.Sprintf("10.0.%d.%d:9090", i/500/250, i/500%250),
		"job",
		"kubernetes-pods",
		"node",
		fmt.Sprintf("node-%d", i/500%100),
		"region",
		"eu-west-1",
		"team",
		"platform",
		"version",
		"v1.2.3",
		"zone",
		"a",
	)
}

// benchBatches are n series in batches of 2,000 with one sample each.
func benchBatches(n int) (out []*wire.Batch) {
	var b *wire.Batch
	for i := range n {
		if i%2000 == 0 {
			b = wire.NewBatch(team)
			out = append(out, b)
		}
		s := b.Add(benchSeries(i))
		s.Samples = []wire.Sample{{V: float64(i)}}
	}
	return out
}

func stamp(b *wire.Batch, t int64) {
	for i := range b.Series {
		b.Series[i].Samples[0].T = t
	}
}

// BenchmarkAppend appends one sample to each of 100k known series, 2,000 per transaction, every 15 s.
func BenchmarkAppend(b *testing.B) {
	hinted := false
	run := func(b *testing.B, change func(*Options)) {
		o := testOptions(b)
		now := time.Now().Truncate(time.Hour)
		o.Now = func() time.Time { return now }
		change(&o)
		d := openDB(b, o)
		batches := benchBatches(100_000)
		for _, batch := range batches {
			for i := range batch.Series {
				if hinted {
					batch.Series[i].Hint = new(atomic.Uint64)
				}
			}
			stamp(batch, now.UnixMilli())
			mustAppend(b, d, batch)
		}
		shard := wire.All(batches[0])
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if i%len(batches) == 0 {
				now = now.Add(15 * time.Second)
			}
			shard.Batch = batches[i%len(batches)]
			b.StopTimer()
			stamp(shard.Batch, now.UnixMilli())
			b.StartTimer()
			if f, err := d.Append(b.Context(), shard); err != nil || len(f) > 0 {
				b.Fatal(f, err)
			}
			i++
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*2000), "ns/sample")
	}
	b.Run("default", func(b *testing.B) { run(b, func(*Options) {}) })
	hinted = true
	b.Run("hinted", func(b *testing.B) { run(b, func(*Options) {}) })
	hinted = false
	b.Run("stripes=128", func(b *testing.B) { run(b, func(o *Options) { o.StripeSize = 128 }) })
	b.Run("uncompressed", func(b *testing.B) { run(b, func(o *Options) { o.WALCompression = compression.None }) })
}

// BenchmarkAppendTogether has 8 senders, with 12,500 series each, append to one tenant at once.
func BenchmarkAppendTogether(b *testing.B) {
	o := testOptions(b)
	now := time.Now().Truncate(time.Hour)
	o.Now = func() time.Time { return now }
	d := openDB(b, o)
	batches := benchBatches(100_000)
	for _, batch := range batches {
		for i := range batch.Series {
			batch.Series[i].Hint = new(atomic.Uint64)
		}
		stamp(batch, now.UnixMilli()-int64(b.N)*1000)
		mustAppend(b, d, batch)
	}
	const senders = 8
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for sender := range senders {
		wg.Go(func() {
			for round := range b.N {
				for i := sender; i < len(batches); i += senders {
					stamp(batches[i], now.UnixMilli()-int64(b.N-round-1)*1000)
					mustAppend(b, d, batches[i])
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*100_000), "ns/sample")
}

// BenchmarkAppendLate appends 4 samples to each of 2,000 known series between those that came in order; again sends
// them once more.
func BenchmarkAppendLate(b *testing.B) {
	run := func(b *testing.B, again bool) {
		o := testOptions(b)
		now := time.Now().Truncate(time.Hour)
		o.Now = func() time.Time { return now }
		d := openDB(b, o)
		batch := benchBatches(2000)[0]
		for i := range int64(120) {
			stamp(batch, now.UnixMilli()-(119-i)*15_000)
			mustAppend(b, d, batch)
		}
		for i := range batch.Series {
			batch.Series[i].Samples = make([]wire.Sample, 4)
		}
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			b.StopTimer()
			for i := range batch.Series {
				for j := range batch.Series[i].Samples {
					batch.Series[i].Samples[j].T = now.UnixMilli() - int64(4*n+j)%110*15_000 - int64(1+4*n/110)
				}
			}
			b.StartTimer()
			mustAppend(b, d, batch)
			if again {
				mustAppend(b, d, batch)
			}
			n++
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*8000), "ns/sample")
	}
	b.Run("once", func(b *testing.B) { run(b, false) })
	b.Run("again", func(b *testing.B) { run(b, true) })
}

// BenchmarkAppendNew appends one sample to each of 2,000 unknown series.
func BenchmarkAppendNew(b *testing.B) {
	d := openDB(b, testOptions(b))
	now := time.Now().UnixMilli()
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		batch := wire.NewBatch(team)
		for range 2000 {
			batch.Add(benchSeries(i)).Samples = []wire.Sample{{T: now, V: 1}}
			i++
		}
		b.StartTimer()
		mustAppend(b, d, batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*2000), "ns/series")
}

// BenchmarkSelect reads an hour of 20k series, 240 samples each, from the head.
func BenchmarkSelect(b *testing.B) {
	o := testOptions(b)
	now := time.Now().Truncate(time.Hour)
	o.Now = func() time.Time { return now }
	d := openDB(b, o)
	batches := benchBatches(20_000)
	from := now.UnixMilli()
	for range 240 {
		for _, batch := range batches {
			stamp(batch, now.UnixMilli())
			mustAppend(b, d, batch)
		}
		now = now.Add(15 * time.Second)
	}
	run := func(b *testing.B, change func(*series.Request)) {
		b.ReportAllocs()
		for b.Loop() {
			r := request(team, from, now.UnixMilli())
			change(r)
			set := d.Select(b.Context(), r)
			n := 0
			for set.Next() {
				n++
			}
			if set.Err() != nil || n == 0 {
				b.Fatal(n, set.Err())
			}
			set.Close()
		}
	}
	b.Run("all", func(b *testing.B) { run(b, func(*series.Request) {}) })
	b.Run("skip chunks", func(b *testing.B) { run(b, func(r *series.Request) { r.SkipChunks = true }) })
	b.Run("one", func(b *testing.B) {
		run(b, func(r *series.Request) {
			r.Matchers = []*labels.Matcher{
				labels.MustNewMatcher(labels.MatchEqual, "__name__", "metric_7_total"),
				labels.MustNewMatcher(labels.MatchEqual, "pod", "app-3-7d9f8c6b5-x2x4z"),
			}
		})
	})
}
