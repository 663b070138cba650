package downsample

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/series"
)

const (
	second  = 1000
	minutes = 60 * second
	hours   = 60 * minutes
	days    = 24 * hours
)

var stale = math.Float64frombits(value.StaleNaN)

// TestWindowsOfFloats: which windows a chunk has, and where it ends.
func TestWindowsOfFloats(t *testing.T) {
	f := func(name string, in []sample, want ...window) {
		t.Helper()
		five, _ := downsampled(t, in)
		got := windows(t, five)
		if len(got) != len(want) {
			t.Fatalf("%s: %v, want %v", name, got, want)
		}
		for i := range got {
			if !got[i].same(want[i]) {
				t.Errorf("%s: window %d is %v, want %v", name, i, got[i], want[i])
			}
		}
	}
	one := func(at int64, v float64) sample { return sample{T: at, V: v} }
	f("one sample", []sample{one(7, 3)}, window{t: 7, count: 1, sum: 3, min: 3, max: 3})
	f("two windows", []sample{one(1, 3), one(2, 5), one(300_000, -1)},
		window{t: 299_999, count: 2, sum: 8, min: 3, max: 5}, window{t: 300_000, count: 1, sum: -1, min: -1, max: -1})
	f("not a number", []sample{one(1, math.NaN()), one(2, 5), one(3, stale), one(600_001, stale)},
		window{t: 2, count: 1, sum: 5, min: 5, max: 5})
	f("nothing", []sample{one(1, math.NaN()), one(3, stale)})
	f("infinite", []sample{one(1, math.Inf(1)), one(2, math.Inf(1)), one(300_000, math.Inf(-1)), one(300_001, 4)},
		window{t: 299_999, count: 2, sum: math.Inf(1), min: math.Inf(1), max: math.Inf(1)},
		window{t: 300_001, count: 2, sum: math.Inf(-1), min: math.Inf(-1), max: 4})
	f("before 1970", []sample{one(-300_001, 1), one(-300_000, 2), one(-1, 3), one(0, 4)},
		window{t: -300_001, count: 1, sum: 1, min: 1, max: 1}, window{t: -1, count: 2, sum: 5, min: 2, max: 3},
		window{t: 0, count: 1, sum: 4, min: 4, max: 4})
	f("the border of chunks", []sample{one(10*hours-9, 1), one(10*hours-1, 2), one(10*hours, 3)},
		window{t: 10*hours - 1, count: 2, sum: 3, min: 1, max: 2}, window{t: 10 * hours, count: 1, sum: 3, min: 3, max: 3})
	h := &histogram.FloatHistogram{Count: 2, Sum: 3, ZeroCount: 2}
	f("another kind in a window", []sample{one(1, 1), {T: 5, FH: h}, {T: 9, FH: h}, one(11, 2)},
		window{t: 1, count: 1, sum: 1, min: 1, max: 1},
		window{t: 9, count: 2, h: &histogram.FloatHistogram{Count: 4, Sum: 6, ZeroCount: 4}},
		window{t: 11, count: 1, sum: 2, min: 2, max: 2})
}

// TestChunksOfFloats: chunks end at multiples of 10 hours and 5 days. The last window has the time of its end if the
// series goes on, the counter begins with the first raw value and ends with the last one.
func TestChunksOfFloats(t *testing.T) {
	var in []sample
	for at := int64(-7 * days); at < 8*days; at += 60_000 {
		v := float64(at+7*days) / 1000
		if at >= 1*days+1*hours {
			v -= float64(8*days+1*hours) / 1000 // a reset
		}
		in = append(in, sample{T: at + 17, V: v})
	}
	five, hour := downsampled(t, in)
	for _, r := range []struct {
		chunks []series.Chunk
		length int64
	}{{read(t, five), 10 * hours}, {read(t, hour), 5 * days}} {
		if len(r.chunks) != int(15*days/r.length)+1 && len(r.chunks) != int(15*days/r.length)+2 {
			t.Fatalf("%d chunks of %d ms", len(r.chunks), r.length)
		}
		for i, c := range r.chunks {
			from, last := start(c.MinTime, r.length), i == len(r.chunks)-1
			if !last && c.MaxTime != from+r.length-1 || last && c.MaxTime != in[len(in)-1].T {
				t.Errorf("chunk %d ends at %d", i, c.MaxTime)
			}
			counter := part(t, c.Aggr[series.Counter])
			first := slices.IndexFunc(in, func(s sample) bool { return s.T >= from })
			end := slices.IndexFunc(in, func(s sample) bool { return s.T >= from+r.length })
			if end < 0 {
				end = len(in)
			}
			if counter[0] != in[first] {
				t.Errorf("the counter of chunk %d begins with %v, the chunk with %v", i, counter[0], in[first])
			}
			n := len(counter)
			if counter[n-1].V != in[end-1].V || counter[n-1].T != counter[n-2].T || counter[n-1].T != c.MaxTime {
				t.Errorf("the counter of chunk %d ends with %v, the chunk with %v", i, counter[n-2:], in[end-1])
			}
			if grown := counter[n-2].V - counter[0].V; grown != float64(in[end-1].T-in[first].T)/1000 &&
				grown != float64(in[end-1].T-in[first].T)/1000-60 {
				t.Errorf("the counter of chunk %d grew by %v", i, grown)
			}
		}
	}
}

