package series

import (
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// TestLayout: a chunk that claims buckets that it cannot have is refused before it is decoded, and no other chunk is.
func TestLayout(t *testing.T) {
	encoded := func(enc chunkenc.Encoding, hs ...*histogram.Histogram) Encoded {
		c, err := chunkenc.NewEmptyChunk(enc)
		if err != nil {
			t.Fatal(err)
		}
		app, err := c.Appender()
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range hs {
			if enc == chunkenc.EncHistogram || enc == chunkenc.EncHistogramST {
				_, _, app, err = app.AppendHistogram(nil, 0, int64(i), h, true)
			} else {
				_, _, app, err = app.AppendFloatHistogram(nil, 0, int64(i), h.ToFloat(nil), true)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return Encoded{Encoding: enc, Data: c.Bytes()}
	}
	wide := &histogram.Histogram{
		Schema: -4, ZeroThreshold: 0.3,
		PositiveSpans:   []histogram.Span{{Offset: -9, Length: 1000}},
		PositiveBuckets: make([]int64, 1000),
		NegativeSpans:   []histogram.Span{{Offset: 7, Length: 9}, {Offset: 3, Length: 2}},
		NegativeBuckets: make([]int64, 11),
	}
	greedy := &histogram.Histogram{PositiveSpans: []histogram.Span{{Length: 1 << 31}}}
	greedyNegative := &histogram.Histogram{ZeroThreshold: 0.3, PositiveSpans: []histogram.Span{{Offset: 8000}},
		NegativeSpans: []histogram.Span{{Length: 3}, {Length: 1 << 31}}, NegativeBuckets: []int64{1, 1, 1}}
	for _, enc := range []chunkenc.Encoding{chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST,
		chunkenc.EncFloatHistogramST} {
		for _, h := range []*histogram.Histogram{{}, wide, tsdbutil.GenerateTestHistogram(3),
			tsdbutil.GenerateTestCustomBucketsHistogram(4)} {
			if err := encoded(enc, h).Check(); err != nil {
				t.Errorf("%s of %s: %v", enc, h, err)
			}
		}
		if err := encoded(enc).Check(); err != nil {
			t.Errorf("%s without samples: %v", enc, err)
		}
	}
	f := func(data []byte) {
		t.Helper()
		it := NewIterator([]Chunk{{MaxTime: 1, Raw: Encoded{Encoding: chunkenc.EncHistogram, Data: data}}}, PickAvg)
		if it.Next() != chunkenc.ValNone || it.Err() == nil {
			t.Error("a chunk that claims 2^31 buckets is read")
		}
	}
	f(layoutOf(greedy))
	f(layoutOf(greedyNegative))
}

// layoutOf is the begin of a chunk of one histogram: its header and layout. The library would not write it without the
// buckets.
func layoutOf(h *histogram.Histogram) []byte {
	var bits []byte
	put := func(v uint64, n int) {
		for i := n - 1; i >= 0; i-- {
			bits = append(bits, byte(v>>i&1))
		}
	}
	number := func(v int64) {
		if v == 0 {
			put(0, 1)
			return
		}
		put(0b11111110, 8)
		put(uint64(v), 56)
	}
	if h.ZeroThreshold == 0 {
		put(0, 8)
	} else {
		put(255, 8)
		put(1, 64)
	}
	number(int64(h.Schema))
	for _, spans := range [][]histogram.Span{h.PositiveSpans, h.NegativeSpans} {
		number(int64(len(spans)))
		for _, s := range spans {
			number(int64(s.Length))
			number(int64(s.Offset))
		}
	}
	out := []byte{0, 1, 0}
	for i := 0; i < len(bits); i += 8 {
		b := byte(0)
		for k := range 8 {
			b <<= 1
			if i+k < len(bits) {
				b |= bits[i+k]
			}
		}
		out = append(out, b)
	}
	return out
}
