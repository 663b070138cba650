package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// counterIterator reads the chunks of one resolution as one counter that never goes down: what rate and increase need.
// Stale markers are left out.
//
// A counter aggregate chunk of numbers begins with the first raw value; then come, per window, totals that go on from
// there and leave out resets; last, at the timestamp of the last total again, the last raw value. Comparing that with
// the first raw value of the next chunk shows resets between chunks.
//
// One of histograms has the totals alone. They begin with what the counter stood at, so after a reset within a chunk
// the next one begins far below it, and nothing tells this from a reset between the two (bridge).
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
	total   counterValue
	// last is the last raw value, or total, of the chunk that reached t. own is the same of cur, as far as it was read.
	last, own counterValue
	ownT      int64
	hasOwn    bool
	step      counterValue // what the last two totals of a chunk differ by
	stepT     int64  // and in ms; 0 = not known
	gauge     bool   // the sample is a histogram that is no counter
	err       error
}

func newCounterIterator(chunks []Chunk, r *Reading) *counterIterator {
	c := &counterIterator{chunks: chunks, mint: r.MinTime, maxt: r.MaxTime, t: math.MinInt64}
	c.raw.stop = r.Stop
	return c
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
		if typ == chunkenc.ValHistogram {
			c.typ = chunkenc.ValFloatHistogram
		}
		return c.typ
	}
	c.cur, c.next, c.typ = nil, len(c.chunks), chunkenc.ValNone
	return c.typ
}

// take reads the current sample of cur and reports whether time went on.
func (c *counterIterator) take(typ chunkenc.ValueType) bool {
	t, v, ok := c.value(typ)
	if !ok {
		return false
	}
	on := !c.started || t > c.t
	base := c.last
	if c.hasOwn {
		base = c.own
	}
	switch {
	case !on:
	case !c.started || c.gauge || !v.sameKind(c.total):
		c.total = v
	case v.below(base):
		c.total = c.total.plus(c.bridge(t, v))
	default:
		c.total = c.total.plus(v.minus(base))
	}
	if c.hasOwn && t > c.ownT && !v.below(c.own) {
		c.step, c.stepT = v.minus(c.own), t-c.ownT
	}
	if on {
		c.t, c.started = t, true
	}
	c.own, c.ownT, c.hasOwn = v, t, true
	return on
}

// value is the current sample of cur; false for one that counts nothing.
func (c *counterIterator) value(typ chunkenc.ValueType) (t int64, v counterValue, ok bool) {
	if typ == chunkenc.ValFloat {
		t, v.v = c.cur.At()
		c.gauge = false
		return t, v, !math.IsNaN(v.v)
	}
	t, v.h = c.cur.AtFloatHistogram(nil)
	if math.IsNaN(v.h.Sum) && value.IsStaleNaN(v.h.Sum) {
		return t, v, false
	}
	c.gauge = v.h.CounterResetHint == histogram.GaugeType
	if !c.gauge {
		v.h.CounterResetHint = histogram.UnknownCounterReset
	}
	return t, v, true
}

// bridge is what was counted up to v, which is below what the counter stood at before. That is v after a reset. But a
// downsampled histogram that begins a chunk may be below only because the chunk before left out a reset. As windows of
// one counter are much alike, it then counts as the window before, unless v is less.
func (c *counterIterator) bridge(t int64, v counterValue) counterValue {
	if v.h == nil || c.hasOwn || c.stepT == 0 || !v.sameKind(c.step) || c.chunks[0].Aggr == nil {
		return v
	}
	guess := c.step.times(min(1, float64(t-c.t)/float64(c.stepT)))
	if v.size() <= guess.size() {
		return v
	}
	return guess
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
func (c *counterIterator) At() (int64, float64) { return c.t, c.total.v }

// AtHistogram implements chunkenc.Iterator. It is not called: all histograms are of floats.
func (c *counterIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return c.t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (c *counterIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return c.t, copied(c.total.h, h)
}

// AtT implements chunkenc.Iterator.
func (c *counterIterator) AtT() int64 { return c.t }

// AtST implements chunkenc.Iterator.
func (c *counterIterator) AtST() int64 { return 0 }

// Err implements chunkenc.Iterator.
func (c *counterIterator) Err() error { return c.err }

// copied is from in the memory of to, which may be nil.
func copied(from, to *histogram.FloatHistogram) *histogram.FloatHistogram {
	if to == nil {
		return from.Copy()
	}
	from.CopyTo(to)
	return to
}

func unknownUnlessGauge(h histogram.CounterResetHint) histogram.CounterResetHint {
	if h == histogram.GaugeType {
		return h
	}
	return histogram.UnknownCounterReset
}
