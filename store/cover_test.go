package store

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
)

func TestCover(t *testing.T) {
	f := func(limit int64, spans []extent, want string) {
		t.Helper()
		if got := fmt.Sprint(cover(spans, limit, limit)); got != want {
			t.Fatalf("limit %d: %s, want %s", limit, got, want)
		}
	}
	raw, five, hour := int64(0), int64(300), int64(3600)
	whole := []extent{{0, raw, 0, 100}, {0, five, 0, 100}, {0, hour, 0, 50}}
	f(raw, whole, "[[{0 100}] [] []]")
	f(five, whole, "[[] [{0 100}] []]")
	f(hour, whole, "[[] [{50 100}] [{0 50}]]")
	f(hour-1, whole, "[[] [{0 100}] []]")
	// Raw blocks reach further than the downsampled one.
	f(hour, []extent{{0, raw, 0, 60}, {0, raw, 60, 120}, {0, five, 20, 80}}, "[[{0 20}] [{80 120}] [{20 80}]]")
	// Overlapping blocks of one resolution all count.
	f(hour, []extent{{0, five, 0, 60}, {0, five, 30, 90}}, "[[{0 60}] [{30 90}]]")
	// A gap stays a gap.
	f(hour, []extent{{0, five, 0, 10}, {0, five, 20, 30}}, "[[{0 10}] [{20 30}]]")
	// Replicas agree on a resolution where they can.
	f(hour, []extent{{0, raw, 0, 100}, {0, five, 0, 100}, {1, raw, 0, 100}}, "[[{0 100}] [] [{0 100}]]")
	f(hour, []extent{{0, raw, 0, 50}, {0, five, 0, 100}, {1, raw, 0, 100}, {1, five, 0, 50}},
		"[[] [{0 100}] [{50 100}] [{0 50}]]")
	f(hour, nil, "[]")
	// What has a use for five minutes only is answered by them, or by something finer, or else by the finest there is.
	fit := func(spans []extent, want string) {
		t.Helper()
		if got := fmt.Sprint(cover(spans, hour, five)); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
	fit(whole, "[[] [{0 100}] []]")
	fit([]extent{{0, raw, 0, 100}, {0, hour, 0, 100}}, "[[{0 100}] []]")
	fit([]extent{{0, raw, 50, 100}, {0, hour, 0, 100}}, "[[{50 100}] [{0 50}]]")
	fit([]extent{{0, hour, 0, 100}, {1, five, 0, 100}}, "[[{0 100}] [{0 100}]]")
}

// TestFitting: a range is to have two windows at least, where the bucket has such.
func TestFitting(t *testing.T) {
	f := func(limit, length, want int64) {
		t.Helper()
		if got := fitting(&series.Request{MaxResolution: limit, Hints: series.Hints{Range: length}}); got != want {
			t.Errorf("limit %d, range %d: %d, want %d", limit, length, got, want)
		}
	}
	f(3600, 0, 3600) // instants
	f(3600, 7200, 3600)
	f(3600, 7199, 3599)
	f(3600, 600, 300)
	f(300, 7200, 300)
}

// TestCoverIsExact checks at each moment: every stream with data answers, with one resolution, with all its blocks of
// it.
func TestCoverIsExact(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		var spans []extent
		for range 1 + rnd.IntN(12) {
			from := rnd.Int64N(40)
			spans = append(spans, extent{rnd.IntN(3), []int64{0, 5, 60}[rnd.IntN(3)], from, from + 1 + rnd.Int64N(20)})
		}
		limit := []int64{5, 60}[rnd.IntN(2)]
		got := cover(spans, limit, limit)
		for at := range int64(62) {
			for stream := range 3 {
				usable, used := map[int64]int{}, map[int64]int{}
				for i, s := range spans {
					if s.stream != stream || at < s.mint || at >= s.maxt {
						if s.stream == stream && overlaps(got[i], at, at) {
							t.Fatalf("%+v answers for %d", s, at)
						}
						continue
					}
					if s.resolution <= limit {
						usable[s.resolution]++
					}
					if overlaps(got[i], at, at) {
						used[s.resolution]++
					}
				}
				if len(used) != min(1, len(usable)) {
					t.Fatalf("%+v at %d, stream %d: uses %v of %v", spans, at, stream, used, usable)
				}
				for r, n := range used {
					if n != usable[r] {
						t.Fatalf("%+v at %d, stream %d: uses %v of %v", spans, at, stream, used, usable)
					}
				}
			}
		}
	}
}

// TestCoverIsTheSame compares cover with a plain version, which looks at all extents for each window.
func TestCoverIsTheSame(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	for range 3000 {
		var extents []extent
		for range rnd.IntN(30) {
			from := rnd.Int64N(40)
			extents = append(extents, extent{rnd.IntN(4), []int64{0, 5, 60, 70}[rnd.IntN(4)], from, from + rnd.Int64N(20) - 1})
		}
		limit, fit := []int64{0, 5, 60}[rnd.IntN(3)], []int64{0, 4, 5, 60}[rnd.IntN(4)]
		if got, want := cover(extents, limit, fit), coverSlowly(extents, limit, fit); !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, limit %d, fit %d: %v, want %v", extents, limit, fit, got, want)
		}
	}
}

