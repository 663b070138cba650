package downsample

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

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

// TestIntegers: integer histograms become those of floats, with the same values, whatever the counts do: chunks are
// the same bytes. The library reads those of floats, sample by sample.
func TestIntegers(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 14))
		var ints []sample
		at, h := rnd.Int64N(days), randomIntegers(rnd)
		for range 1500 {
			at += []int64{15 * second, 15 * second, 14*second + rnd.Int64N(2*second), 1 + rnd.Int64N(hours)}[rnd.IntN(4)]
			switch n := rnd.IntN(400); {
			case n == 0:
				h = randomIntegers(rnd)
			case n == 1:
				ints = append(ints, sample{T: at, H: &histogram.Histogram{Sum: stale}})
				continue
			case n == 2:
				h.CounterResetHint = histogram.GaugeType
			case n < 6:
				h.Sum = []float64{math.NaN(), math.Inf(1), math.Copysign(0, -1)}[rnd.IntN(3)]
			case n < 8: // beyond what is added up without a look at each sample
				h.ZeroCount, h.Count = h.ZeroCount+1<<44, h.Count+1<<44
			}
			for range rnd.IntN(3) {
				grow(h, rnd)
			}
			ints = append(ints, sample{T: at, H: h.Copy()})
		}
		raw := chunksOf(ints)
		for _, resolution := range []int64{FiveMinutes, Hour} {
			got, err := run(resolution, raw)
			if err != nil {
				t.Fatal(err)
			}
			want, err := run(resolution, floatsOf(t, raw))
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want) {
				t.Fatalf("seed %d: %d chunks, want %d", seed, len(got), len(want))
			}
			for i := range want {
				if string(got[i].Data) != string(want[i].Data) || got[i].MinTime != want[i].MinTime {
					t.Fatalf("seed %d: chunk %d: integers make other chunks than floats", seed, i)
				}
			}
			if resolution == FiveMinutes {
				hour, err := run(Hour, got)
				if err != nil {
					t.Fatal(err)
				}
				atOnce(t, raw, got, hour)
			}
		}
	}
}

// randomIntegers is a histogram of integers. Some of its buckets may be within the zero bucket.
func randomIntegers(rnd *rand.Rand) *histogram.Histogram {
	h := &histogram.Histogram{Schema: int32(rnd.IntN(12) - 4), ZeroThreshold: []float64{0, 1e-128, 0.3, 1}[rnd.IntN(4)],
		ZeroCount: rnd.Uint64N(3)}
	spans := func() (out []histogram.Span, deltas []int64) {
		for range rnd.IntN(3) {
			out = append(out, histogram.Span{Offset: int32(1 + rnd.IntN(4)), Length: uint32(1 + rnd.IntN(9))})
			deltas = append(deltas, make([]int64, out[len(out)-1].Length)...)
		}
		if len(out) > 0 {
			out[0].Offset -= 8
		}
		return out, deltas
	}
	h.PositiveSpans, h.PositiveBuckets = spans()
	h.NegativeSpans, h.NegativeBuckets = spans()
	h.Count = h.ZeroCount
	return h
}

// grow adds some observations to one bucket of h.
func grow(h *histogram.Histogram, rnd *rand.Rand) {
	n := rnd.IntN(len(h.PositiveBuckets) + len(h.NegativeBuckets) + 1)
	more := 1 + rnd.Int64N(30)
	h.Count += uint64(more)
	h.Sum += float64(more) * 0.37
	deltas := h.PositiveBuckets
	if n >= len(deltas) {
		n, deltas = n-len(deltas), h.NegativeBuckets
	}
	if n == len(deltas) {
		h.ZeroCount += uint64(more)
		return
	}
	if deltas[n] += more; n+1 < len(deltas) {
		deltas[n+1] -= more
	}
}

// floatsOf are chunks of integer histograms as those of floats, of the same samples each.
func floatsOf(t *testing.T, in []merge.Chunk) (out []merge.Chunk) {
	for _, c := range in {
		chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Encoding), c.Data)
		if err != nil {
			t.Fatal(err)
		}
		it := chunk.Iterator(nil)
		header := chunkenc.CounterResetHeader(c.Data[series.ResetFlags] & chunkenc.CounterResetHeaderMask)
		made, err := series.EncodeHistograms(func(yield func(int64, *histogram.FloatHistogram) bool) {
			for it.Next() != chunkenc.ValNone && yield(it.AtFloatHistogram(nil)) {
			}
		}, header)
		if err != nil {
			t.Fatal(err)
		}
		c.Encoding, c.Data = byte(made.Encoding), made.Data
		out = append(out, c)
	}
	return out
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
				hour, err := run(Hour, out)
				if err != nil {
					t.Fatal(err)
				}
				atOnce(t, in, out, hour)
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
	b.Run("integers", func(b *testing.B) {
		rnd := rand.New(rand.NewPCG(12, 12))
		var in []sample
		h := &histogram.Histogram{Schema: 3, ZeroThreshold: 1e-128, PositiveBuckets: make([]int64, 18),
			PositiveSpans: []histogram.Span{{Offset: -20, Length: 12}, {Offset: 3, Length: 6}}}
		for t := int64(0); t < 14*days; t += 15 * second {
			grow(h, rnd)
			in = append(in, sample{T: t, H: h.Copy()})
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
	s := NewWith(FiveMinutes, discard{}, New(Hour, discard{}))
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
