package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Widened is the look-back in ms of a query that may read windows of res ms. lookback is the look-back in ms for raw
// samples. It covers two windows: the sample of a window is the newest one until the next window ends, and the last
// sample of a chunk may lie anywhere in its window. A shorter look-back would leave gaps between windows.
func Widened(lookback, res int64) int64 {
	if res < FiveMinutes {
		return lookback
	}
	if res < Hour {
		res = FiveMinutes
	} else {
		res = Hour
	}
	return max(lookback, FiveMinutes) + 2*res
}

// rangeIterator is an iterator that knows which time range its current sample stands for, in ms, both ends included.
type rangeIterator interface {
	chunkenc.Iterator
	sampleRange() (from, to int64)
}

// expiryIterator puts a stale marker where a sample expires and no other sample stands for that time. It is for readers
// that look back further than a sample is valid (Widened): without the marker they would show a series that has ended.
//
// A raw sample is valid for lookback ms, as in a query without downsampled data. The sample of a window is valid until
// the end of the next window, and for lookback ms at least.
type expiryIterator struct {
	in       rangeIterator
	lookback int64
	expires  int64 // when the current sample expires, ms
	valid    bool  // the current sample is no stale marker
	marker   int64 // the time of the marker that comes before the sample of in
	atMarker bool  // the marker is the current sample
	typ      chunkenc.ValueType
	scratch  scratch
}

// reset starts over with in.
func (s *expiryIterator) reset(in rangeIterator, lookback int64) {
	*s = expiryIterator{in: in, lookback: lookback, scratch: s.scratch}
}

// Next implements chunkenc.Iterator.
func (s *expiryIterator) Next() chunkenc.ValueType {
	if s.atMarker {
		s.atMarker = false
		return s.arrive(s.typ)
	}
	return s.markOrArrive(s.in.Next())
}

// markOrArrive puts a marker before the sample of in, if the sample before that expires too early. Otherwise the sample
// of in becomes the current one.
func (s *expiryIterator) markOrArrive(typ chunkenc.ValueType) chunkenc.ValueType {
	if s.typ = typ; s.valid {
		from := int64(math.MaxInt64)
		if typ != chunkenc.ValNone {
			from, _ = s.in.sampleRange()
		}
		if from > s.expires {
			s.atMarker, s.valid, s.marker = true, false, s.expires
			return chunkenc.ValFloat
		}
	}
	return s.arrive(typ)
}

// arrive makes the sample of in the current one.
func (s *expiryIterator) arrive(typ chunkenc.ValueType) chunkenc.ValueType {
	if s.typ = typ; typ == chunkenc.ValNone {
		s.valid = false
		return typ
	}
	from, to := s.in.sampleRange()
	s.expires = s.in.AtT() + s.lookback
	if to > from { // a window
		s.expires = max(s.expires, to+1+to-from)
	}
	s.valid = !s.scratch.stale(s.in, typ)
	return typ
}

// Seek implements chunkenc.Iterator.
func (s *expiryIterator) Seek(t int64) chunkenc.ValueType {
	if s.current() != chunkenc.ValNone && s.AtT() >= t {
		return s.current()
	}
	before := t - Widened(s.lookback, Hour)
	if !s.atMarker && (s.typ == chunkenc.ValNone || s.in.AtT() < before) {
		// A sample before that has expired at t, so no marker at t or later is its.
		s.valid = false
		s.arrive(s.in.Seek(before))
	}
	for s.current() != chunkenc.ValNone && s.AtT() < t {
		s.Next()
	}
	return s.current()
}

// current is the type of the current sample.
func (s *expiryIterator) current() chunkenc.ValueType {
	if s.atMarker {
		return chunkenc.ValFloat
	}
	return s.typ
}

// At implements chunkenc.Iterator.
func (s *expiryIterator) At() (int64, float64) {
	if s.atMarker {
		return s.marker, math.Float64frombits(value.StaleNaN)
	}
	return s.in.At()
}

// AtHistogram implements chunkenc.Iterator.
func (s *expiryIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return s.in.AtHistogram(h)
}

// AtFloatHistogram implements chunkenc.Iterator.
func (s *expiryIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return s.in.AtFloatHistogram(h)
}

// AtT implements chunkenc.Iterator.
func (s *expiryIterator) AtT() int64 {
	if s.atMarker {
		return s.marker
	}
	return s.in.AtT()
}

// AtST implements chunkenc.Iterator.
func (s *expiryIterator) AtST() int64 {
	if s.atMarker {
		return 0
	}
	return s.in.AtST()
}

// Err implements chunkenc.Iterator.
func (s *expiryIterator) Err() error { return s.in.Err() }
