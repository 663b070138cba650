package merge

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/hearth-metrics/hearth/internal/series"
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

// TestReplicaLabels compares the merge of HA replicas with what a query makes of them.
func TestReplicaLabels(t *testing.T) {
	r := random(7)
	var in []Input
	var chunksOf [2]map[string][]series.Chunk
	for i := range 2 {
		c := content{}
		for k := range 16 {
			for _, s := range randomSeries(r, k%numKinds, 0, hour, 30_000) {
				if s.t/600_000%3 != int64(i) || k == 1 { // each is away for ten minutes of thirty
					c[seriesLabels(k).String()] = append(c[seriesLabels(k).String()], s)
				}
			}
		}
		in = append(in, inputsOf(t, c)[0])
		in[i].Meta.Thanos.Labels = map[string]string{"replica": string(rune('a' + i))}
		chunksOf[i] = map[string][]series.Chunk{}
		_, metas := readBlock(t, string(in[i].files.(dirFiles)))
		for l, list := range metas {
			for _, m := range list {
				chunksOf[i][l] = append(chunksOf[i][l], series.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime,
					Raw: series.Encoded{Encoding: m.Chunk.Encoding(), Data: m.Chunk.Bytes()}})
			}
		}
	}
	want := content{}
	for l := range chunksOf[0] {
		it := series.NewDedupIterator([][]series.Chunk{chunksOf[0][l], chunksOf[1][l]},
			&series.Reading{MaxTime: hour})
		want[l] = decodeAll(t, it)
	}
	opts := Options{ReplicaLabels: []string{"replica"}}
	path, _, _ := mergeTo(t, in, opts, WriterOptions{})
	got, _ := readBlock(t, path)
	compare(t, got, want)
	other, _, _ := mergeTo(t, []Input{in[1], in[0]}, opts, WriterOptions{})
	if !bytes.Equal(blockBytes(t, path), blockBytes(t, other)) {
		t.Error("the order of inputs changes the result")
	}
	same, _, _ := mergeTo(t, in[:1], opts, WriterOptions{})
	alone, _, _ := mergeTo(t, in[:1], Options{}, WriterOptions{})
	if !bytes.Equal(blockBytes(t, same), blockBytes(t, alone)) {
		t.Error("one replica is not copied")
	}
}

// TestAsPrometheus compares with the compactor of Prometheus, samples with their counter reset hints.
func TestAsPrometheus(t *testing.T) {
	r := random(11)
	var dirs []string
	for i := range int64(3) {
		dirs = append(dirs, writeBlock(t, t.TempDir(), randomContent(r, 16, i*2*hour, (i+1)*2*hour, 60_000)))
	}
	c, err := tsdb.NewLeveledCompactor(context.Background(), nil, slog.New(slog.DiscardHandler), []int64{2 * hour},
		chunkenc.NewPool(), nil)
	check(t, err)
	dest := t.TempDir()
	ids, err := c.Compact(dest, dirs, nil)
	check(t, err)
	var in []Input
	for _, d := range dirs {
		in = append(in, inputOf(t, d))
	}
	path, _, _ := mergeTo(t, in, Options{}, WriterOptions{})
	want, wantMetas := readBlock(t, filepath.Join(dest, ids[0].String()))
	got, gotMetas := readBlock(t, path)
	compare(t, got, want)
	for l := range want {
		for i, m := range wantMetas[l] {
			g := gotMetas[l][i]
			if g.MinTime != m.MinTime || g.MaxTime != m.MaxTime || !slices.Equal(hints(t, g.Chunk), hints(t, m.Chunk)) {
				t.Errorf("%s: chunk %d differs", l, i)
			}
		}
	}
}

// hints are the counter reset hints of the samples of a chunk.
func hints(t *testing.T, c chunkenc.Chunk) (out []histogram.CounterResetHint) {
	for _, s := range decode(t, c) {
		switch {
		case s.h != nil:
			out = append(out, s.h.CounterResetHint)
		case s.fh != nil:
			out = append(out, s.fh.CounterResetHint)
		}
	}
	return out
}
