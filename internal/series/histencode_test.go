package series

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// byLibrary are the bytes of the library's appender for histograms of a gauge.
func byLibrary(t testing.TB, times []int64, points []*histogram.FloatHistogram) []byte {
	var chunk chunkenc.Chunk = chunkenc.NewFloatHistogramChunk()
	app, err := chunk.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range points {
		h = h.Copy()
		h.CounterResetHint = histogram.GaugeType
		next, recoded, a, err := app.AppendFloatHistogram(nil, 0, times[i], h, false)
		if err != nil || next != nil && !recoded {
			t.Fatal(err, recoded)
		}
		if app = a; next != nil {
			chunk = next
		}
	}
	return chunk.Bytes()
}

// sequence are histograms of one schema, whose buckets change now and then if they do at all.
func sequence(rnd *rand.Rand, n int, changes bool) (times []int64, out []*histogram.FloatHistogram) {
	h := &histogram.FloatHistogram{Schema: int32(rnd.IntN(13) - 4),
		ZeroThreshold: []float64{0, 1e-128, math.Ldexp(1, -128), 0.25, 4096, 3}[rnd.IntN(6)]}
	if rnd.IntN(4) == 0 {
		h.Schema, h.ZeroThreshold, h.CustomValues = histogram.CustomBucketsSchema, 0, []float64{0.1, 2.5, 1e9, 1e17 + 1}
	}
	spread := func() (spans []histogram.Span, buckets []float64) {
		for i := range rnd.IntN(3) {
			spans = append(spans, histogram.Span{Offset: int32(1 + i), Length: uint32(1 + rnd.IntN(1+rnd.IntN(40)))})
			buckets = append(buckets, make([]float64, spans[i].Length)...)
		}
		if len(spans) > 0 && h.CustomValues == nil {
			spans[0].Offset = int32(rnd.IntN(2000) - 1000)
		}
		return spans, buckets
	}
	layout := func() {
		if h.CustomValues != nil {
			n := 1 + rnd.IntN(5)
			h.PositiveSpans, h.PositiveBuckets = []histogram.Span{{Length: uint32(n)}}, make([]float64, n)
			return
		}
		h.PositiveSpans, h.PositiveBuckets = spread()
		h.NegativeSpans, h.NegativeBuckets = spread()
	}
	layout()
	at := rnd.Int64N(1<<42) - 1<<41
	for range n {
		if changes && rnd.IntN(20) == 0 {
			layout()
		}
		at += []int64{300_000, 300_000, 1 + rnd.Int64N(1<<rnd.IntN(40))}[rnd.IntN(3)]
		for _, buckets := range [][]float64{h.PositiveBuckets, h.NegativeBuckets} {
			for i := range buckets {
				switch rnd.IntN(4) {
				case 0:
					buckets[i] += float64(rnd.IntN(1000))
				case 1:
					buckets[i] = rnd.NormFloat64()
				}
			}
		}
		h.Count += float64(rnd.IntN(3))
		h.Sum = []float64{h.Sum + 0.1, math.NaN(), math.Inf(-1)}[max(rnd.IntN(20)-17, 0)]
		times, out = append(times, at), append(out, h.Copy())
	}
	if changes && rnd.IntN(4) == 0 { // nothing but stale markers may follow one
		times, out = append(times, at+1), append(out, &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)})
	}
	return times, out
}

// TestEncodeHistograms: the bytes are the library's, whether buckets change or not.
func TestEncodeHistograms(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for round := range 1500 {
		times, points := sequence(rnd, 1+rnd.IntN(130), round%2 == 0)
		want := byLibrary(t, times, points)
		got, err := EncodeHistograms(func(yield func(int64, *histogram.FloatHistogram) bool) {
			for i, h := range points {
				if !yield(times[i], h.Copy()) {
					return
				}
			}
		}, chunkenc.GaugeType)
		if err != nil || got.Encoding != chunkenc.EncFloatHistogram || !bytes.Equal(got.Data, want) {
			t.Fatalf("round %d: %d bytes, want %d: %v", round, len(got.Data), len(want), err)
		}
		counter, err := EncodeHistograms(func(yield func(int64, *histogram.FloatHistogram) bool) {
			_ = yield(times[0], points[0].Copy())
		}, chunkenc.CounterReset)
		if flags := counter.Data[ResetFlags]; err != nil || flags != byte(chunkenc.CounterReset) {
			t.Fatalf("round %d: flags %d: %v", round, flags, err)
		}
	}
	none, err := EncodeHistograms(func(func(int64, *histogram.FloatHistogram) bool) {}, chunkenc.GaugeType)
	if err != nil || none.Data != nil {
		t.Error(none, err)
	}
	_, err = EncodeHistograms(func(yield func(int64, *histogram.FloatHistogram) bool) {
		for i := range int64(2) {
			if !yield(i, &histogram.FloatHistogram{Schema: int32(i)}) {
				return
			}
		}
	}, chunkenc.GaugeType)
	if err == nil {
		t.Error("no error for two schemas")
	}
}

// BenchmarkEncodeHistograms makes a chunk of 120 histograms of 18 buckets.
func BenchmarkEncodeHistograms(b *testing.B) {
	h := &histogram.FloatHistogram{Schema: 3, ZeroThreshold: 1e-128, PositiveBuckets: make([]float64, 18),
		PositiveSpans: []histogram.Span{{Offset: -20, Length: 12}, {Offset: 3, Length: 6}}}
	rnd := rand.New(rand.NewPCG(2, 2))
	var points []*histogram.FloatHistogram
	var times []int64
	for i := range int64(120) {
		for j := range h.PositiveBuckets {
			h.PositiveBuckets[j] += float64(rnd.IntN(20))
		}
		points, times = append(points, h.Copy()), append(times, i*300_000)
	}
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := EncodeHistograms(func(yield func(int64, *histogram.FloatHistogram) bool) {
				for i, h := range points {
					if !yield(times[i], h) {
						return
					}
				}
			}, chunkenc.GaugeType)
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = byLibrary(b, times, slices.Clone(points))
		}
	})
}
