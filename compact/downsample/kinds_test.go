package downsample

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/series"
)

// custom is a histogram of custom buckets.
func custom(n float64, bounds ...float64) *histogram.FloatHistogram {
	return &histogram.FloatHistogram{
		Schema: histogram.CustomBucketsSchema, Count: 2 * n, Sum: 5 * n, CustomValues: bounds,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []float64{n, n},
	}
}

// TestCustomBuckets: a chunk ends where the bounds change.
func TestCustomBuckets(t *testing.T) {
	var in []sample
	for i := range int64(120) {
		h := custom(float64(i+1), 1, 2.5, 7)
		if i >= 71 {
			h = custom(float64(i+1), 1, 2.5)
		}
		in = append(in, sample{T: i * minutes, FH: h})
	}
	five, hour := downsampled(t, in)
	checkCounters(t, in, five, hour)
	for resolution, chunks := range map[int64][]merge.Chunk{FiveMinutes: five, Hour: hour} {
		if len(chunks) != 2 {
			t.Fatalf("%d chunks", len(chunks))
		}
		got, want := windows(t, chunks), expected(in[:71], resolution)
		for i, w := range append(want, expected(in[71:], resolution)...) {
			if !got[i].same(w) {
				t.Errorf("windows of %d ms: %v, want %v", resolution, got[i], w)
			}
		}
	}
}

// TestGauges: histograms of a gauge go up and down, their counter has the last value, and all says that it is a gauge.
func TestGauges(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	var in []sample
	for i := range int64(600) {
		h := fresh(rnd)
		h.Schema = 2
		for range 1 + rnd.IntN(20) {
			observe(h, rnd)
		}
		if h.CounterResetHint = histogram.GaugeType; i >= 400 {
			h.CounterResetHint = histogram.UnknownCounterReset // the series becomes a counter
		}
		in = append(in, sample{T: i * 2 * minutes, FH: h})
	}
	five, hour := downsampled(t, in)
	for _, chunks := range [][]merge.Chunk{five, hour} {
		for _, c := range read(t, chunks) {
			gauge := c.MinTime < in[400].T
			for _, s := range part(t, c.Aggr[series.Counter]) {
				if (s.FH.CounterResetHint == histogram.GaugeType) != gauge {
					t.Fatalf("hint %d at %d", s.FH.CounterResetHint, s.T)
				}
				last := in[min(s.T/(2*minutes), int64(len(in))-1)]
				if gauge && !s.FH.Copy().Compact(0).Equals(last.FH.Copy().Compact(0)) {
					t.Fatalf("at %d: %v, want %v", s.T, s.FH, last.FH)
				}
			}
			for _, s := range part(t, c.Aggr[series.Sum]) {
				if s.FH.CounterResetHint != histogram.GaugeType {
					t.Fatalf("the sum at %d is no gauge", s.T)
				}
			}
		}
	}
	got := joined(windows(t, five), FiveMinutes)
	for i, w := range joined(expected(in, FiveMinutes), FiveMinutes) {
		if math.Abs(got[i].h.Sum-w.h.Sum) > 1e-9 || got[i].t != w.t || got[i].h.Count != w.h.Count {
			t.Fatalf("%v, want %v", got[i], w)
		}
	}
}

// TestIntegers: integer histograms become those of floats, with the same values.
func TestIntegers(t *testing.T) {
	var ints, floats []sample
	for i := range int64(300) {
		h := &histogram.Histogram{
			Count: uint64(2*i + 1), ZeroCount: 1, Sum: float64(3 * i),
			PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{2 * i},
		}
		ints = append(ints, sample{T: i * minutes, H: h})
		floats = append(floats, sample{T: i * minutes, FH: h.ToFloat(nil)})
	}
	five, _ := downsampled(t, ints)
	want, _ := downsampled(t, floats)
	for i := range want {
		if string(five[i].Data) != string(want[i].Data) {
			t.Fatal("integers make other chunks than floats")
		}
	}
}

