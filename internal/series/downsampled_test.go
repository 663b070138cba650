package series_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// asHistograms are histograms that count as many observations as s.
func asHistograms(s stream) (out stream) {
	for _, p := range s {
		n := math.Floor(p.V)
		out = append(out, sourcetest.Sample{T: p.T, FH: &histogram.FloatHistogram{
			Schema:          1,
			Count:           n,
			Sum:             2 * n,
			PositiveSpans:   []histogram.Span{{Offset: 1, Length: 1}},
			PositiveBuckets: []float64{n},
		}})
	}
	return out
}

// counts are the samples of s as numbers.
func (s stream) counts() (out stream) {
	for _, p := range s {
		if p.FH != nil {
			p.V = p.FH.Count
		}
		out = append(out, p)
	}
	return out
}

// TestDedupDownsampled: a pair of downsampled counters, of which each is away at times and has bases of its own after
// resets that its chunks left out, never goes back, and counts what was counted.
func TestDedupDownsampled(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	const hours = 3_600_000
	for round := range 8 {
		resets := []int64{5*hours + rnd.Int64N(20*hours), 40*hours + rnd.Int64N(20*hours)}
		v := 1e6
		var copies [2]stream
		truth := 0.0
		away := [2]int64{rnd.Int64N(20 * hours), 30*hours + rnd.Int64N(30*hours)}
		for at := int64(10_000); at < 72*hours; at += 30_000 {
			grown := float64(20 + rnd.IntN(21))
			v += grown
			for _, r := range resets {
				if at-30_000 < r && r <= at {
					v = grown
				}
			}
			truth += grown
			for i := range copies {
				if at < away[i] || at > away[i]+8*hours {
					copies[i] = append(copies[i], sourcetest.Sample{T: at + int64(i)*7_000, V: v})
				}
			}
		}
		for _, convert := range []func(stream) stream{func(s stream) stream { return s }, asHistograms} {
			var in []series.Series
			for i, c := range copies {
				in = append(in, series.Series{
					Labels: labels.FromStrings("__name__", "x", "replica", string(rune('a'+i))),
					Chunks: sourcetest.Downsample(convert(c), series.FiveMinutes, 400+rnd.IntN(400)),
				})
			}
			set := series.Dedup(series.List(in),
				series.DedupOptions{ReplicaLabels: []string{"replica"}, Reading: &series.Reading{
					Pick: series.PickCounter, MaxTime: 1e12, Resolution: series.FiveMinutes,
				}})
			if !set.Next() {
				t.Fatal("no series")
			}
			got := stream(drain(t, set.At().Iterator(nil))).counts()
			if n := got.drops(); n > 0 {
				t.Errorf("round %d: goes back %d times", round, n)
			}
			if off := math.Abs(got.increase()-truth) / truth; off > 0.02 {
				t.Errorf("round %d: increase %v, want %v", round, got.increase(), truth)
			}
			for i := 1; i < len(got); i++ {
				if got[i].T-got[i-1].T > 3*series.FiveMinutes {
					t.Errorf("round %d: nothing from %d to %d", round, got[i-1].T, got[i].T)
				}
			}
		}
	}
}

// TestStretches: where a reader looks back further than samples are good for, each stretch ends by a stale marker,
// also after a seek, and nowhere within a stretch.
func TestStretches(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	const lookback = 300_000
	for range 200 {
		var raw []sourcetest.Sample
		at := int64(10_000_000)
		for range 300 {
			at += 15_000
			if rnd.IntN(40) == 0 {
				at += rnd.Int64N(3_600_000)
			}
			s := sourcetest.Sample{T: at, V: float64(at)}
			if rnd.IntN(60) == 0 {
				s.V = math.Float64frombits(value.StaleNaN)
			}
			raw = append(raw, s)
		}
		// What an instant has, without markers: the last sample of the look-back, if that is no marker.
		instant := func(samples []sourcetest.Sample, at, lookback int64) (v float64) {
			for _, s := range samples {
				if s.T <= at && s.T > at-lookback {
					v = s.V
				}
			}
			if value.IsStaleNaN(v) {
				return 0
			}
			return v
		}
		r := &series.Reading{MaxTime: 1e12, Resolution: series.Hour, Lookback: lookback}
		marked := drain(t, r.Iterator(sourcetest.Encode(raw, 30), nil))
		wide := series.Widened(lookback, series.Hour)
		for range 50 {
			at := raw[0].T + rnd.Int64N(at-raw[0].T+2*wide)
			want := instant(raw, at, lookback)
			if got := instant(marked, at, wide); got != want {
				t.Fatalf("at %d: %v, want %v", at, got, want)
			}
			it := r.Iterator(sourcetest.Encode(raw, 30), nil)
			var seen []sourcetest.Sample
			for typ := it.Seek(at - wide + 1); typ != 0 && it.AtT() <= at; typ = it.Next() {
				at, v := it.At()
				seen = append(seen, sourcetest.Sample{T: at, V: v})
			}
			if got := instant(seen, at, wide); got != want {
				t.Fatalf("at %d after a seek: %v, want %v", at, got, want)
			}
		}
	}
}

// FuzzDownsampled: whatever a downsampled chunk has in it, every reading of it ends, in order, without a panic.
func FuzzDownsampled(f *testing.F) {
	var samples []sourcetest.Sample
	for i := range 300 {
		samples = append(samples, sourcetest.Sample{T: int64(i) * 60_000, V: float64(i)})
	}
	c := sourcetest.Downsample(samples, series.FiveMinutes, 300)[0]
	f.Add(c.Aggr[series.Count].Data, c.Aggr[series.Counter].Data, int64(0), int64(60_000), false)
	h := sourcetest.Downsample(asHistograms(samples), series.FiveMinutes, 300)[0]
	f.Add(h.Aggr[series.Count].Data, h.Aggr[series.Counter].Data, int64(-5), int64(1e15), true)
	f.Fuzz(func(t *testing.T, count, data []byte, from, to int64, histograms bool) {
		enc := c.Aggr[series.Counter].Encoding
		if histograms {
			enc = h.Aggr[series.Counter].Encoding
		}
		one := series.Chunk{MinTime: from, MaxTime: to, Aggr: &series.AggrChunks{
			series.Count: {Encoding: c.Aggr[series.Count].Encoding, Data: count}, series.Sum: {Encoding: enc, Data: data},
			series.Counter: {Encoding: enc, Data: data},
		}}
		chunks := append([]series.Chunk{one}, sourcetest.Encode(samples[100:], 0)...)
		for pick := series.PickAvg; pick <= series.PickCounter; pick++ {
			r := &series.Reading{Pick: pick, MaxTime: math.MaxInt64, Resolution: series.Hour, Lookback: 300_000}
			it := r.Iterator(chunks, nil)
			last := int64(math.MinInt64)
			for n := 0; it.Next() != 0; n++ {
				if it.AtT() < last || n > 1<<20 {
					t.Fatalf("sample %d: %d after %d", n, it.AtT(), last)
				}
				last = it.AtT()
			}
		}
	})
}
