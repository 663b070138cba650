package query

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/compact/downsample"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

// blockChunks is a merge.Sink that keeps the chunks of one series.
type blockChunks []merge.Chunk

func (b *blockChunks) Begin(merge.Symbols) error { return nil }
func (b *blockChunks) End() error                { return nil }
func (b *blockChunks) Add(s *merge.Series) error {
	for _, c := range s.Chunks {
		c.Data = slices.Clone(c.Data)
		*b = append(*b, c)
	}
	return nil
}

type noSymbols struct{}

func (noSymbols) Len() int         { return 0 }
func (noSymbols) At(uint32) string { return "" }

// compacted are the chunks of the blocks that the compactor makes of samples, each of length ms, at resolution.
func compacted(t *testing.T, samples []sourcetest.Sample, length, resolution int64) (out []series.Chunk) {
	t.Helper()
	for from := samples[0].T / length * length; from <= samples[len(samples)-1].T; from += length {
		in := &merge.Series{}
		for _, c := range sourcetest.Encode(between(samples, from, from+length), 0) {
			in.Chunks = append(in.Chunks, merge.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime,
				Encoding: byte(c.Raw.Encoding), Data: c.Raw.Data})
		}
		made := new(blockChunks)
		var sink merge.Sink = made
		if resolution == hour {
			sink = downsample.New(hour, sink)
		}
		stage := downsample.New(5*minute, sink)
		if err := stage.Begin(noSymbols{}); err != nil {
			t.Fatal(err)
		}
		if err := stage.Add(in); err != nil {
			t.Fatal(err)
		}
		for _, c := range *made {
			aggr, err := series.DecodeAggregates(c.Data, series.EveryAggregate)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Aggr: aggr})
		}
	}
	return out
}

// TestCompactedBlocks: functions over the blocks that Hearth downsamples have the values that they have over raw
// samples. Those over whole windows are exact, increases except for a window at both ends, whatever was reset.
func TestCompactedBlocks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 6))
	for _, resolution := range []int64{5 * minute, hour} {
		for round := range 3 {
			var s tiers
			var resets []int64
			for range rnd.IntN(8) {
				resets = append(resets, since+rnd.Int64N(3*day))
			}
			away := [2]int64{since + rnd.Int64N(2*day), since + rnd.Int64N(3*day)}
			for name, samples := range map[string][]sourcetest.Sample{
				"g": gauge(rnd, since, since+3*day, true, away), "c": growing(rnd, since, since+3*day, resets...),
				"h": histograms(growing(rnd, since, since+3*day, resets...)),
			} {
				s.add(labels.FromStrings("__name__", name), samples, compacted(t, samples, 2*day, resolution)...)
			}
			q := s.open(t, DefaultOptions())
			for _, text := range []string{
				"count_over_time(g[6h])", "sum_over_time(g[6h])", "avg_over_time(g[6h])", "min_over_time(g[6h])",
				"max_over_time(g[6h])", "present_over_time(g[6h])", "absent_over_time(g[6h])", "sum(count_over_time(c[2h]))",
				"max_over_time(c[6h]) - min_over_time(c[6h])", "avg_over_time(c[2h] offset 3h)",
			} {
				want, _ := ranged(t, q, text, since+6*hour, since+3*day, hour, 0)
				got, warnings := ranged(t, q, text, since+6*hour, since+3*day, hour, time.Duration(resolution)*time.Millisecond)
				if len(warnings) > 0 {
					t.Errorf("%s: %q", text, warnings)
				}
				sameRanges(t, fmt.Sprintf("round %d, windows of %d ms, %s", round, resolution, text), got, want, 1e-9)
			}
			for _, text := range []string{
				"increase(c[6h])", "rate(c[6h])", "histogram_count(increase(h[6h]))", "histogram_sum(rate(h[6h]))",
				"histogram_quantile(0.5, rate(h[6h]))",
			} {
				want, _ := ranged(t, q, text, since+6*hour, since+3*day, 17*minute, 0)
				got, _ := ranged(t, q, text, since+6*hour, since+3*day, 17*minute, time.Duration(resolution)*time.Millisecond)
				most := 1.25 * float64(resolution) / float64(6*hour)
				for name, points := range want {
					for at, p := range points {
						g, ok := got[name][at]
						if off := math.Abs(g.F-p.F) / p.F; !ok || off > most {
							t.Fatalf("round %d, windows of %d ms, %s at %d: got %v (%v), want %v (resets %v)", round, resolution, text,
								at-since, g.F, ok, p.F, resets)
						}
					}
				}
			}
		}
	}
}

// TestRangesWithinWindows: a range that begins within a window has all of that window. So counts are exact for ranges
// that end where windows do, and one window off at most for others: at the last sample of a block 185 for 180.
func TestRangesWithinWindows(t *testing.T) {
	var samples []sourcetest.Sample
	for at := since; at < since+2*day; at += minute {
		samples = append(samples, sourcetest.Sample{T: at, V: 2})
	}
	var s tiers
	s.add(labels.FromStrings("__name__", "m"), samples, compacted(t, samples, 2*day, 5*minute)...)
	q := s.open(t, DefaultOptions())
	for text, of := range map[string]float64{"count_over_time(m[3h])": 1, "sum_over_time(m[3h])": 2} {
		from, to := since+2*day-hour, since+2*day-minute
		got, _ := ranged(t, q, text, from, to, minute, 5*time.Minute)
		raw, _ := ranged(t, q, text, from, to, minute, 0)
		for name, points := range raw {
			for at, p := range points {
				windows := got[name][at].F / of
				switch most := p.F / of; {
				case at%(5*minute) == 0 && windows != most, math.Abs(windows-most) > 5:
					t.Errorf("%s at %d before the end: %v samples, want %v", text, since+2*day-at, windows, most)
				case at == to && (most != 180 || windows != 185):
					t.Errorf("%s at the last sample: %v samples of %v", text, windows, most)
				}
			}
		}
	}
}