// coverSlowly is cover with all extents looked at for each window.
func coverSlowly(extents []extent, limit, fit int64) [][]window {
	out := make([][]window, len(extents))
	var bounds []int64
	for _, s := range extents {
		if s.resolution <= limit {
			bounds = append(bounds, s.mint, s.maxt)
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	for i := 1; i < len(bounds); i++ {
		w := window{bounds[i-1], bounds[i]}
		chosen := resolutionsSlowly(extents, w, limit, fit)
		for k, s := range extents {
			if r, ok := chosen[s.stream]; !ok || r != s.resolution || s.mint > w.mint || s.maxt < w.maxt {
				continue
			}
			if n := len(out[k]); n > 0 && out[k][n-1].maxt == w.mint {
				out[k][n-1].maxt = w.maxt
			} else {
				out[k] = append(out[k], w)
			}
		}
	}
	return out
}

// resolutionsSlowly chooses the resolution of each stream that has data in w.
func resolutionsSlowly(extents []extent, w window, limit, fit int64) map[int]int64 {
	own := map[int]int64{}       // the best by stream
	streams := map[int64][]int{} // the streams that have a resolution, each once
	for _, s := range extents {
		if s.resolution > limit || s.mint > w.mint || s.maxt < w.maxt {
			continue
		}
		if !slices.Contains(streams[s.resolution], s.stream) {
			streams[s.resolution] = append(streams[s.resolution], s.stream)
		}
		if r, ok := own[s.stream]; !ok || better(s.resolution, r, fit) {
			own[s.stream] = s.resolution
		}
	}
	best := int64(-1)
	for r, in := range streams {
		if len(in) == len(own) && (best < 0 || better(r, best, fit)) {
			best = r
		}
	}
	if best >= 0 {
		for s := range own {
			own[s] = best
		}
	}
	return own
}

// aggregated is a chunk as a downsampling compactor writes it.
type aggregated struct {
	chunkenc.Chunk
	data []byte
}

func (a aggregated) Bytes() []byte               { return a.data }
func (a aggregated) Encoding() chunkenc.Encoding { return series.EncAggregates }

func xor(t testing.TB, samples ...float64) chunkenc.Chunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(samples); i += 2 {
		app.Append(0, int64(samples[i]), samples[i+1])
	}
	return c
}

// TestDownsampled serves aggregates, those that are asked for, only where a coarse resolution is allowed.
func TestDownsampled(t *testing.T) {
	bkt := inMemory(t)
	raw := few()[:1]
	parts := &series.AggrChunks{}
	for a, v := range map[series.Aggregate]float64{series.Count: 4, series.Sum: 8, series.Min: 1, series.Counter: 9} {
		parts[a] = series.Encoded{Encoding: chunkenc.EncXOR, Data: xor(t, 1500, v).Bytes()}
	}
	coarse := aggregated{data: series.AppendAggregates(nil, parts)}
	dir := writeBlock(t, []rawSeries{{raw[0].Labels, []chunks.Meta{{MinTime: 1000, MaxTime: 1500, Chunk: coarse}}}})
	upload(t, bkt, makeBlock(t, raw), ring(team, "r1"))
	upload(t, bkt, dir, ring(team, "r1"), func(m *block.Meta) {
		m.MinTime, m.MaxTime, m.Thanos.Downsample.Resolution = 0, 2001, 300_000
	})
	g := opened(t, bkt)
	f := func(resolution int64, aggregates []series.Aggregate, want string) {
		t.Helper()
		r := ask(team, 0, 5000)
		r.MaxResolution, r.Aggregates = resolution, aggregates
		set := g.Select(t.Context(), r)
		defer set.Close()
		var got []string
		for set.Next() {
			for _, c := range set.At().Chunks {
				if c.Aggr == nil {
					got = append(got, fmt.Sprintf("raw %d-%d", c.MinTime, c.MaxTime))
					continue
				}
				for a, e := range c.Aggr {
					if e.Encoding != chunkenc.EncNone {
						chunk, err := chunkenc.FromData(e.Encoding, e.Data)
						if err != nil {
							t.Fatal(err)
						}
						it := chunk.Iterator(nil)
						it.Next()
						_, v := it.At()
						got = append(got, fmt.Sprintf("%d=%g", a, v))
					}
				}
			}
		}
		if set.Err() != nil || len(set.Warnings()) > 0 || strings.Join(got, " ") != want {
			t.Fatalf("%d %v: %v, want %s; %v %v", resolution, aggregates, got, want, set.Err(), set.Warnings())
		}
	}
	f(0, nil, "raw 1000-2000")
	f(299_999, nil, "raw 1000-2000")
	f(300_000, nil, "0=4 1=8 2=1 4=9")
	f(3600_000, []series.Aggregate{series.Sum, series.Counter, series.Max}, "1=8 4=9")
	if got := seriesOf(t,
		g.Streams(team)[0].Source.Select(t.Context(), ask(team, 0, 5000))); got != raw[0].Labels.String() {
		t.Fatal(got)
	}
}
