package series

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// dedupIterator reads one HA replica of a series, and changes to another one where the first has a gap
// (docs/design/013-ha-dedup.md):
//
//   - The interval is the distance of samples at the current time. It is the smallest of the distances that the chunks
//     of the replicas have there, and of the last two distances that were read. A long outage is no interval, so
//     nothing is skipped after it.
//   - A replica has a gap when its next sample is more than one and a half intervals away. The next sample then is the
//     earliest one of any replica that is at least half an interval after the current one. So the result is not denser
//     than the scrapes.
//   - A stale marker is a gap, too. It is yielded only if no other replica has a sample around that time.
//   - The iterator reads in order from the start, so that the place of a change does not depend on seeks.
//
// Clocks of replicas differ. The first sample after a change can be older than its timestamp says, so a counter could
// go back, which rate takes for a reset. For two intervals, samples of a counter that are below the last value are left
// out. If they are still below it then, an offset lifts them to the last value. A replica whose own value went down
// after the current sample shows a true reset, which stays.
type dedupIterator struct {
	replicas []dedupReplica
	counter  bool
	totals   bool         // downsampled counters: each replica counts from a base of its own
	out      counterValue // where totals is set: the current sample
	cur      int
	started  bool
	t        int64
	typ      chunkenc.ValueType
	value    float64  // of the current sample of a counter, with its offset
	stale    bool     // the current sample is a stale marker
	spacings [2]int64 // of the last samples within a replica, ms; 0 = not seen
	changed  bool     // cur changed with this sample
	whole    *histogram.Histogram
	float    *histogram.FloatHistogram
}

// dedupReplica is one HA replica. Its iterator is at the current sample, or in another replica than the current one at
// a sample that may come next.
type dedupReplica struct {
	it      rangeIterator
	typ     chunkenc.ValueType
	ended   bool
	t       int64
	value   float64 // of a counter: its own value, without the offset
	stale   bool
	offset  float64      // added to the floats of a counter
	before  float64      // of a counter: the value of the sample before this one; NaN = none
	dropped int64        // of a counter: the time of the last reset that was read; math.MinInt64 = none
	now     counterValue // where totals is set: this sample
	prev    counterValue // the sample before now, valid if follows is set
	follows bool
	chunks  []Chunk
	at      int // the chunk that spacing looked at last
	pick    Pick
}

func (d *dedupIterator) reset(replicas [][]Chunk, r *Reading) {
	before := d.replicas[:cap(d.replicas)]
	*d = dedupIterator{replicas: d.replicas[:0], t: math.MinInt64, counter: r.Counter || r.Pick == PickCounter,
		whole: d.whole, float: d.float}
	for i, chunks := range replicas {
		var old chunkenc.Iterator
		if i < len(before) {
			old = before[i].it
		}
		d.replicas = append(d.replicas, dedupReplica{
			it: r.samples(chunks, old), chunks: chunks, pick: r.Pick,
			value: math.NaN(), before: math.NaN(), dropped: math.MinInt64,
		})
		d.totals = d.totals || r.Pick == PickCounter && isDownsampled(chunks)
	}
}

// Next implements chunkenc.Iterator.
func (d *dedupIterator) Next() chunkenc.ValueType {
	next := -1
	if !d.started {
		for i := range d.replicas {
			d.load(i, d.replicas[i].it.Next())
			next = d.earlier(next, i)
		}
	} else if d.typ != chunkenc.ValNone {
		next = d.after()
	}
	if next < 0 {
		d.typ = chunkenc.ValNone
		return d.typ
	}
	r := &d.replicas[next]
	if d.changed = d.started && next != d.cur; d.changed {
		d.join(r)
	}
	if d.totals && !r.stale {
		d.out = d.totalAt(r)
	}
	d.cur, d.t, d.typ, d.stale, d.value, d.started = next, r.t, r.typ, r.stale, r.value+r.offset, true
	return d.typ
}

