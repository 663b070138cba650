package series

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// scratch keeps the memory of decoded histograms for reuse.
type scratch struct {
	whole *histogram.Histogram
	float *histogram.FloatHistogram
}

// stale reports whether the current sample of it, which has type typ, is a stale marker. A histogram is in s
// afterwards.
func (s *scratch) stale(it chunkenc.Iterator, typ chunkenc.ValueType) bool {
	v := 0.0
	switch typ {
	case chunkenc.ValFloat:
		_, v = it.At()
	case chunkenc.ValHistogram:
		if s.whole == nil {
			s.whole = new(histogram.Histogram) // with nil, the iterator would return its own buckets, which it changes later
		}
		_, s.whole = it.AtHistogram(s.whole)
		v = s.whole.Sum
	case chunkenc.ValFloatHistogram:
		if s.float == nil {
			s.float = new(histogram.FloatHistogram)
		}
		_, s.float = it.AtFloatHistogram(s.float)
		v = s.float.Sum
	}
	return value.IsStaleNaN(v)
}
