package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// finestIterator reads a series of which some chunks are downsampled. Each moment is answered once, by the finest
// resolution that has samples there: the sample of a window is left out when a finer one lies within the window, or
// another one of the same window came before it (of a replica whose chunk ends there). It reads in order from the
// start, so that the choice does not depend on seeks.
//
// Counters go on where one resolution takes over from another (enter), since each counts from a base of its own.
type finestIterator struct {
	readers   []resolutionReader // the finest resolution first
	reading *Reading
	counter bool
	cur     int // the chunkReader of the current sample, -1 before the first
	t       int64
	typ     chunkenc.ValueType
	total   counterValue // of a counter
	err     error
}

// resolutionReader is one resolution. Its iterator stands at the sample that comes next, or is the current one.
type resolutionReader struct {
	it   chunkenc.Iterator
	res  int64 // ms; 0 = raw
	typ  chunkenc.ValueType
	t    int64
	seen int64 // the last sample that was passed, taken or not
	// chunks are what it reads, from the one on that begins at the last sample or after it.
	chunks []Chunk
	// Of a counter, where joined: prev is what the chunkReader had at its last sample, base the total at that time.
	joined     bool
	prev, base counterValue
}

func newFinest(chunks []Chunk, r *Reading) *finestIterator {
	f := &finestIterator{reading: r, counter: r.Pick == PickCounter, cur: -1, t: math.MinInt64}
	for i, part := range byLevel(chunks, r.Resolution) {
		if len(part) == 0 {
			continue
		}
		l := resolutionReader{res: levels[i], seen: math.MinInt64, chunks: part}
		if f.counter {
			c := newCounterIterator(part, r)
			c.mint = math.MinInt64 // what comes before tells where a chunkReader stands
			l.it = c
		} else {
			l.it = r.plain(part, nil)
		}
		f.readers = append(f.readers, l)
	}
	return f
}

// Next implements chunkenc.Iterator.
func (f *finestIterator) Next() chunkenc.ValueType {
	if f.cur < 0 {
		for i := range f.readers {
			f.step(i)
		}
	} else if f.typ != chunkenc.ValNone {
		f.step(f.cur)
	}
	for f.Err() == nil {
		at := f.earliest()
		if at < 0 {
			break
		}
		l := &f.readers[at]
		taken := f.takes(at)
		l.seen = l.t
		if f.counter {
			f.count(at, taken)
		}
		if taken {
			f.cur, f.t, f.typ = at, l.t, l.typ
			if f.t >= f.reading.MinTime {
				return f.typ
			}
		}
		f.step(at)
	}
	f.typ, f.cur = chunkenc.ValNone, max(f.cur, 0)
	return f.typ
}

func (f *finestIterator) step(i int) {
	l := &f.readers[i]
	if l.typ = l.it.Next(); l.typ != chunkenc.ValNone {
		l.t = l.it.AtT()
	} else if err := l.it.Err(); err != nil {
		f.err = err
	}
}

// earliest is the chunkReader with the next sample; of several the finest. -1 = none has.
func (f *finestIterator) earliest() int {
	best := -1
	for i := range f.readers {
		if f.readers[i].typ != chunkenc.ValNone && (best < 0 || f.readers[i].t < f.readers[best].t) {
			best = i
		}
	}
	return best
}

// takes reports whether the next sample of chunkReader i answers for its time: no finer one does, and none of the same window
// did. A counter has several in a window: what one counted says nothing of the next.
func (f *finestIterator) takes(i int) bool {
	t := f.readers[i].t
	from, _ := window(t, f.readers[i].res)
	for j := range f.readers[:i] {
		if f.readers[j].seen >= from {
			return false
		}
	}
	return t > f.t && (f.counter || f.readers[i].seen < from || f.readers[i].begins(t))
}

// begins reports whether a chunk begins with a sample at t.
func (l *resolutionReader) begins(t int64) bool {
	for len(l.chunks) > 0 && l.chunks[0].MinTime < t {
		l.chunks = l.chunks[1:]
	}
	return len(l.chunks) > 0 && l.chunks[0].MinTime == t
}

// count brings the total up to the next sample of chunkReader i, if that is taken; otherwise the chunkReader learns where the total
// stands.
func (f *finestIterator) count(i int, taken bool) {
	l := &f.readers[i]
	it := l.it.(*counterIterator)
	v := it.total
	switch {
	case !taken:
	case f.cur < 0 || it.gauge || !v.sameKind(f.total):
		f.total = v
	case !l.joined || !v.sameKind(l.prev):
		f.total = f.total.plus(f.enter(l.t, v))
	default:
		more := v.minus(l.prev)
		if i != f.cur { // of that, the others counted a part
			more = more.minusOrZero(f.total.minus(l.base))
		}
		f.total = f.total.plus(more)
	}
	l.prev, l.base, l.joined = v, f.total, true
}

// enter is what was counted up to the first sample of a chunkReader, at t with v. Where the chunkReader before ended there, v is a
// raw value to compare with its last one. Where that goes on, t lies between two of its totals.
func (f *finestIterator) enter(t int64, v counterValue) counterValue {
	p := &f.readers[f.cur]
	before := p.it.(*counterIterator)
	switch {
	case p.typ == chunkenc.ValNone && v.below(before.last):
		return before.bridge(t, v)
	case p.typ == chunkenc.ValNone:
		return v.minus(before.last)
	}
	return before.total.minusOrZero(p.prev).times(float64(t-f.t) / float64(max(p.t-f.t, 1)))
}

// stands implements rangeIterator.
func (f *finestIterator) sampleRange() (from, to int64) { return window(f.t, f.readers[f.cur].res) }

// Seek implements chunkenc.Iterator.
func (f *finestIterator) Seek(t int64) chunkenc.ValueType {
	if f.typ != chunkenc.ValNone && f.t >= t {
		return f.typ
	}
	for f.Next() != chunkenc.ValNone {
		if f.t >= t {
			return f.typ
		}
	}
	return chunkenc.ValNone
}

// At implements chunkenc.Iterator.
func (f *finestIterator) At() (int64, float64) {
	if f.counter {
		return f.t, f.total.v
	}
	return f.readers[f.cur].it.At()
}

// AtHistogram implements chunkenc.Iterator.
func (f *finestIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := f.readers[f.cur].it.AtHistogram(h)
	h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (f *finestIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if f.counter {
		return f.t, copied(f.total.h, h)
	}
	t, h := f.readers[f.cur].it.AtFloatHistogram(h)
	h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	return t, h
}

// AtT implements chunkenc.Iterator.
func (f *finestIterator) AtT() int64 { return f.t }

// AtST implements chunkenc.Iterator.
func (f *finestIterator) AtST() int64 { return 0 }

// Err implements chunkenc.Iterator.
func (f *finestIterator) Err() error {
	if f.err == nil && f.reading.Stop.isSet() {
		return f.reading.Stop.err()
	}
	return f.err
}
