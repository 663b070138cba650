package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// countIterator reads how many samples each sample stands for: one, where it is raw. Stale markers stay what they are.
type countIterator struct {
	Iterator
	aggregates bool // the samples are numbers of samples already
	whole      *histogram.Histogram
	float      *histogram.FloatHistogram
}

// Reset starts over with other chunks, all raw or all downsampled.
func (c *countIterator) Reset(chunks []Chunk, pick Pick) {
	c.Iterator.Reset(chunks, pick)
	c.aggregates = len(chunks) > 0 && chunks[0].Aggr != nil
}

// Next implements chunkenc.Iterator.
func (c *countIterator) Next() chunkenc.ValueType { return number(c.Iterator.Next()) }

// Seek implements chunkenc.Iterator.
func (c *countIterator) Seek(t int64) chunkenc.ValueType { return number(c.Iterator.Seek(t)) }

func number(typ chunkenc.ValueType) chunkenc.ValueType {
	if typ == chunkenc.ValNone {
		return typ
	}
	return chunkenc.ValFloat
}

// At implements chunkenc.Iterator.
func (c *countIterator) At() (int64, float64) {
	if c.aggregates {
		return c.Iterator.At()
	}
	v := 0.0
	switch c.typ {
	case chunkenc.ValFloat:
		_, v = c.Iterator.At()
	case chunkenc.ValHistogram:
		if c.whole == nil {
			c.whole = new(histogram.Histogram) // given none, the iterator would lend its own buckets
		}
		_, c.whole = c.Iterator.AtHistogram(c.whole)
		v = c.whole.Sum
	case chunkenc.ValFloatHistogram:
		if c.float == nil {
			c.float = new(histogram.FloatHistogram)
		}
		_, c.float = c.Iterator.AtFloatHistogram(c.float)
		v = c.float.Sum
	}
	if value.IsStaleNaN(v) {
		return c.t, math.Float64frombits(value.StaleNaN)
	}
	return c.t, 1
}
