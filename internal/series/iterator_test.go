package series_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

var stale = math.Float64frombits(value.StaleNaN)

// sampleAt is the sample it stands at.
func sampleAt(it chunkenc.Iterator, typ chunkenc.ValueType) (s sourcetest.Sample) {
	switch typ {
	case chunkenc.ValFloat:
		s.T, s.V = it.At()
	case chunkenc.ValHistogram:
		s.T, s.H = it.AtHistogram(nil)
	case chunkenc.ValFloatHistogram:
		s.T, s.FH = it.AtFloatHistogram(nil)
	}
	return s
}

func drain(t testing.TB, it chunkenc.Iterator) (out []sourcetest.Sample) {
	t.Helper()
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		s := sampleAt(it, typ)
		if s.T != it.AtT() {
			t.Fatalf("AtT %d, At %d", it.AtT(), s.T)
		}
		out = append(out, s)
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return out
}

// union is the chunks of all copies in order, as Merge makes them.
func union(size int, copies ...[]sourcetest.Sample) []series.Chunk {
	var sets []series.Set
	for i, c := range copies {
		sets = append(sets,
			series.List([]series.Series{{Labels: labels.FromStrings("a", "b"), Chunks: sourcetest.Encode(c, size+i)}}))
	}
	set := series.Merge(sets...)
	set.Next()
	return set.At().Chunks
}

func floats(pairs ...float64) (out []sourcetest.Sample) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, sourcetest.Sample{T: int64(pairs[i]), V: pairs[i+1]})
	}
	return out
}

func render(all []sourcetest.Sample) (out []string) {
	for _, s := range all {
		out = append(out, s.String())
	}
	return out
}

// TestIteratorConflicts: where values for one timestamp differ, the choice does not depend on the order of copies.
func TestIteratorConflicts(t *testing.T) {
	h, bigger := tsdbutil.GenerateTestHistogram(1), tsdbutil.GenerateTestHistogram(1)
	bigger.Count++
	bigger.ZeroCount++
	fh := tsdbutil.GenerateTestFloatHistogram(1)
	staleH := &histogram.Histogram{Sum: stale}
	one := func(s sourcetest.Sample) []sourcetest.Sample { s.T = 10; return []sourcetest.Sample{s} }
	f := func(loser, winner sourcetest.Sample) {
		t.Helper()
		for _, copies := range [][][]sourcetest.Sample{{one(loser), one(winner)}, {one(winner), one(loser)},
			{one(loser), one(winner), one(loser)}} {
			var chunks []series.Chunk
			for _, c := range copies { // in this order, not in Merge's
				chunks = append(chunks, sourcetest.Encode(c, 0)...)
			}
			got := drain(t, series.NewIterator(chunks, series.PickAvg))
			if len(got) != 1 || got[0].V != winner.V || (got[0].H != nil) != (winner.H != nil) ||
				(got[0].FH != nil) != (winner.FH != nil) {
				t.Errorf("got %s, want %s", got, winner)
			} else if winner.H != nil &&
				got[0].H.Count != winner.H.Count {
				t.Errorf("got count %d, want %d", got[0].H.Count, winner.H.Count)
			}
		}
	}
	f(sourcetest.Sample{V: 1}, sourcetest.Sample{V: 2})
	f(sourcetest.Sample{V: stale}, sourcetest.Sample{V: 1})
	f(sourcetest.Sample{V: stale}, sourcetest.Sample{V: math.Inf(-1)})
	f(sourcetest.Sample{V: 5}, sourcetest.Sample{V: -5}) // by bits
	f(sourcetest.Sample{V: 1}, sourcetest.Sample{H: h})
	f(sourcetest.Sample{V: stale}, sourcetest.Sample{H: h})
	f(sourcetest.Sample{H: staleH}, sourcetest.Sample{V: 1})
	f(sourcetest.Sample{H: h}, sourcetest.Sample{FH: fh})
	f(sourcetest.Sample{H: h}, sourcetest.Sample{H: bigger})
	f(sourcetest.Sample{H: staleH}, sourcetest.Sample{H: h})
}

