package store

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
)

// fleet are n series as Kubernetes names them, n/1000 of each metric, with the given number of chunks of 120 samples
// each 30 s.
func fleet(t testing.TB, n, perSeries int) (out []rawSeries) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 1))
	ready := make([]chunks.Meta, perSeries)
	for i := range ready {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		if err != nil {
			t.Fatal(err)
		}
		from := int64(i) * 120 * 30_000
		v := 0.0
		for k := range int64(120) {
			v += math.Floor(rnd.ExpFloat64() * 100)
			app.Append(0, from+k*30_000, v)
		}
		ready[i] = chunks.Meta{MinTime: from, MaxTime: from + 119*30_000, Chunk: c}
	}
	for i := range n {
		pod := i % 1000
		ls := labels.FromStrings("__name__", fmt.Sprintf("container_metric_%04d_total", i/1000), "cluster", "eu-west-1",
			"container", fmt.Sprintf("app-%d", pod%7), "instance", fmt.Sprintf("10.0.%d.%d:9100", pod/250, pod%250),
			"job", fmt.Sprintf("job-%d", pod%13), "namespace", fmt.Sprintf("namespace-%d", pod%500),
			"node", fmt.Sprintf("node-%d", pod%100), "pod", fmt.Sprintf("app-%d-5d6f7c8b9-%05d", pod%7, pod))
		out = append(out, rawSeries{ls, ready})
	}
	return out
}

// BenchmarkWarm reads 100,000 series of two hours, whose index was read before.
func BenchmarkWarm(b *testing.B) {
	for name, bucket := range map[string]string{"memory": "memory", "disk": "disk"} {
		b.Run(name, func(b *testing.B) {
			bkt := onDisk(b)
			if bucket == "memory" {
				bkt = inMemory(b)
			}
			in := fleet(b, 100_000, 2)
			upload(b, bkt, writeBlock(b, in), ring(team, "r1"), func(m *block.Meta) {
				m.Thanos.IndexStats = block.IndexStats{SeriesMaxSize: 256, ChunkMaxSize: 512}
			})
			g := opened(b, bkt)
			b.ReportAllocs()
			for b.Loop() {
				set := g.Select(b.Context(), ask(team, 0, 2*3600_000, match(labels.MatchEqual, "cluster", "eu-west-1")))
				if n := drain(set); n != len(in) || set.Err() != nil {
					b.Fatal(n, set.Err())
				}
			}
		})
	}
}

// drain reads a set to its end and closes it.
func drain(set series.Set) (n int) {
	defer set.Close()
	for set.Next() {
		n++
	}
	return n
}

// countingBucket counts range reads and their bytes.
type countingBucket struct {
	objstore.Bucket
	reads, bytes atomic.Int64
}

func (b *countingBucket) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	b.reads.Add(1)
	b.bytes.Add(n)
	return b.Bucket.GetRange(ctx, name, off, n)
}

// TestReadsLittle selects a few of 5,000 series of 14 days with nothing in memory. There is one read for each entry,
// one for the chunks of each series, and one for each matcher. Where they lie far from each other, what is read of
// series and chunks is at most three times what these have. Where they lie nearer, what is between them may be read, up
// to a bound, and then there are fewer reads.
func TestReadsLittle(t *testing.T) {
	const perSeries = 84
	bkt := &countingBucket{Bucket: inMemory(t)}
	all := fleet(t, 5000, perSeries)
	dir := writeBlock(t, all)
	stats, err := block.Measure(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	upload(t, bkt, dir, ring(team, "r1"), func(m *block.Meta) { m.Thanos.IndexStats = stats.IndexStats })
	g := opened(t, bkt)
	if _, _, err := g.LabelNames(t.Context(), ask(team, 0, math.MaxInt64)); err != nil { // opens the index-header
		t.Fatal(err)
	}
	f := func(series, fewer int, between int64, ms ...*labels.Matcher) {
		t.Helper()
		bkt.reads.Store(0)
		bkt.bytes.Store(0)
		if n := drain(g.Select(t.Context(), ask(team, 0, math.MaxInt64, ms...))); n != series {
			t.Fatalf("%v: %d series, want %d", ms, n, series)
		}
		need := int64(series) * 5 * perSeries // of the entry: a chunk takes at least 5 bytes
		for _, c := range all[0].chunks {
			need += int64(series) * int64(len(c.Chunk.Bytes())+chunks.ChunkEncodingSize)
		}
		t.Logf("%v: %d reads of %d bytes, needs %d", ms, bkt.reads.Load(), bkt.bytes.Load(), need)
		most := 3*need + between + 128<<10*int64(len(ms)) // of postings
		if reads, bytes := bkt.reads.Load(), bkt.bytes.Load(); bytes > most || reads > int64(2*series-fewer+len(ms)) {
			t.Errorf("%v: %d reads of %d bytes; %d series of %d", ms, reads, bytes, series, need)
		}
	}
	f(5, 0, 0, match(labels.MatchEqual, "pod", "app-0-5d6f7c8b9-00007"))
	f(10, 9, 6<<20, match(labels.MatchEqual, "namespace", "namespace-8"))
	f(2, 1, 1<<20, match(labels.MatchEqual, "namespace", "namespace-9"), match(labels.MatchNotEqual, "pod", ""),
		match(labels.MatchNotRegexp, "job", "job-1|job-20"),
		match(labels.MatchEqual, "__name__", "container_metric_0003_total"))
}
