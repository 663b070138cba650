package downsample

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

type sample = sourcetest.Sample

// strings is a symbol table.
type symbols []string

func (s symbols) Len() int           { return len(s) }
func (s symbols) At(i uint32) string { return s[i] }

// kept is a Sink that keeps the chunks of one series.
type kept struct {
	chunks []merge.Chunk
	added  int
}

func (k *kept) Begin(merge.Symbols) error { return nil }
func (k *kept) End() error                { return nil }
func (k *kept) Add(s *merge.Series) error {
	k.added++
	for _, c := range s.Chunks {
		c.Data = slices.Clone(c.Data)
		k.chunks = append(k.chunks, c)
	}
	return nil
}

// chunksOf are the chunks of samples, as a block has them.
func chunksOf(in []sample) (out []merge.Chunk) {
	for _, c := range sourcetest.Encode(in, 0) {
		raw := merge.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: byte(c.Raw.Encoding), Data: c.Raw.Data}
		out = append(out, raw)
	}
	return out
}

// run downsamples one series.
func run(resolution int64, in []merge.Chunk) ([]merge.Chunk, error) {
	out := new(kept)
	s := New(resolution, out)
	if err := s.Begin(symbols{"__name__", "m"}); err != nil {
		return nil, err
	}
	if err := s.Add(&merge.Series{Symbols: []uint32{0, 1}, Chunks: in}); err != nil {
		return nil, err
	}
	return out.chunks, s.End()
}

// downsampled are the chunks of samples, at both resolutions, the second made of the first. It checks that one pass
// over the samples makes the same.
func downsampled(t testing.TB, in []sample) (five, hour []merge.Chunk) {
	t.Helper()
	five, err := run(FiveMinutes, chunksOf(in))
	if err != nil {
		t.Fatal(err)
	}
	if hour, err = run(Hour, five); err != nil {
		t.Fatal(err)
	}
	atOnce(t, chunksOf(in), five, hour)
	for _, c := range append(read(t, five), read(t, hour)...) {
		if n := len(part(t, c.Aggr[series.Count])); n > windowsPerChunk {
			t.Fatalf("a chunk of %d windows", n)
		}
	}
	return five, hour
}

// atOnce checks what a stage makes with a coarser one, of a series that comes after another one.
func atOnce(t testing.TB, in, five, hour []merge.Chunk) {
	t.Helper()
	var finer, coarser kept
	s := NewWith(FiveMinutes, &finer, New(Hour, &coarser))
	if err := s.Begin(symbols{"__name__", "m"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		finer, coarser = kept{}, kept{}
		if err := s.Add(&merge.Series{Symbols: []uint32{0, 1}, Chunks: in}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.End(); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(finer.chunks, five) || !reflect.DeepEqual(coarser.chunks, hour) {
		t.Fatal("one pass makes other chunks than two")
	}
}

// read are chunks as a reader gets them.
func read(t testing.TB, in []merge.Chunk) (out []series.Chunk) {
	t.Helper()
	for i, c := range in {
		if i > 0 && c.MinTime <= in[i-1].MaxTime {
			t.Fatalf("the chunk from %d begins before %d, where the one before it ends", c.MinTime, in[i-1].MaxTime)
		}
		aggr, err := series.DecodeAggregates(c.Data, series.EveryAggregate)
		if err != nil || c.Encoding != 0xff {
			t.Fatal(c.Encoding, err)
		}
		out = append(out, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Aggr: aggr})
	}
	return out
}

// part are the samples of one aggregate of a chunk, by the library.
func part(t testing.TB, e series.Encoded) (out []sample) {
	t.Helper()
	if e.Encoding == chunkenc.EncNone {
		return nil
	}
	c, err := chunkenc.FromData(e.Encoding, e.Data)
	if err != nil {
		t.Fatal(err)
	}
	it := c.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		var s sample
		if typ == chunkenc.ValFloat {
			s.T, s.V = it.At()
		} else {
			s.T, s.FH = it.AtFloatHistogram(nil)
		}
		out = append(out, s)
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return out
}

// window is what a test expects of a window.
type window struct {
	t                    int64
	count, sum, min, max float64
	h                    *histogram.FloatHistogram // the sum of histograms
}

// windows are those of all chunks. It checks that the parts of a chunk fit each other.
func windows(t testing.TB, in []merge.Chunk) (out []window) {
	t.Helper()
	for i, c := range read(t, in) {
		count := part(t, c.Aggr[series.Count])
		sum := part(t, c.Aggr[series.Sum])
		least, most := part(t, c.Aggr[series.Min]), part(t, c.Aggr[series.Max])
		if len(count) == 0 || count[0].T != c.MinTime || count[len(count)-1].T != c.MaxTime {
			t.Fatalf("chunk %d from %d to %d has %d windows", i, c.MinTime, c.MaxTime, len(count))
		}
		for j, s := range count {
			w := window{t: s.T, count: s.V, sum: sum[j].V, h: sum[j].FH}
			if w.h == nil {
				w.min, w.max = least[j].V, most[j].V
			} else if least != nil || most != nil {
				t.Fatal("histograms have no minimum")
			}
			if sum[j].T != s.T || len(sum) != len(count) ||
				w.h == nil && (least[j].T != s.T || most[j].T != s.T || len(least) != len(count)) {
				t.Fatalf("chunk %d: other timestamps in window %d", i, j)
			}
			out = append(out, w)
		}
		counter := part(t, c.Aggr[series.Counter])
		if !slices.IsSortedFunc(counter, func(a, b sample) int { return int(a.T - b.T) }) {
			t.Fatalf("chunk %d: its counter goes back in time", i)
		}
	}
	return out
}

func (w window) String() string {
	if w.h != nil {
		return fmt.Sprintf("%d: %v histograms, %v", w.t, w.count, w.h)
	}
	return fmt.Sprintf("%d: %v, sum %v, %v to %v", w.t, w.count, w.sum, w.min, w.max)
}

// same is bit by bit, and for histograms by value.
func (w window) same(o window) bool {
	bits := math.Float64bits
	if w.t != o.t || w.count != o.count || (w.h == nil) != (o.h == nil) {
		return false
	}
	if w.h != nil {
		return w.h.Copy().Compact(0).Equals(o.h.Copy().Compact(0))
	}
	return bits(w.sum) == bits(o.sum) && bits(w.min) == bits(o.min) && bits(w.max) == bits(o.max)
}