// TestIteratorHints: a hint survives only where the sample it compares to came just before.
func TestIteratorHints(t *testing.T) {
	histograms := func(times ...int64) (out []sourcetest.Sample) {
		for _, at := range times {
			out = append(out, sourcetest.Sample{T: at, H: tsdbutil.GenerateTestHistogram(at)})
		}
		return out
	}
	f := func(want string, copies ...[]sourcetest.Sample) {
		t.Helper()
		got := ""
		for _, s := range drain(t, series.NewIterator(union(100, copies...), series.PickAvg)) {
			got += fmt.Sprintf("%d%s ", s.T,
				map[histogram.CounterResetHint]string{histogram.UnknownCounterReset: "?", histogram.NotCounterReset: "",
					histogram.GaugeType: "g"}[s.H.CounterResetHint])
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f("1? 2 3 ", histograms(1, 2, 3))
	f("1? 2 3 ", histograms(1, 2, 3), histograms(1, 2, 3))
	f("1? 2? 3? 4? ", histograms(1, 3), histograms(2, 4))
	f("1? 2 3? 4? 5 ", histograms(1, 2, 4, 5), histograms(2, 3))
	gauges := histograms(2, 4)
	for i := range gauges {
		gauges[i].H.CounterResetHint = histogram.GaugeType
	}
	f("1? 2g 3? 4g ", histograms(1, 3), gauges)
}

// randomCopies makes samples and three copies with losses, conflicts and stale markers, and what their union must be.
func randomCopies(r *rand.Rand) (copies [3][]sourcetest.Sample, want map[int64]float64) {
	want = map[int64]float64{}
	at := r.Int64N(1000) - 500
	for range r.IntN(400) {
		at += 1 + r.Int64N(30)*r.Int64N(3)
		v := float64(r.IntN(50))
		lost := r.IntN(8) // bits: which copies miss it
		if r.IntN(30) == 0 {
			at += 10_000
		}
		for c := range copies {
			if lost&(1<<c) != 0 {
				continue
			}
			mine := v
			switch r.IntN(25) {
			case 0:
				mine = stale
			case 1:
				mine = v + 1
			}
			copies[c] = append(copies[c], sourcetest.Sample{T: at, V: mine})
			old, found := want[at]
			if !found || value.IsStaleNaN(old) || !value.IsStaleNaN(mine) && mine > old {
				want[at] = mine
			}
		}
	}
	return copies, want
}

func expected(want map[int64]float64, mint, maxt int64) (out []sourcetest.Sample) {
	for _, at := range slices.Sorted(maps.Keys(want)) {
		if at >= mint && at <= maxt {
			out = append(out, sourcetest.Sample{T: at, V: want[at]})
		}
	}
	return out
}

// FuzzIterator compares the union with a map of all samples: read through, within bounds, and with seeks.
func FuzzIterator(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed)
	}
	var it series.Iterator // reused, as the engine does
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		copies, want := randomCopies(r)
		chunks := union(1+r.IntN(40), copies[:]...)
		it.Reset(chunks, series.PickAvg)
		if got, want := render(drain(t, &it)), render(
			expected(want, math.MinInt64, math.MaxInt64)); !slices.Equal(got, want) {
			t.Fatalf("got\n%q\nwant\n%q", got, want)
		}
		mint := r.Int64N(5000) - 500
		maxt := mint + r.Int64N(20_000)
		it.Reset(chunks, series.PickAvg)
		it.Bound(mint, maxt)
		if got, want := render(drain(t, &it)), render(expected(want, mint, maxt)); !slices.Equal(got, want) {
			t.Fatalf("within %d and %d: got\n%q\nwant\n%q", mint, maxt, got, want)
		}
		seeks(t, r, &it, chunks, expected(want, mint, maxt), mint, maxt)
	})
}

