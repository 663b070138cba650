package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Widened is the look-back in ms of a query that may read samples of windows of res ms, with lookback for raw ones. The
// sample of one window is the newest one until the end of the next, and the time of the last one of a chunk may be
// anywhere in its window.
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

// stander is an iterator that knows which time its current sample stands for, in ms, both ends included.
type stander interface {
	chunkenc.Iterator
	stands() (from, to int64)
}

// stretchIterator ends each stretch of samples by a stale marker, for readers that look back further than a sample is
// good for. A raw sample is good for as long as without downsampled ones: lookback ms. That of a window is good until
// the end of the next window, or for lookback ms if that is longer. No marker is needed where another sample stands for
// the time then.
type stretchIterator struct {
	in       stander
	lookback int64
	good     int64 // the current sample is good before that time
	open     bool  // the current sample is no stale marker
	marker   int64 // the time of a marker that comes before the sample that in stands at
	marked   bool  // the marker is the current sample
	typ      chunkenc.ValueType
	scratch  scratch
}

// reset begins anew with in.
func (s *stretchIterator) reset(in stander, lookback int64) {
	*s = stretchIterator{in: in, lookback: lookback, scratch: s.scratch}
}

// Next implements chunkenc.Iterator.
func (s *stretchIterator) Next() chunkenc.ValueType {
	if s.marked {
		s.marked = false
		return s.arrive(s.typ)
	}
	return s.come(s.in.Next())
}

// come takes over the sample that in has come to, or puts a marker before it.
func (s *stretchIterator) come(typ chunkenc.ValueType) chunkenc.ValueType {
	if s.typ = typ; s.open {
		from := int64(math.MaxInt64)
		if typ != chunkenc.ValNone {
			from, _ = s.in.stands()
		}
		if from > s.good {
			s.marked, s.open, s.marker = true, false, s.good
			return chunkenc.ValFloat
		}
	}
	return s.arrive(typ)
}

// arrive makes the sample that in stands at the current one.
func (s *stretchIterator) arrive(typ chunkenc.ValueType) chunkenc.ValueType {
	if s.typ = typ; typ == chunkenc.ValNone {
		s.open = false
		return typ
	}
	from, to := s.in.stands()
	s.good = s.in.AtT() + s.lookback
	if to > from { // a window
		s.good = max(s.good, to+1+to-from)
	}
	s.open = !s.scratch.stale(s.in, typ)
	return typ
}

// Seek implements chunkenc.Iterator.
func (s *stretchIterator) Seek(t int64) chunkenc.ValueType {
	if s.current() != chunkenc.ValNone && s.AtT() >= t {
		return s.current()
	}
	if before := t - Widened(s.lookback, Hour); !s.marked && (s.typ == chunkenc.ValNone || s.in.AtT() < before) {
		// No marker at or after t belongs to a sample before that.
		s.open = false
		s.arrive(s.in.Seek(before))
	}
	for s.current() != chunkenc.ValNone && s.AtT() < t {
		s.Next()
	}
	return s.current()
}

// current is the type of the current sample.
func (s *stretchIterator) current() chunkenc.ValueType {
	if s.marked {
		return chunkenc.ValFloat
	}
	return s.typ
}

// At implements chunkenc.Iterator.
func (s *stretchIterator) At() (int64, float64) {
	if s.marked {
		return s.marker, math.Float64frombits(value.StaleNaN)
	}
	return s.in.At()
}

// AtHistogram implements chunkenc.Iterator.
func (s *stretchIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return s.in.AtHistogram(h)
}

// AtFloatHistogram implements chunkenc.Iterator.
func (s *stretchIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return s.in.AtFloatHistogram(h)
}

// AtT implements chunkenc.Iterator.
func (s *stretchIterator) AtT() int64 {
	if s.marked {
		return s.marker
	}
	return s.in.AtT()
}

// AtST implements chunkenc.Iterator.
func (s *stretchIterator) AtST() int64 {
	if s.marked {
		return 0
	}
	return s.in.AtST()
}

// Err implements chunkenc.Iterator.
func (s *stretchIterator) Err() error { return s.in.Err() }
