package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// finestIterator reads a series that has downsampled chunks. For each time it yields a sample of one resolution only:
// the finest one that has samples there. It leaves out the sample of a window when
//
//   - a finer sample lies within the window, or
//   - it has passed another sample of that window, and no chunk begins with this one. A chunk that ends within a window
//     has its last sample there, and a replica whose chunk goes on has a later sample of the same window.
//
// It reads in order from the start, so that the choice does not depend on seeks.
//
// Each resolution of a counter counts from a base of its own. Where one resolution takes over from another, the total
// goes on (enter); otherwise rate would see a reset or a jump.
type finestIterator struct {
	readers []resolutionReader // the finest resolution first
	reading *Reading
	counter bool
	cur     int // the reader of the current sample, -1 before the first
	t       int64
	typ     chunkenc.ValueType
	total   counterValue // of a counter: what it has counted up to t
	err     error
}

// resolutionReader reads the chunks of one resolution. Its iterator is at the current sample or, in a reader that is
// not the current one, at the sample that comes next.
type resolutionReader struct {
	it   chunkenc.Iterator
	res  int64 // ms; 0 = raw
	typ  chunkenc.ValueType
	t    int64
	seen int64 // the time of the last sample that was passed, yielded or not
	// chunks are those that begin at the sample of the last call of begins, or later.
	chunks []Chunk
	// For a counter, once joined is set: prev is the value of the last passed sample, base the total at its time.
	joined     bool
	prev, base counterValue
}

func newFinest(chunks []Chunk, r *Reading) *finestIterator {
	f := &finestIterator{reading: r, counter: r.Pick == PickCounter, cur: -1, t: math.MinInt64}
	for i, part := range byLevel(chunks, r.Resolution) {
		if len(part) == 0 {
			continue
		}
		reader := resolutionReader{res: levels[i], seen: math.MinInt64, chunks: part}
		if f.counter {
			c := newCounterIterator(part, r)
			c.mint = math.MinInt64 // earlier samples are needed to align the counters of the resolutions
			reader.it = c
		} else {
			reader.it = r.plain(part, nil)
		}
		f.readers = append(f.readers, reader)
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
		r := &f.readers[at]
		taken := f.takes(at)
		r.seen = r.t
		if f.counter {
			f.count(at, taken)
		}
		if taken {
			f.cur, f.t, f.typ = at, r.t, r.typ
			if f.t >= f.reading.MinTime {
				return f.typ
			}
		}
		f.step(at)
	}
	f.typ, f.cur = chunkenc.ValNone, max(f.cur, 0)
	return f.typ
}

// step moves reader i to its next sample.
func (f *finestIterator) step(i int) {
	r := &f.readers[i]
	if r.typ = r.it.Next(); r.typ != chunkenc.ValNone {
		r.t = r.it.AtT()
	} else if err := r.it.Err(); err != nil {
		f.err = err
	}
}

// earliest is the reader with the earliest sample, of several the finest one. -1 = no reader has a sample.
func (f *finestIterator) earliest() int {
	best := -1
	for i := range f.readers {
		if f.readers[i].typ != chunkenc.ValNone && (best < 0 || f.readers[i].t < f.readers[best].t) {
			best = i
		}
	}
	return best
}

// takes reports whether to yield the next sample of reader i (see finestIterator). Of a counter, all samples of a
// window are yielded where no finer one is, because each of them may have counted more.
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
func (r *resolutionReader) begins(t int64) bool {
	for len(r.chunks) > 0 && r.chunks[0].MinTime < t {
		r.chunks = r.chunks[1:]
	}
	return len(r.chunks) > 0 && r.chunks[0].MinTime == t
}

// count brings the total up to the next sample of reader i, if that sample is taken. In both cases the reader remembers
// its value and the total, for the next call.
func (f *finestIterator) count(i int, taken bool) {
	r := &f.readers[i]
	it := r.it.(*counterIterator)
	v := it.total
	switch {
	case !taken:
	case f.cur < 0 || it.gauge || !v.sameKind(f.total):
		f.total = v
	case !r.joined || !v.sameKind(r.prev):
		f.total = f.total.plus(f.enter(r.t, v))
	default:
		more := v.minus(r.prev)
		if i != f.cur { // the other readers have counted a part of that
			more = more.minusOrZero(f.total.minus(r.base))
		}
		f.total = f.total.plus(more)
	}
	r.prev, r.base, r.joined = v, f.total, true
}

// enter is how much the total grows up to the first sample of a reader, which has the time t and the value v. If the
// current reader has ended, v is compared with its last raw value. If it goes on, t lies between two of its totals, and
// it is given the part of their difference that belongs to the time up to t.
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

// sampleRange implements rangeIterator.
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
