package series

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// dedupIterator reads one replica of a series, and changes to another one where the first has a gap:
//
//   - The interval is the distance of samples here: the smallest of what the chunks of any replica say of this time,
//     and of
//     the last two distances that were seen. A long outage is no interval, so nothing is skipped after it.
//   - A replica has a gap when its next sample is more than one and a half intervals away. The next sample then is the
//     earliest one that any replica has, half an interval after the last one or later: the result is not denser than a
//     scrape.
//   - A stale marker is a gap as well: it counts only if no other replica has a sample around that time.
//   - It reads in order from the start, so that the place of a change does not depend on seeks.
//
// Clocks of replicas differ, so the first sample after a change can be older than its timestamp says, and a counter
// would go back, which rate takes for a reset. Samples of a counter that are below the last value are left out for two
// intervals, and lifted to that value afterwards. A replica that went down by itself after the last sample shows a true
// reset, which stays.
type dedupIterator struct {
	replicas []dedupReplica
	counter  bool
	totals   bool   // downsampled counters, whose totals have bases of their own
	out      counterValue // of totals: the current sample
	cur      int
	started  bool
	t        int64
	typ      chunkenc.ValueType
	value    float64  // of the current sample of a counter, lifted
	stale    bool     // the current sample is a stale marker
	spacings [2]int64 // of the last samples within a replica, ms; 0 = not seen
	broken   bool     // cur changed with this sample
	whole    *histogram.Histogram
	float    *histogram.FloatHistogram
}

// dedupReplica is one copy. Its iterator stands at the sample that is read next, or was read last.
type dedupReplica struct {
	it      rangeIterator
	typ     chunkenc.ValueType
	ended   bool
	t       int64
	value   float64 // of a counter: what it counts, not lifted
	stale   bool
	lift    float64 // added to floats of a counter
	before  float64 // of a counter: the value before this sample; NaN = none
	dropped int64   // of a counter: when it was last seen to go down, math.MinInt64 = never
	now     counterValue  // of totals: this sample
	prev    counterValue  // and the one before it, where followed
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
	if d.broken = d.started && next != d.cur; d.broken {
		d.join(r)
	}
	if d.totals && !r.stale {
		d.out = d.grown(r)
	}
	d.cur, d.t, d.typ, d.stale, d.value, d.started = next, r.t, r.typ, r.stale, r.value+r.lift, true
	return d.typ
}

// grown is the total at the sample that r stands at: it grows by what r counted since its sample before.
func (d *dedupIterator) grown(r *dedupReplica) counterValue {
	switch {
	case !d.started || !r.now.sameKind(d.out):
		return r.now
	case !r.follows, math.IsNaN(r.now.v): // a total stays NaN once it is
		return d.out
	case r.now.below(r.prev):
		return d.out.plus(r.now)
	}
	return d.out.plus(r.now.minus(r.prev))
}

// after is the replica that has the next sample, at which it then stands; -1 = none has.
func (d *dedupIterator) after() int {
	r := &d.replicas[d.cur]
	d.load(d.cur, r.it.Next())
	for d.stale && r.stale && !r.ended { // a marker after a marker says nothing
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

// earlier is which of two replicas is read: the one whose sample comes first. But a stale marker does not hide a sample
// that comes up to one and a half intervals after it. a may be -1.
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

// catchUp moves replica i, which is not the current one, to the first sample that may follow the current sample; false
// if it has none. A stale marker does not follow another.
func (d *dedupIterator) catchUp(i int, interval int64) bool {
	r, from := &d.replicas[i], d.t+max(interval/2, 1)
	if r.ended {
		return false
	}
	if r.t < from {
		to := from
		if d.counter { // whether it went down after the current sample shows only with a sample before it
			to = d.t - 2*interval
		}
		if r.t < to {
			d.load(i, r.it.Seek(to))
			r.before, r.dropped, r.follows = math.NaN(), math.MinInt64, false
		}
	}
	for !r.ended && (r.t < from || d.stale && r.stale || d.behind(r) && r.t <= d.t+2*interval) {
		d.load(i, r.it.Next())
	}
	return !r.ended
}

// behind reports whether r's sample would make a counter go back although no reset was seen in r since the current
// sample.
func (d *dedupIterator) behind(r *dedupReplica) bool {
	return d.counter && !d.totals && r.dropped <= d.t && r.value+r.lift < d.value
}

// join makes the values of r, which takes over with the sample that it stands at, go on from the current one.
func (d *dedupIterator) join(r *dedupReplica) {
	if r.typ == chunkenc.ValFloat && d.typ == chunkenc.ValFloat && !r.stale && d.behind(r) {
		r.lift = d.value - r.value
	}
}

// load takes over the sample that the iterator of replica i has come to.
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
		r.before = before // a series that went away and came back counts on from its value
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
		r.dropped, r.lift = r.t, 0
	}
}

// counted is what a histogram counts, or the stale marker that it is.
func counted(sum, count float64) float64 {
	if value.IsStaleNaN(sum) {
		return sum
	}
	return count
}

// noInterval is the interval in ms where nothing is known of the distance of samples. mostInterval keeps what a foreign
// store says of its chunks from overflowing sums.
const noInterval, mostInterval = 5_000, 1 << 40

// interval is the distance of samples around the current one, ms.
func (d *dedupIterator) interval() int64 {
	least := int64(mostInterval)
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
	if least == mostInterval {
		return noInterval
	}
	return least
}

// spacing is the mean distance in ms of the samples of the chunk that covers t, or else of the next one; 0 = not known.
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
	if r.lift == 0 || r.stale { // adding would make a plain NaN of a stale marker
		return t, v
	}
	return t, v + r.lift
}

// AtHistogram implements chunkenc.Iterator.
func (d *dedupIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := d.replicas[d.cur].it.AtHistogram(h)
	if d.broken {
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
	if d.broken {
		h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	}
	return t, h
}

// stands implements rangeIterator.
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
