package downsample

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/series"
)

// counted is how much a counter grew from its first sample up to and with that of t, by number.
type counted struct {
	t     int64
	grown float64
}

// truth is what a reader of raw samples counts: a value below the one before it is that of a counter that began at 0.
func truth(in []sample) (out []counted) {
	var last *sample
	grown := 0.0
	for i := range in {
		s := &in[i]
		if math.IsNaN(s.V) || s.FH != nil && value.IsStaleNaN(s.FH.Sum) {
			continue
		}
		if last != nil {
			reset := s.V < last.V
			if s.FH != nil {
				reset = s.FH.DetectReset(last.FH)
			}
			if grown += amount(*s); !reset {
				grown -= amount(*last)
			}
		}
		out = append(out, counted{s.T, grown})
		last = s
	}
	return out
}

func amount(s sample) float64 {
	if s.FH != nil {
		return s.FH.Count
	}
	return s.V
}

// at is what was counted up to t.
func at(in []counted, t int64) float64 {
	i, ok := slices.BinarySearchFunc(in, t, func(c counted, t int64) int { return int(c.t - t) })
	if !ok {
		i--
	}
	return in[i].grown
}

// asHearth are the totals that our reader sees.
func asHearth(t testing.TB, chunks []merge.Chunk, resolution int64) (out []counted) {
	r := &series.Reading{Pick: series.PickCounter, MinTime: math.MinInt64, MaxTime: math.MaxInt64, Resolution: resolution}
	it := r.Iterator(read(t, chunks), nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		var s sample
		if typ == chunkenc.ValFloat {
			s.T, s.V = it.At()
		} else {
			s.T, s.FH = it.AtFloatHistogram(nil)
		}
		out = append(out, counted{s.T, amount(s)})
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return out
}

// asThanos are those that Thanos's reader and Prometheus's engine behind it see: of floats, the totals, where a
// second value for a time is what the next one is compared with; of histograms, all values, and a reset wherever the
// engine detects one.
func asThanos(t testing.TB, chunks []merge.Chunk) (out []counted) {
	var last sample
	total, begun := 0.0, false
	for _, c := range read(t, chunks) {
		for _, s := range part(t, c.Aggr[series.Counter]) {
			switch {
			case !begun:
				total, begun = amount(s), true
			case s.FH == nil && s.T == last.T:
				last.V = s.V
				continue
			case s.T < last.T:
				t.Fatal("back in time")
			case s.FH == nil && s.V < last.V, s.FH != nil && s.FH.DetectReset(last.FH):
				total += amount(s)
			default:
				total += amount(s) - amount(last)
			}
			last = s
			out = append(out, counted{s.T, total})
		}
	}
	return out
}

// blocksOf downsamples parts of in, each as a block, and joins them.
func blocksOf(t testing.TB, in []sample, length int64) (five, hour []merge.Chunk) {
	for len(in) > 0 {
		end := start(in[0].T, length) + length
		n := slices.IndexFunc(in, func(s sample) bool { return s.T >= end })
		if n < 0 {
			n = len(in)
		}
		f, h := downsampled(t, in[:n])
		five, hour, in = append(five, f...), append(hour, h...), in[n:]
	}
	return five, hour
}

// checkCounters compares what both readers count up to each timestamp with the truth.
func checkCounters(t *testing.T, in []sample, five, hour []merge.Chunk) {
	t.Helper()
	want := truth(in)
	for resolution, chunks := range map[int64][]merge.Chunk{FiveMinutes: five, Hour: hour} {
		for reader, got := range map[string][]counted{
			"Hearth": asHearth(t, chunks, resolution), "Thanos": asThanos(t, chunks),
		} {
			for _, c := range got {
				truly := at(want, c.t) - at(want, got[0].t)
				if c.grown -= got[0].grown; math.Abs(c.grown-truly) > 1e-6*math.Abs(truly) {
					t.Fatalf("%s, windows of %d ms: counted %v up to %d, in truth %v", reader, resolution, c.grown, c.t, truly)
				}
				c.grown += got[0].grown
			}
			if last := got[len(got)-1].t; last != want[len(want)-1].t {
				t.Fatalf("%s: the last window is at %d, the last sample at %d", reader, last, want[len(want)-1].t)
			}
		}
	}
}

// TestCountersOfFloats: what a counter grew is seen up to each window, whatever was reset, over borders of windows,
// chunks and blocks.
func TestCountersOfFloats(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		in := randomFloats(rnd, 12*days)
		five, hour := blocksOf(t, in, []int64{2 * days, 14 * days, 40 * days}[rnd.IntN(3)])
		checkCounters(t, in, five, hour)
	}
}

// TestCountersOfHistograms is the same for histograms.
func TestCountersOfHistograms(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		in := randomHistograms(rnd, 7*days)
		five, hour := blocksOf(t, in, []int64{2 * days, 14 * days, 40 * days}[rnd.IntN(3)])
		checkCounters(t, in, five, hour)
	}
}

