package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// counterIterator reads the counter aggregates of downsampled chunks, and raw chunks among them, as one counter that never
// goes down: what rate and increase need. Stale markers are left out.
//
// A counter aggregate chunk begins with the first raw value; then come, per window, totals that go on from there and leave
// out resets; last, at the timestamp of the last total again, the last raw value. Comparing that with the first raw value
// of the next chunk shows resets between chunks.
type counterIterator struct {
	chunks     []Chunk
	next       int
	mint, maxt int64
	raw        Iterator
	dec        decoder
	cur        chunkenc.Iterator

	started bool
	t       int64
	typ     chunkenc.ValueType
	total   float64
	// last is the last raw value, or total, of the chunk that reached t. own is the same of cur, as far as it was read.
	last, own float64
	ownT      int64
	hasOwn    bool
	err       error
}

func newCounterIterator(chunks []Chunk, mint, maxt int64) *counterIterator {
	return &counterIterator{chunks: chunks, mint: mint, maxt: maxt, t: math.MinInt64}
}

// Next implements chunkenc.Iterator.
func (c *counterIterator) Next() chunkenc.ValueType {
	for c.err == nil && (c.cur != nil || c.openNext()) {
		typ := c.cur.Next()
		if typ == chunkenc.ValNone {
			c.leave()
			continue
		}
		if !c.take(typ) || c.t < c.mint {
			continue
		}
		if c.t > c.maxt {
			break
		}
		c.typ = typ
		return typ
	}
	c.cur, c.next, c.typ = nil, len(c.chunks), chunkenc.ValNone
	return c.typ
}

// take reads the current sample of cur and reports whether time went on.
func (c *counterIterator) take(typ chunkenc.ValueType) bool {
	if typ != chunkenc.ValFloat {
		t := c.cur.AtT()
		if c.started && t <= c.t {
			return false
		}
		c.t, c.started = t, true
		return true
	}
	t, v := c.cur.At()
	if math.IsNaN(v) {
		return false
	}
	base := c.last
	if c.hasOwn {
		base = c.own
	}
	on := !c.started || t > c.t
	switch {
	case !c.started || on && v < base:
		c.total += v
	case on:
		c.total += v - base
	}
	if on {
		c.t, c.started = t, true
	}
	c.own, c.ownT, c.hasOwn = v, t, true
	return on
}

// leave ends cur. What it says of the last raw value counts only if it reached as far as any chunk before it.
func (c *counterIterator) leave() {
	if err := c.cur.Err(); err != nil {
		c.err = errs.E(errs.Internal, "corrupt counter chunk: %w", err)
	}
	if c.hasOwn && c.ownT == c.t {
		c.last = c.own
	}
	c.cur, c.hasOwn = nil, false
}

// openNext opens the next downsampled chunk, or all raw chunks up to it.
func (c *counterIterator) openNext() bool {
	for c.next < len(c.chunks) {
		from := c.next
		if c.next++; c.chunks[from].Aggr != nil {
			if c.cur, c.err = c.dec.decode(&c.chunks[from], PickCounter); c.err != nil || c.cur != nil {
				return c.err == nil
			}
			continue
		}
		for c.next < len(c.chunks) && c.chunks[c.next].Aggr == nil {
			c.next++
		}
		c.raw.Reset(c.chunks[from:c.next], PickCounter)
		c.cur = &c.raw
		return true
	}
	return false
}

// Seek implements chunkenc.Iterator. It reads everything on the way, for the resets.
func (c *counterIterator) Seek(t int64) chunkenc.ValueType {
	if c.typ != chunkenc.ValNone && c.t >= t {
		return c.typ
	}
	for c.Next() != chunkenc.ValNone {
		if c.t >= t {
			return c.typ
		}
	}
	return chunkenc.ValNone
}

// At implements chunkenc.Iterator.
func (c *counterIterator) At() (int64, float64) { return c.t, c.total }

// AtHistogram implements chunkenc.Iterator.
func (c *counterIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := c.cur.AtHistogram(h)
	h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (c *counterIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, h := c.cur.AtFloatHistogram(h)
	h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	return t, h
}

// AtT implements chunkenc.Iterator.
func (c *counterIterator) AtT() int64 { return c.t }

// AtST implements chunkenc.Iterator.
func (c *counterIterator) AtST() int64 { return 0 }

// Err implements chunkenc.Iterator.
func (c *counterIterator) Err() error { return c.err }

func unknownUnlessGauge(h histogram.CounterResetHint) histogram.CounterResetHint {
	if h == histogram.GaugeType {
		return h
	}
	return histogram.UnknownCounterReset
}