// expected are the windows of in, computed for each on its own. split = the samples are of several chunks of windows,
// whose histograms are not united.
func expected(in []sample, resolution int64) (out []window) {
	at := int64(math.MinInt64)
	for i, s := range in {
		if math.IsNaN(s.V) || s.FH != nil && value.IsStaleNaN(s.FH.Sum) {
			continue
		}
		next := int64(math.MaxInt64)
		for _, n := range in[i+1:] {
			if !math.IsNaN(n.V) && (n.FH == nil || !value.IsStaleNaN(n.FH.Sum)) {
				next = n.T
				break
			}
		}
		end := start(s.T, resolution) + resolution - 1
		if end != at || (s.FH != nil) != (out[len(out)-1].h != nil) {
			at = end
			out = append(out, window{min: math.Inf(1), max: math.Inf(-1)})
		}
		w := &out[len(out)-1]
		w.count++
		switch {
		case s.FH == nil:
			w.sum, w.min, w.max = w.sum+s.V, min(w.min, s.V), max(w.max, s.V)
		case w.h == nil:
			w.h = s.FH.Copy()
		default:
			w.h.Add(s.FH)
		}
		if w.t = end; next == math.MaxInt64 || next <= end {
			w.t = s.T
		}
	}
	return out
}

// TestRandomFloats: count, sum, minimum and maximum of each window are those of its samples, at both resolutions.
func TestRandomFloats(t *testing.T) {
	for seed := range uint64(15) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		in := randomFloats(rnd, 14*days)
		five, hour := downsampled(t, in)
		for resolution, got := range map[int64][]window{FiveMinutes: windows(t, five), Hour: windows(t, hour)} {
			want := expected(in, resolution)
			if len(got) != len(want) {
				t.Fatalf("seed %d: %d windows, want %d", seed, len(got), len(want))
			}
			for i := range got {
				if !got[i].same(want[i]) {
					t.Fatalf("seed %d: window of %d ms %d is %v, want %v", seed, resolution, i, got[i], want[i])
				}
			}
		}
	}
}

// randomFloats are samples at about a distance, with gaps, markers, and resets. Their sums are exact.
func randomFloats(rnd *rand.Rand, length int64) (out []sample) {
	step := []int64{15 * second, 30 * second, minutes, 10 * minutes}[rnd.IntN(4)]
	v := float64(rnd.IntN(1000))
	from := rnd.Int64N(40*days) - 20*days
	for at := from; at < from+length; at += step {
		switch rnd.IntN(400) {
		case 0:
			at += rnd.Int64N(3 * days)
		case 1:
			out = append(out, sample{T: at, V: stale})
			continue
		case 2:
			out = append(out, sample{T: at, V: math.NaN()})
			continue
		case 3:
			v = float64(rnd.IntN(10))
		}
		v += float64(rnd.IntN(64)) / 4
		out = append(out, sample{T: at + rnd.Int64N(step/10), V: v})
	}
	return out
}

// TestRefused: what no block should have is an error that names the series.
func TestRefused(t *testing.T) {
	f := func(name string, resolution int64, change func(c []merge.Chunk) []merge.Chunk) {
		t.Helper()
		in := change(chunksOf(randomFloats(rand.New(rand.NewPCG(1, 1)), 2*days)))
		_, err := run(resolution, in)
		if err == nil {
			t.Fatalf("%s: no error", name)
		}
		if want := `downsample {__name__="m"}`; !strings.Contains(err.Error(), want) && resolution != 7 {
			t.Fatalf("%s: %v, want %s", name, err, want)
		}
	}
	f("a resolution", 7, func(c []merge.Chunk) []merge.Chunk { return c })
	f("an encoding", FiveMinutes, func(c []merge.Chunk) []merge.Chunk { c[0].Encoding = 4; return c })
	f("aggregates as raw", FiveMinutes, func(c []merge.Chunk) []merge.Chunk { c[0].Encoding = 0xff; return c })
	f("not aggregates", Hour, func(c []merge.Chunk) []merge.Chunk { c[0].Encoding = 0xff; return c })
	f("cut off", FiveMinutes, func(c []merge.Chunk) []merge.Chunk { c[0].Data = c[0].Data[:20]; return c })
	f("empty", FiveMinutes, func(c []merge.Chunk) []merge.Chunk { c[0].Data = nil; return c })
	f("twice", FiveMinutes, func(c []merge.Chunk) []merge.Chunk { return append(c[:1:1], c[0]) })
	f("another time", FiveMinutes, func(c []merge.Chunk) []merge.Chunk { c[0].MaxTime = c[0].MinTime + 1; return c })
	f("far away", FiveMinutes, func(c []merge.Chunk) []merge.Chunk { c[0].MaxTime = math.MaxInt64; return c })
	f("a histogram", FiveMinutes, func(c []merge.Chunk) []merge.Chunk { c[0].Encoding = 2; return c })
}
