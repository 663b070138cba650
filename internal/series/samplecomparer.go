package series

import (
	"cmp"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// sampleComparer chooses between two samples with one timestamp. It keeps decoded histograms for reuse.
type sampleComparer struct {
	a, b scratch
}

// prefer reports whether to take the sample of a rather than that of b. Both have the same timestamp. The rules are a
// total order of values. Without one, the same query could give another answer when replicas come in another order.
//  1. A value wins over a stale marker.
//  2. A float histogram wins over a histogram with integer counts. Both win over a float.
//  3. Of floats, the larger bits win. Of histograms, the larger count wins; where counts are equal the larger sum, then
//     the larger schema, buckets and the other fields in turn.
func (c *sampleComparer) prefer(a, b *chunkReader) bool {
	if a.typ == chunkenc.ValFloat && b.typ == chunkenc.ValFloat {
		ab, bb := math.Float64bits(a.v), math.Float64bits(b.v)
		if ab == bb {
			return false
		}
		if as, bs := ab == value.StaleNaN, bb == value.StaleNaN; as != bs {
			return bs
		}
		return ab > bb
	}
	as, bs := c.a.stale(a.it, a.typ), c.b.stale(b.it, b.typ)
	switch {
	case as != bs:
		return bs
	case a.typ != b.typ:
		return kindOrder(a.typ) > kindOrder(b.typ)
	case a.typ == chunkenc.ValHistogram:
		return compareHistograms(c.a.whole, c.b.whole) > 0
	}
	return compareFloatHistograms(c.a.float, c.b.float) > 0
}

// kindOrder is the place of a type in rule 2.
func kindOrder(t chunkenc.ValueType) int {
	switch t {
	case chunkenc.ValFloatHistogram:
		return 2
	case chunkenc.ValHistogram:
		return 1
	}
	return 0
}

func compareHistograms(a, b *histogram.Histogram) int {
	return cmp.Or(
		cmp.Compare(a.Count, b.Count),
		compareBits(a.Sum, b.Sum),
		cmp.Compare(a.Schema, b.Schema),
		cmp.Compare(a.ZeroCount, b.ZeroCount),
		compareBits(a.ZeroThreshold, b.ZeroThreshold),
		slices.CompareFunc(a.PositiveSpans, b.PositiveSpans, compareSpans),
		slices.CompareFunc(a.NegativeSpans, b.NegativeSpans, compareSpans),
		slices.Compare(a.PositiveBuckets, b.PositiveBuckets),
		slices.Compare(a.NegativeBuckets, b.NegativeBuckets),
		slices.CompareFunc(a.CustomValues, b.CustomValues, compareBits),
	)
}

func compareFloatHistograms(a, b *histogram.FloatHistogram) int {
	return cmp.Or(
		compareBits(a.Count, b.Count),
		compareBits(a.Sum, b.Sum),
		cmp.Compare(a.Schema, b.Schema),
		compareBits(a.ZeroCount, b.ZeroCount),
		compareBits(a.ZeroThreshold, b.ZeroThreshold),
		slices.CompareFunc(a.PositiveSpans, b.PositiveSpans, compareSpans),
		slices.CompareFunc(a.NegativeSpans, b.NegativeSpans, compareSpans),
		slices.CompareFunc(a.PositiveBuckets, b.PositiveBuckets, compareBits),
		slices.CompareFunc(a.NegativeBuckets, b.NegativeBuckets, compareBits),
		slices.CompareFunc(a.CustomValues, b.CustomValues, compareBits),
	)
}

// compareBits orders floats by their bits, so that NaNs have a place, too.
func compareBits(a, b float64) int { return cmp.Compare(math.Float64bits(a), math.Float64bits(b)) }

func compareSpans(a, b histogram.Span) int {
	return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length))
}
