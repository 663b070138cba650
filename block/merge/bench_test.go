package merge

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// benchBlock is a block of series of twelve labels with 480 samples each, in chunks of 120, the first one of first.
func benchBlock(b *testing.B, id byte, series int, from int64, first int, missing int) Input {
	all := make([]rawSeries, series)
	for i := range all {
		l := []string{"__name__", fmt.Sprintf("requests_%06d_total", i)}
		for k := range 11 {
			l = append(l, fmt.Sprintf("label_%02d", k), fmt.Sprintf("value-%d-%d", k, i%(k*k+2)))
		}
		all[i].labels = l
		var samples []sample
		for k := range 480 {
			if missing == 0 || (k*7+i+int(id)*11)%missing != 0 {
				samples = append(samples, sample{t: from + int64(k)*15_000, v: float64(k * (i%9 + 1))})
			}
		}
		for n := first; len(samples) > 0; n = 120 {
			n = min(n, len(samples))
			all[i].chunks = append(all[i].chunks, chunkOf(b, chunkenc.EncXOR, samples[:n]...))
			samples = samples[n:]
		}
	}
	return rawBlock(b, id, from, from+2*hour, all...)
}

// BenchmarkRun merges blocks of 2,000 series and 480 samples.
func BenchmarkRun(b *testing.B) {
	const series = 2000
	f := func(name string, in ...Input) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var res Result
			for b.Loop() {
				dir := b.TempDir()
				w := NewBlockWriter(filepath.Join(dir, "x"), WriterOptions{})
				var err error
				if res, err = Run(context.Background(), in, w, Options{Scratch: dir}); err != nil {
					b.Fatal(err)
				}
				check(b, w.Close())
				check(b, os.RemoveAll(filepath.Join(dir, "x")))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(res.Chunks), "ns/chunk")
			b.ReportMetric(float64(res.Decoded)/float64(res.Chunks), "decoded/chunk")
		})
	}
	block := func(id byte, from int64, first, missing int) Input {
		return benchBlock(b, id, series, from, first, missing)
	}
	f("disjoint", block(1, 0, 120, 0), block(2, 2*hour, 120, 0), block(3, 4*hour, 120, 0), block(4, 6*hour, 120, 0))
	f("identical replicas", block(1, 0, 120, 0), block(2, 0, 120, 0), block(3, 0, 120, 0))
	f("other borders", block(1, 0, 120, 0), block(2, 0, 83, 0), block(3, 0, 46, 0))
	f("gaps", block(1, 0, 120, 50), block(2, 0, 120, 50), block(3, 0, 120, 50))
}

// BenchmarkIndex writes the index of 50,000 series of twelve labels, by the own writer and by Prometheus's.
func BenchmarkIndex(b *testing.B) {
	const series = 50_000
	all := make([]rawSeries, series)
	for i := range all {
		all[i].labels = []string{"__name__", fmt.Sprintf("requests_%06d_total", i/50)}
		for k := range 10 {
			all[i].labels = append(all[i].labels, fmt.Sprintf("label_%02d", k), fmt.Sprintf("value-%d-%d", k, i%(k*k+2)))
		}
		all[i].labels = append(all[i].labels, "pod", fmt.Sprintf("pod-%06d", i))
	}
	table, numbers := tableOf(all)
	symbols, ls := make([][]uint32, series), make([]labels.Labels, series)
	for i, s := range all {
		for _, l := range s.labels {
			symbols[i] = append(symbols[i], numbers[l])
		}
		ls[i] = labels.FromStrings(s.labels...)
	}
	slices.SortFunc(symbols, slices.Compare)
	slices.SortFunc(ls, labels.Compare)
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w, err := newIndexWriter(b.TempDir(), table, DefaultMemory)
			check(b, err)
			x := Series{Chunks: []Chunk{{MinTime: 1, MaxTime: 2}}}
			for i := range symbols {
				x.Symbols = symbols[i]
				check(b, w.add(&x, []uint64{uint64(8 + i*100)}))
			}
			f, err := scratchFile(b.TempDir())
			check(b, err)
			check(b, w.finish(f))
			f.Close()
			w.close()
		}
	})
	b.Run("prometheus", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w, err := index.NewWriter(context.Background(), filepath.Join(b.TempDir(), "index"))
			check(b, err)
			for _, s := range table {
				check(b, w.AddSymbol(s))
			}
			for i, l := range ls {
				check(b, w.AddSeries(storage.SeriesRef(i), l, chunks.Meta{MinTime: 1, MaxTime: 2, Ref: chunks.ChunkRef(8 + i*100)}))
			}
			check(b, w.Close())
		}
	})
}
