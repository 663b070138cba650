package store

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// manyMetas are the metas of n blocks of 2 h, of 50 tenants with two replicas each. As in a view, equal labels are
// one map.
func manyMetas(n int) map[ulid.ULID]*block.Meta {
	metas := make(map[ulid.ULID]*block.Meta, n)
	var shared [100]map[string]string
	for i := range shared {
		shared[i] = map[string]string{
			"tenant_id": fmt.Sprint("t", i%50), "receive_replica": fmt.Sprint("r", i/50%2),
		}
	}
	for i := range n {
		m := &block.Meta{}
		m.Version, m.ULID = 1, ulid.MustNew(uint64(1_700_000_000_000+i), bytes.NewReader(make([]byte, 10)))
		m.MinTime = int64(i/100) * 7_200_000
		m.MaxTime = m.MinTime + 7_200_000
		m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{m.ULID}
		m.Thanos.Labels = shared[i%100]
		m.Thanos.Files = []block.File{{RelPath: "chunks/000001", SizeBytes: 1 << 20}, {RelPath: "index", SizeBytes: 1 << 20}}
		metas[m.ULID] = m
	}
	return metas
}

// BenchmarkPlan is what a sync does beside looking at the bucket: when all blocks are new (with the memory that a block
// takes beside its meta), when nothing changed, and when three blocks came and one went.
func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		open := func(b *testing.B) *Gateway {
			opts := DefaultOptions()
			opts.Dir = b.TempDir()
			g, err := New(discard, nil, inMemory(b), opts)
			if err != nil {
				b.Fatal(err)
			}
			g.view = block.View{Metas: manyMetas(n)}
			return g
		}
		b.Run(fmt.Sprint("new/", n), func(b *testing.B) {
			b.ReportAllocs()
			var held uint64
			for b.Loop() {
				b.StopTimer()
				g := open(b)
				before := heap()
				b.StartTimer()
				g.plan()
				b.StopTimer()
				held = heap() - before
				if err := g.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(held)/float64(n), "heap-B/block")
		})
		b.Run(fmt.Sprint("again/", n), func(b *testing.B) {
			g := open(b)
			g.plan()
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				g.view.Metas = maps.Clone(g.view.Metas) // each look at the bucket makes a map
				b.StartTimer()
				g.plan()
			}
		})
		b.Run(fmt.Sprint("few/", n), func(b *testing.B) {
			g := open(b)
			g.plan()
			more := g.view.Select()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				g.view.Metas = maps.Clone(g.view.Metas)
				for j := range 3 {
					m := *more[(3*i+j)%n]
					m.ULID = ulid.MustNew(uint64(1_800_000_000_000+3*i+j), bytes.NewReader(make([]byte, 10)))
					m.Compaction.Sources = []ulid.ULID{m.ULID}
					g.view.Metas[m.ULID] = &m
				}
				delete(g.view.Metas, more[i%n].ULID)
				b.StartTimer()
				g.plan()
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkOpenHeader opens the index-header of a block of 20,000 series: cut out of the index in the bucket, and from
// local disk.
func BenchmarkOpenHeader(b *testing.B) {
	bkt := onDisk(b)
	var in []sourcetest.Series
	for i := range 20_000 {
		in = append(in, sourcetest.Series{
			Labels:  labels.FromStrings("__name__", fmt.Sprint("m", i%100), "instance", fmt.Sprintf("i%05d", i)),
			Samples: []sourcetest.Sample{{T: 1000, V: 1}},
		})
	}
	id := upload(b, bkt, makeBlock(b, in), ring(team, "r1"))
	g := opened(b, bkt)
	m, err := block.FetchMeta(b.Context(), bkt, id)
	if err != nil {
		b.Fatal(err)
	}
	for name, before := range map[string]func(){
		"bucket": func() { os.RemoveAll(g.opts.Dir) },
		"disk":   func() {},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				before()
				l := g.headers.of(m)
				if _, err := l.Header(b.Context()); err != nil {
					b.Fatal(err)
				}
				l.Close()
			}
		})
	}
}

// BenchmarkOpenAhead opens the index-headers of many blocks of 100 series ahead, from a bucket in memory, so that what
// is measured is the gateway and its local disk: for blocks whose samples are old, and whose headers are closed again.
func BenchmarkOpenAhead(b *testing.B) {
	const n = 100_000
	bkt := inMemory(b)
	var in []sourcetest.Series
	for i := range 100 {
		in = append(in, sourcetest.Series{
			Labels:  labels.FromStrings("__name__", fmt.Sprint("m", i%10), "instance", fmt.Sprintf("i%05d", i)),
			Samples: []sourcetest.Sample{{T: 1000, V: 1}},
		})
	}
	content, err := os.ReadFile(filepath.Join(makeBlock(b, in), block.IndexName))
	if err != nil {
		b.Fatal(err)
	}
	metas := manyMetas(n)
	for id, m := range metas {
		m.Thanos.Files[1].SizeBytes = int64(len(content))
		if err := bkt.Upload(b.Context(), block.Object(id, block.IndexName), bytes.NewReader(content)); err != nil {
			b.Fatal(err)
		}
	}
	ids := slices.Collect(maps.Keys(metas))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		opts := DefaultOptions()
		opts.Dir = b.TempDir()
		g, err := New(discard, nil, bkt, opts)
		if err != nil {
			b.Fatal(err)
		}
		g.view = block.View{Metas: metas}
		g.plan()
		before, cpu := heap(), cpuTime(b)
		b.StartTimer()
		g.openAll(b.Context(), ids)
		b.StopTimer()
		b.ReportMetric((cpuTime(b) - cpu).Seconds(), "cpu-s")
		b.ReportMetric(float64(int64(heap()-before))/n, "heap-B/block")
		for id, p := range g.current.planned {
			if !p.b.WasOpen() {
				b.Fatal("not opened:", id)
			}
		}
		if err := g.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(len(content)), "index-B")
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
