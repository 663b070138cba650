package series

import (
	"math"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// sampleCountIterator reads how many raw samples each sample stands for. A raw sample counts 1, and a stale marker
// stays a stale marker.
type sampleCountIterator struct {
	Iterator
	downsampled bool // the samples are counts already
	scratch     scratch
}

// Reset starts over with other chunks, all raw or all downsampled.
func (c *sampleCountIterator) Reset(chunks []Chunk, pick Pick) {
	c.Iterator.Reset(chunks, pick)
	c.downsampled = len(chunks) > 0 && chunks[0].Aggr != nil
}

// Next implements chunkenc.Iterator.
func (c *sampleCountIterator) Next() chunkenc.ValueType { return number(c.Iterator.Next()) }

// Seek implements chunkenc.Iterator.
func (c *sampleCountIterator) Seek(t int64) chunkenc.ValueType { return number(c.Iterator.Seek(t)) }

// number is the type of the count of a sample of type typ.
func number(typ chunkenc.ValueType) chunkenc.ValueType {
	if typ == chunkenc.ValNone {
		return typ
	}
	return chunkenc.ValFloat
}

// At implements chunkenc.Iterator.
func (c *sampleCountIterator) At() (int64, float64) {
	if c.downsampled {
		return c.Iterator.At()
	}
	if c.scratch.stale(&c.Iterator, c.typ) {
		return c.t, math.Float64frombits(value.StaleNaN)
	}
	return c.t, 1
}