// seeks walks it and the expected samples alike, by Next and Seek in turn.
func seeks(
	t *testing.T,
	r *rand.Rand,
	it *series.Iterator,
	chunks []series.Chunk,
	want []sourcetest.Sample,
	mint, maxt int64,
) {
	it.Reset(chunks, series.PickAvg)
	it.Bound(mint, maxt)
	at := -1
	for at < len(want) {
		var typ chunkenc.ValueType
		if r.IntN(3) == 0 {
			to := mint + r.Int64N(2+maxt-mint)
			if at >= 0 {
				to = want[at].T + r.Int64N(500) - 50
			}
			typ = it.Seek(to)
			at = max(at, 0)
			for at < len(want) && want[at].T < to {
				at++
			}
		} else {
			typ = it.Next()
			at++
		}
		switch {
		case (typ == chunkenc.ValNone) != (at >= len(want)):
			t.Fatalf("value type %v at %d of %d", typ, at, len(want))
		case typ != chunkenc.ValNone && sampleAt(it, typ).String() != want[at].String():
			t.Fatalf("at %d: %s, want %s", at, sampleAt(it, typ), want[at])
		}
	}
	if it.Next() != chunkenc.ValNone || it.Seek(0) != chunkenc.ValNone {
		t.Fatal("goes on after its end")
	}
}

// FuzzChunks: broken bytes give an error, or samples, but neither a panic nor an endless loop.
func FuzzChunks(f *testing.F) {
	for _, s := range [][]sourcetest.Sample{floats(1, 2, 3, 4), {{T: 1, H: tsdbutil.GenerateTestHistogram(1)},
		{T: 2, H: tsdbutil.GenerateTestHistogram(2)}}, {{T: 1, FH: tsdbutil.GenerateTestFloatHistogram(1)}}} {
		c := sourcetest.Encode(s, 0)[0]
		f.Add(uint8(c.Raw.Encoding), c.Raw.Data)
		f.Add(uint8(c.Raw.Encoding), c.Raw.Data[:len(c.Raw.Data)/2])
	}
	f.Add(uint8(1), []byte{})
	f.Add(uint8(200), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, encoding uint8, data []byte) {
		if encoding != uint8(chunkenc.EncXOR) && encoding < 100 {
			return // the library's histogram decoders trust their bytes
		}
		raw := series.Chunk{MinTime: 0, MaxTime: 10, Raw: series.Encoded{Encoding: chunkenc.Encoding(encoding), Data: data}}
		good := sourcetest.Encode(floats(1, 1, 5, 5, 9, 9), 0)[0]
		it := series.NewIterator([]series.Chunk{raw, good}, series.PickAvg)
		for it.Next() != chunkenc.ValNone {
		}
	})
}

func TestIteratorErrors(t *testing.T) {
	for _, e := range []series.Encoded{{Encoding: chunkenc.EncXOR, Data: []byte{0}}, {Encoding: 99,
		Data: []byte{1, 2, 3, 4}}, {Encoding: chunkenc.EncXOR, Data: []byte{0, 9, 1}}} {
		it := series.NewIterator([]series.Chunk{{MinTime: 1, MaxTime: 2, Raw: e}}, series.PickAvg)
		if it.Next() != chunkenc.ValNone || it.Err() == nil || it.Next() != chunkenc.ValNone {
			t.Errorf("chunk %v: no error", e)
		}
	}
}

// BenchmarkUnionIterator reads 20,000 samples: one copy, three equal ones (whose chunks Merge drops), and three whose
// chunks have different boundaries.
func BenchmarkUnionIterator(b *testing.B) {
	var samples []sourcetest.Sample
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		samples = append(samples, sourcetest.Sample{T: int64(i) * 15_000, V: float64(r.IntN(1000))})
	}
	shifted := slices.Concat(sourcetest.Encode(samples, 120), sourcetest.Encode(samples, 117),
		sourcetest.Encode(samples, 113))
	slices.SortStableFunc(shifted, func(x, y series.Chunk) int { return int(x.MinTime - y.MinTime) })
	for _, c := range []struct {
		name   string
		chunks []series.Chunk
	}{{"one", sourcetest.Encode(samples, 120)}, {"three-shifted", shifted}} {
		b.Run(c.name, func(b *testing.B) {
			var it series.Iterator
			b.ReportAllocs()
			for b.Loop() {
				it.Reset(c.chunks, series.PickAvg)
				n := 0
				for it.Next() != chunkenc.ValNone { // what the engine asks of each sample
					it.AtST()
					it.At()
					n++
				}
				if n != len(samples) {
					b.Fatal(n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(samples)), "ns/sample")
		})
	}
}
