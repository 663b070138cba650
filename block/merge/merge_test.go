package merge

import (
	"context"
	"math/rand/v2"
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

const hour = 3600 * 1000

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func inputsOf(t testing.TB, contents ...content) []Input {
	t.Helper()
	var in []Input
	for _, c := range contents {
		in = append(in, inputOf(t, writeBlock(t, t.TempDir(), c)))
	}
	return in
}

// cases are the inputs of a merge, each by name.
func cases(r *rand.Rand) map[string][]content {
	disjoint := make([]content, 0, 3)
	for i := range int64(3) {
		disjoint = append(disjoint, randomContent(r, 16, i*2*hour, (i+1)*2*hour, 30_000))
	}
	one := randomContent(r, 16, 0, 2*hour, 30_000)
	return map[string][]content{
		"one":                  {one},
		"disjoint":             disjoint,
		"identical":            {one, one, one},
		"replicas with gaps":   {one.gaps(r, 20), one.gaps(r, 20), one.gaps(r, 20)},
		"replicas, rare gaps":  {one.gaps(r, 2000), one.gaps(r, 2000), one},
		"different samples":    {one, randomContent(r, 24, 0, 2*hour, 30_000)},
		"late":                 append(slices.Clone(disjoint), randomContent(r, 12, hour, 4*hour, 90_000)),
		"other series":         {randomContent(r, 8, 0, hour, 30_000), randomContent(r, 24, 0, hour, 30_000)},
		"one sample for each":  {randomContent(r, 40, 0, 15_000, 15_000), randomContent(r, 40, 15_000, 30_000, 15_000)},
		"a block in a block":   {one, randomContent(r, 16, hour, hour+10*60_000, 15_000)},
		"everything at a time": append(disjoint, one, one.gaps(r, 3)),
	}
}

// TestRun compares merged blocks with the union of what Prometheus reads in the inputs.
func TestRun(t *testing.T) {
	for name, contents := range cases(random(1)) {
		t.Run(name, func(t *testing.T) {
			in := inputsOf(t, contents...)
			path, res, w := mergeTo(t, in, Options{}, WriterOptions{})
			var read []content
			for _, i := range in {
				c, _ := readBlock(t, string(i.files.(dirFiles)))
				read = append(read, c)
			}
			got, metas := readBlock(t, path)
			compare(t, got, unionOf(read...))
			checkWritten(t, w, res, got, metas)
			checkIndex(t, path)
		})
	}
}

func checkWritten(t *testing.T, w Written, res Result, c content, metas map[string][]chunks.Meta) {
	t.Helper()
	var want Written
	want.MinTime = 1 << 60
	for l, samples := range c {
		want.Stats.NumSeries++
		want.Stats.NumSamples += uint64(len(samples))
		want.Stats.NumChunks += uint64(len(metas[l]))
		for _, s := range samples {
			if s.Type() == chunkenc.ValFloat {
				want.Stats.NumFloatSamples++
			} else {
				want.Stats.NumHistogramSamples++
			}
			want.MinTime, want.MaxTime = min(want.MinTime, s.t), max(want.MaxTime, s.t)
		}
		for i, m := range metas[l] {
			n := m.Chunk.NumSamples()
			if n == 0 || i > 0 && m.MinTime <= metas[l][i-1].MaxTime {
				t.Fatalf("%s: chunk %d of %d samples from %d", l, i, n, m.MinTime)
			}
		}
	}
	if w.Stats != want.Stats || w.MinTime != want.MinTime || w.MaxTime != want.MaxTime {
		t.Errorf("written %+v, want %+v", w, want)
	}
	if uint64(res.Series) != want.Stats.NumSeries || uint64(res.Chunks) != want.Stats.NumChunks {
		t.Errorf("result %+v", res)
	}
}

// checkIndex compares the index with the one that Prometheus writes for the same series.
func checkIndex(t *testing.T, dir string) {
	t.Helper()
	ctx := context.Background()
	path := filepath.Join(dir, "index")
	r, err := index.NewFileReader(path, index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	other := filepath.Join(t.TempDir(), "index")
	w, err := index.NewWriter(ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	symbols := map[string]bool{}
	for it := r.Symbols(); it.Next(); {
		symbols[it.At()] = true
		if err := w.AddSymbol(it.At()); err != nil {
			t.Fatal(err)
		}
	}
	k, v := index.AllPostingsKey()
	all, err := r.Postings(ctx, k, v)
	if err != nil {
		t.Fatal(err)
	}
	var b labels.ScratchBuilder
	var metas []chunks.Meta
	for n := storage.SeriesRef(0); all.Next(); n++ {
		if err := r.Series(all.At(), &b, &metas); err != nil {
			t.Fatal(err)
		}
		b.Labels().Range(func(l labels.Label) {
			delete(symbols, l.Name)
			delete(symbols, l.Value)
		})
		if err := w.AddSeries(n, b.Labels(), metas...); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if len(symbols) > 0 {
		t.Errorf("symbols that no series has: %v", symbols)
	}
	got, err1 := os.ReadFile(path)
	want, err2 := os.ReadFile(other)
	if err1 != nil || err2 != nil || !slices.Equal(got, want) {
		t.Fatalf("the index differs from Prometheus's: %d bytes, want %d (%v, %v)", len(got), len(want), err1, err2)
	}
}