// TestResetsAtBorders: a counter that is reset once, at each sample near the borders of a window, a chunk, and a
// block, and to values that are above and below those before.
func TestResetsAtBorders(t *testing.T) {
	for _, border := range []int64{1 * hours, 10 * hours, 5 * days, 2 * days} {
		for n := int64(-4); n <= 4; n++ {
			for _, to := range []float64{0, 1, 30, 999} {
				var floats, hists []sample
				v := 1000.0
				for at := border - 30*hours; at < border+30*hours; at += 2 * minutes {
					if v += 20; at == border+n*2*minutes {
						v = to
					}
					floats = append(floats, sample{T: at, V: v})
					hists = append(hists, sample{T: at, FH: &histogram.FloatHistogram{Count: v, ZeroCount: v}})
				}
				for _, in := range [][]sample{floats, hists} {
					five, hour := blocksOf(t, in, 2*days)
					checkCounters(t, in, five, hour)
				}
			}
		}
	}
}

// randomHistograms are those of a counter that is reset at times, whose buckets become more, and then fewer and wider.
func randomHistograms(rnd *rand.Rand, length int64) (out []sample) {
	step := []int64{30 * second, 5 * minutes, 10 * minutes}[rnd.IntN(3)]
	h := fresh(rnd)
	from := rnd.Int64N(40*days) - 20*days
	for at := from; at < from+length; at += step {
		switch rnd.IntN(300) {
		case 0:
			at += rnd.Int64N(2 * days)
		case 1:
			out = append(out, sample{T: at, FH: &histogram.FloatHistogram{Sum: stale}})
			continue
		case 2:
			h = fresh(rnd)
		case 3:
			if h.Schema > -4 {
				if err := h.ReduceResolution(h.Schema - 1); err != nil {
					panic(err)
				}
			}
		case 4:
			wider := &histogram.FloatHistogram{Schema: h.Schema, ZeroThreshold: h.ZeroThreshold * 16}
			if _, _, _, err := h.Add(wider); err != nil {
				panic(err)
			}
		}
		for range rnd.IntN(4) {
			observe(h, rnd)
		}
		out = append(out, sample{T: at + rnd.Int64N(step/10), FH: h.Copy()})
	}
	return out
}

func fresh(rnd *rand.Rand) *histogram.FloatHistogram {
	return &histogram.FloatHistogram{Schema: int32(rnd.IntN(5)), ZeroThreshold: math.Ldexp(1, -20)}
}

// observe adds some observations to one bucket.
func observe(h *histogram.FloatHistogram, rnd *rand.Rand) {
	n, index := float64(1+rnd.IntN(9)), int32(rnd.NormFloat64()*8)
	one := &histogram.FloatHistogram{Schema: h.Schema, ZeroThreshold: h.ZeroThreshold, Count: n, Sum: n * float64(index)}
	spans, buckets := []histogram.Span{{Offset: index, Length: 1}}, []float64{n}
	if rnd.IntN(3) == 0 {
		one.NegativeSpans, one.NegativeBuckets = spans, buckets
	} else {
		one.PositiveSpans, one.PositiveBuckets = spans, buckets
	}
	if _, _, _, err := h.Add(one); err != nil {
		panic(err)
	}
}

// TestRandomHistograms: count and sum of each window are those of its histograms.
func TestRandomHistograms(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		in := randomHistograms(rnd, 4*days)
		five, hour := downsampled(t, in)
		for resolution, chunks := range map[int64][]merge.Chunk{FiveMinutes: five, Hour: hour} {
			got := joined(windows(t, chunks), resolution)
			want := joined(expected(in, resolution), resolution)
			if len(got) != len(want) {
				t.Fatalf("seed %d: %d windows, want %d", seed, len(got), len(want))
			}
			for i := range got {
				g, w := got[i].h, want[i].h
				if got[i].t != want[i].t || got[i].count != want[i].count || g.Count != w.Count || g.Sum != w.Sum {
					t.Fatalf("seed %d: window of %d ms %d is %v, want %v", seed, resolution, i, got[i], want[i])
				}
				// A chunk has one schema and one zero bucket: the coarsest ones.
				zero := &histogram.FloatHistogram{Schema: g.Schema, ZeroThreshold: g.ZeroThreshold}
				zero.CounterResetHint = w.CounterResetHint
				if _, _, _, err := w.Add(zero); err != nil || g.Schema > w.Schema {
					t.Fatal(err)
				}
				if !g.Copy().Compact(0).Equals(w.Compact(0)) {
					t.Fatalf("seed %d: window of %d ms %d is %v, want %v", seed, resolution, i, g, w)
				}
			}
		}
	}
}

// joined unites the parts of a window that was divided by a reset.
func joined(in []window, resolution int64) (out []window) {
	for _, w := range in {
		n := len(out)
		if n > 0 && start(out[n-1].t, resolution) == start(w.t, resolution) {
			out[n-1].t, out[n-1].count = w.t, out[n-1].count+w.count
			out[n-1].h = out[n-1].h.Copy()
			if _, _, _, err := out[n-1].h.Add(w.h); err != nil {
				panic(err)
			}
			continue
		}
		out = append(out, w)
	}
	return out
}