// TestMixed: a series that changes between floats and histograms at each of some samples.
func TestMixed(t *testing.T) {
	rnd := rand.New(rand.NewPCG(10, 10))
	var in []sample
	floats := true
	for i := range int64(2000) {
		if rnd.IntN(20) == 0 {
			floats = !floats
		}
		s := sample{T: i * 40 * second, V: float64(i)}
		if !floats {
			s = sample{T: s.T, FH: &histogram.FloatHistogram{Count: s.V, ZeroCount: s.V}}
		}
		in = append(in, s)
	}
	five, hour := downsampled(t, in)
	for resolution, chunks := range map[int64][]merge.Chunk{FiveMinutes: five, Hour: hour} {
		got, want := windows(t, chunks), expected(in, resolution)
		if len(got) != len(want) {
			t.Fatalf("%d windows, want %d", len(got), len(want))
		}
		for i := range got {
			if w := &want[i]; resolution == Hour && got[i].t == start(w.t, FiveMinutes)+FiveMinutes-1 {
				w.t = got[i].t // of a divided hour, the end of the last five minutes
			}
			if !got[i].same(want[i]) {
				t.Fatalf("windows of %d ms: %v, want %v", resolution, got[i], want[i])
			}
		}
	}
}

// FuzzStage: whatever the chunks of a series are, they are refused, or downsampled to chunks that can be read and are
// in order.
func FuzzStage(f *testing.F) {
	rnd := rand.New(rand.NewPCG(11, 11))
	seed := func(in []sample) {
		raw := chunksOf(in)
		f.Add(raw[0].Encoding, raw[0].Data, raw[len(raw)-1].Encoding, raw[len(raw)-1].Data)
		five, err := run(FiveMinutes, raw)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(five[0].Encoding, five[0].Data, five[len(five)-1].Encoding, five[len(five)-1].Data)
	}
	seed(randomFloats(rnd, days))
	seed(randomHistograms(rnd, days))
	seed([]sample{{T: 1, FH: custom(2, 1, 2)}, {T: 500_000, FH: custom(3, 1, 3)}})
	f.Fuzz(func(t *testing.T, enc byte, data []byte, enc2 byte, data2 []byte) {
		var in []merge.Chunk
		at := int64(-farthest)
		for _, c := range []merge.Chunk{{Encoding: enc, Data: data}, {Encoding: enc2, Data: data2}} {
			c.MinTime, c.MaxTime = at, farthest
			in = append(in, c)
		}
		for _, resolution := range []int64{FiveMinutes, Hour} {
			out, err := run(resolution, in)
			if err != nil {
				continue
			}
			windows(t, out)
			if resolution == FiveMinutes {
				if _, err := run(Hour, out); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkStage downsamples 14 days of a series to both resolutions. ns/sample is per raw sample.
func BenchmarkStage(b *testing.B) {
	for name, step := range map[string]int64{"15s": 15 * second, "60s": minutes} {
		b.Run(name, func(b *testing.B) {
			rnd := rand.New(rand.NewPCG(12, 12))
			var in []sample
			v := 1e6
			for t := int64(0); t < 14*days; t += step {
				v += float64(rnd.IntN(100))
				in = append(in, sample{T: t + rnd.Int64N(3), V: v})
			}
			benchmark(b, chunksOf(in), len(in))
		})
	}
	b.Run("histograms", func(b *testing.B) {
		rnd := rand.New(rand.NewPCG(12, 12))
		var in []sample
		h := fresh(rnd)
		for t := int64(0); t < 2*days; t += 15 * second {
			observe(h, rnd)
			in = append(in, sample{T: t, FH: h.Copy()})
		}
		benchmark(b, chunksOf(in), len(in))
	})
}

// discard is a Sink that keeps nothing.
type discard struct{}

func (discard) Begin(merge.Symbols) error { return nil }
func (discard) Add(*merge.Series) error   { return nil }
func (discard) End() error                { return nil }

func benchmark(b *testing.B, in []merge.Chunk, samples int) {
	b.ReportAllocs()
	s := New(FiveMinutes, merge.Tee(discard{}, New(Hour, discard{})))
	if err := s.Begin(symbols{"__name__", "m"}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.Add(&merge.Series{Symbols: []uint32{0, 1}, Chunks: in}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
}
