package tsdb

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// sample is a float at a time (ms), or a histogram where one is set.
type sample struct {
	t  int64
	v  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// stale reports whether p is a stale marker. The TSDB stores a marker in the form of the sample before it.
func (p sample) stale() bool {
	switch {
	case p.h != nil:
		return value.IsStaleNaN(p.h.Sum)
	case p.fh != nil:
		return value.IsStaleNaN(p.fh.Sum)
	}
	return value.IsStaleNaN(p.v)
}

// same reports whether p and o are the same value, whatever their form. Stale markers of all kinds are alike.
// Histograms may differ by empty buckets, which the TSDB adds where other samples of the chunk have buckets. Floats
// are compared by bits.
func (p sample) same(o sample) bool {
	if p.stale() || o.stale() {
		return p.stale() && o.stale()
	}
	switch {
	case p.h != nil && o.h != nil:
		return p.h.Equals(o.h) || p.h.Copy().Compact(0).Equals(o.h.Copy().Compact(0))
	case p.fh != nil && o.fh != nil:
		return p.fh.Equals(o.fh) || p.fh.Copy().Compact(0).Equals(o.fh.Copy().Compact(0))
	}
	return p.h == nil && o.h == nil && p.fh == nil && o.fh == nil && math.Float64bits(p.v) == math.Float64bits(o.v)
}
