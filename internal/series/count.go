package series

import (
	"math"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// countIterator reads how many samples each sample stands for: one, where it is raw. Stale markers stay what they are.
type countIterator struct {
	Iterator
	aggregates bool // the samples are numbers of samples already
	scratch    scratch
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
	if c.scratch.stale(&c.Iterator, c.typ) {
		return c.t, math.Float64frombits(value.StaleNaN)
	}
	return c.t, 1
}