// totalAt is the total at the sample of r. It grows by the difference to r's sample before that one.
func (d *dedupIterator) totalAt(r *dedupReplica) counterValue {
	switch {
	case !d.started || !r.now.sameKind(d.out):
		return r.now
	case !r.follows, math.IsNaN(r.now.v): // a total that is NaN once stays NaN
		return d.out
	case r.now.below(r.prev):
		return d.out.plus(r.now)
	}
	return d.out.plus(r.now.minus(r.prev))
}

// after finds the replica with the next sample and moves it there. -1 = no replica has one.
func (d *dedupIterator) after() int {
	r := &d.replicas[d.cur]
	d.load(d.cur, r.it.Next())
	for d.stale && r.stale && !r.ended { // a marker after a marker is useless
		d.load(d.cur, r.it.Next())
	}
	interval := d.interval()
	if !r.ended && !r.stale {
		distance := r.t - d.t
		if !d.stale {
			d.spacings = [2]int64{distance, d.spacings[0]}
			interval = min(interval, distance)
		}
		if distance <= interval+interval/2 {
			return d.cur
		}
	}
	next := -1
	if !r.ended {
		next = d.cur
	}
	for i := range d.replicas {
		if i != d.cur && d.catchUp(i, interval) {
			next = d.earlier(next, i)
		}
	}
	return next
}

// earlier chooses between two replicas: the one whose sample comes first is read. But a stale marker does not hide a
// sample that comes up to one and a half intervals after it. a may be -1.
func (d *dedupIterator) earlier(a, b int) int {
	switch {
	case d.replicas[b].ended:
		return a
	case a < 0:
		return b
	}
	if d.replicas[a].stale != d.replicas[b].stale {
		living, marker := a, b
		if d.replicas[a].stale {
			living, marker = b, a
		}
		interval := d.interval()
		if d.replicas[living].t <= d.replicas[marker].t+interval+interval/2 {
			return living
		}
	}
	if d.replicas[b].t < d.replicas[a].t {
		return b
	}
	return a
}

// catchUp moves replica i, which is not the current one, to its first sample that may follow the current sample. It is
// false if there is none. A stale marker does not follow another.
func (d *dedupIterator) catchUp(i int, interval int64) bool {
	r, from := &d.replicas[i], d.t+max(interval/2, 1)
	if r.ended {
		return false
	}
	if r.t < from {
		to := from
		if d.counter { // a reset after the current sample shows only if a sample before it is read, too
			to = d.t - 2*interval
		}
		if r.t < to {
			d.load(i, r.it.Seek(to))
			r.before, r.dropped, r.follows = math.NaN(), math.MinInt64, false
		}
	}
	for !r.ended && (r.t < from || d.stale && r.stale || d.goesBack(r) && r.t <= d.t+2*interval) {
		d.load(i, r.it.Next())
	}
	return !r.ended
}

// goesBack reports whether r's sample would make a counter go back although r had no reset after the current sample.
func (d *dedupIterator) goesBack(r *dedupReplica) bool {
	return d.counter && !d.totals && r.dropped <= d.t && r.value+r.offset < d.value
}

// join sets the offset of r, which takes over, so that its values go on from the current one.
func (d *dedupIterator) join(r *dedupReplica) {
	if r.typ == chunkenc.ValFloat && d.typ == chunkenc.ValFloat && !r.stale && d.goesBack(r) {
		r.offset = d.value - r.value
	}
}

// load reads the sample that the iterator of replica i has moved to. typ is its type.
func (d *dedupIterator) load(i int, typ chunkenc.ValueType) {
	r := &d.replicas[i]
	before := r.value
	if d.totals && typ == chunkenc.ValHistogram {
		typ = chunkenc.ValFloatHistogram
	}
	r.typ, r.stale = typ, false
	v := math.NaN()
	switch typ {
	case chunkenc.ValNone:
		r.ended = true
		return
	case chunkenc.ValFloat:
		r.t, v = r.it.At()
	case chunkenc.ValHistogram:
		r.t, d.whole = r.it.AtHistogram(d.whole)
		v = counted(d.whole.Sum, float64(d.whole.Count))
	case chunkenc.ValFloatHistogram:
		r.t, d.float = r.it.AtFloatHistogram(d.float)
		v = counted(d.float.Sum, d.float.Count)
	}
	if r.stale = value.IsStaleNaN(v); r.stale {
		r.before = before // if the series comes back, its counter is compared with the value before it went away
		return
	}
	r.before, r.value = before, v
	if d.totals {
		now := counterValue{v: v}
		if typ == chunkenc.ValFloatHistogram {
			now = counterValue{h: d.float.Copy()}
		}
		r.prev, r.now, r.follows = r.now, now, now.sameKind(r.now) && !math.IsNaN(before)
	}
	if v < before {
		r.dropped, r.offset = r.t, 0
	}
}

