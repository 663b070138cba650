package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// counterIterator reads the chunks of one resolution as one counter that never goes down, as rate and increase need it.
// It leaves out stale markers.
//
// A counter aggregate chunk of numbers has three parts:
//
//   - the first raw value,
//   - for each window a total, which goes on from the first raw value and leaves out resets,
//   - the last raw value, with the timestamp of the last total. Comparing it with the first raw value of the next chunk
//     shows resets between chunks.
//
// A counter aggregate chunk of histograms that Hearth wrote has the first raw value and the totals, and was never
// reset: where the counter was, a new chunk begins. So the totals are raw values, too.
//
// One that Thanos wrote has the totals only. They begin with the raw value of the counter. So after a reset within a
// chunk the next chunk begins far below the last total, and a reset between the two chunks looks the same (bridge).
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
	// last is the last raw value of the chunk that reached t, or its last total. own is the same for cur, up to the
	// sample at ownT; it is not set before hasOwn.
	last, own counterValue
	ownT      int64
	hasOwn    bool
	step      counterValue // the difference of the last two totals of a chunk
	stepT     int64        // their distance in ms; 0 = not known
	gauge     bool         // the current sample is a histogram of a gauge
	// lastRaw says that last, a histogram, is a raw value also where it is a total. ownRaw is the same for own.
	lastRaw, ownRaw bool
	err             error
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

// take reads the current sample of cur into the total. It reports whether the sample is later than t. An earlier one is
// read only for the value of own.
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
	if !c.hasOwn {
		c.ownRaw = v.h != nil && c.rawTotals()
	}
	c.own, c.ownT, c.hasOwn = v, t, true
	return on
}

// value is the current sample of cur. ok is false for stale markers and other NaNs.
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

// bridge is how much the total grows up to v, at t, where v is below the value before it. After a reset that is v. But
// a histogram that begins a chunk may be below only because the downsampled chunk before left out a reset: most of v
// was counted there already. Windows of one counter are much alike, so the growth is taken to be that of the window
// before, or v if that is less.
func (c *counterIterator) bridge(t int64, v counterValue) counterValue {
	if v.h == nil || c.hasOwn || c.stepT == 0 || !v.sameKind(c.step) || c.chunks[0].Aggr == nil || c.lastRaw {
		return v
	}
	guess := c.step.times(min(1, float64(t-c.t)/float64(c.stepT)))
	if v.size() <= guess.size() {
		return v
	}
	return guess
}

// rawTotals reports whether the totals of the chunk of histograms that is open are raw values. Thanos says in the
// header of each of its chunks that there was no reset before it, since it has looked at nothing. Hearth says that
// only where it is not known, or that there was one.
func (c *counterIterator) rawTotals() bool {
	aggr := c.chunks[c.next-1].Aggr
	if aggr == nil {
		return true
	}
	header := chunkenc.CounterResetHeader(aggr[Counter].Data[ResetFlags] & chunkenc.CounterResetHeaderMask)
	return header != chunkenc.NotCounterReset
}

// leave ends cur. Its last raw value becomes last only if no chunk before it reached further: a replica's chunk may end
// earlier.
func (c *counterIterator) leave() {
	if err := c.cur.Err(); err != nil {
		c.err = errs.E(errs.Internal, "corrupt counter chunk: %w", err)
	}
	if c.hasOwn && c.ownT == c.t {
		c.last, c.lastRaw = c.own, c.ownRaw
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

// Seek implements chunkenc.Iterator. It reads every sample on the way, because each may be a reset.
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

// AtHistogram implements chunkenc.Iterator. Nobody calls it, because all histograms have the type of float histograms.
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

// copied copies from into the memory of to and returns it. to may be nil.
func copied(from, to *histogram.FloatHistogram) *histogram.FloatHistogram {
	if to == nil {
		return from.Copy()
	}
	from.CopyTo(to)
	return to
}

// unknownUnlessGauge is for a histogram whose predecessor was not yielded: a hint about it would mislead readers.
func unknownUnlessGauge(h histogram.CounterResetHint) histogram.CounterResetHint {
	if h == histogram.GaugeType {
		return h
	}
	return histogram.UnknownCounterReset
}