// counted is the number of observations of a histogram, or a stale marker if the histogram is one.
func counted(sum, count float64) float64 {
	if value.IsStaleNaN(sum) {
		return sum
	}
	return count
}

// defaultInterval is the interval in ms where the distance of samples is not known. maxInterval bounds it: the times of
// chunks of a foreign store may be arbitrary, and sums with them would overflow.
const defaultInterval, maxInterval = 5_000, 1 << 40

// interval is the distance in ms of the samples around the current one (see dedupIterator).
func (d *dedupIterator) interval() int64 {
	least := int64(maxInterval)
	for i := range d.replicas {
		if s := d.replicas[i].spacing(d.t); s > 0 {
			least = min(least, s)
		}
	}
	for _, s := range d.spacings {
		if s > 0 {
			least = min(least, s)
		}
	}
	if least == maxInterval {
		return defaultInterval
	}
	return least
}

// spacing is the mean distance in ms of the samples of the chunk that covers t or, if none does, of the next chunk. It
// does not decode the chunk. 0 = not known.
func (r *dedupReplica) spacing(t int64) int64 {
	for r.at < len(r.chunks)-1 && r.chunks[r.at].MaxTime < t {
		r.at++
	}
	if len(r.chunks) == 0 {
		return 0
	}
	c := &r.chunks[r.at]
	e := c.Raw
	if c.Aggr != nil {
		e = c.Aggr[r.pick.Aggregates()[0]]
	}
	if len(e.Data) < minChunkBytes {
		return 0
	}
	if n := int64(binary.BigEndian.Uint16(e.Data)); n > 1 && c.MaxTime > c.MinTime {
		return max((c.MaxTime-c.MinTime)/(n-1), 1)
	}
	return 0
}

// Seek implements chunkenc.Iterator.
func (d *dedupIterator) Seek(t int64) chunkenc.ValueType {
	if d.typ != chunkenc.ValNone && d.t >= t {
		return d.typ
	}
	for d.Next() != chunkenc.ValNone {
		if d.t >= t {
			return d.typ
		}
	}
	return chunkenc.ValNone
}

// At implements chunkenc.Iterator.
func (d *dedupIterator) At() (int64, float64) {
	r := &d.replicas[d.cur]
	t, v := r.it.At()
	if d.totals && !r.stale {
		return t, d.out.v
	}
	if r.offset == 0 || r.stale { // an addition would make a stale marker a plain NaN
		return t, v
	}
	return t, v + r.offset
}

// AtHistogram implements chunkenc.Iterator.
func (d *dedupIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := d.replicas[d.cur].it.AtHistogram(h)
	if d.changed {
		h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	}
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (d *dedupIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, h := d.replicas[d.cur].it.AtFloatHistogram(h)
	if d.totals && !d.stale {
		return t, copied(d.out.h, h)
	}
	if d.changed {
		h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	}
	return t, h
}

// sampleRange implements rangeIterator.
func (d *dedupIterator) sampleRange() (from, to int64) { return d.replicas[d.cur].it.sampleRange() }

// AtT implements chunkenc.Iterator.
func (d *dedupIterator) AtT() int64 { return d.t }

// AtST implements chunkenc.Iterator.
func (d *dedupIterator) AtST() int64 { return d.replicas[d.cur].it.AtST() }

// Err implements chunkenc.Iterator.
func (d *dedupIterator) Err() error {
	for i := range d.replicas {
		if err := d.replicas[i].it.Err(); err != nil {
			return err
		}
	}
	return nil
}
