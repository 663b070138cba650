package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Iterator is the union of the samples of a series' chunks, in time order, one sample per timestamp. Chunks may overlap
// and repeat each other. Where chunks have different values for one timestamp, sampleComparer chooses.
//
// It decodes a chunk only when it reaches the chunk's time, and skips whole chunks on Seek. It reuses the memory of
// earlier chunks, also after Reset. A counter reset hint compares a sample with the one before it in its chunk. If the
// iterator did not yield that one just before, the hint becomes unknown, so that readers compare values instead.
type Iterator struct {
	chunks  []Chunk
	pick    Pick
	next    int           // position in chunks of the first one that was not opened
	readers []chunkReader // [:open] have a sample each, the rest is for reuse
	open    int
	cur     int   // the reader of the current sample
	overlap bool  // chunks overlap
	starts  bool  // an opened chunk may have start timestamps
	mint    int64 // no sample outside [mint, maxt] is yielded
	maxt    int64
	t       int64
	typ     chunkenc.ValueType
	err     error
	cmp     sampleComparer
	stop    *StopFlag // nil = never stops
}

// chunkReader reads one chunk.
type chunkReader struct {
	decoder
	it   chunkenc.Iterator
	typ  chunkenc.ValueType
	t    int64
	v    float64 // the value, if it is a float
	maxt int64
	// detached says that the iterator did not yield the chunk's sample before this one as its last sample. The counter
	// reset hint is wrong then.
	detached bool
}

// step moves r to the next sample of its chunk.
func (r *chunkReader) step() {
	switch r.typ = r.it.Next(); r.typ {
	case chunkenc.ValNone:
	case chunkenc.ValFloat:
		r.t, r.v = r.it.At()
	default:
		r.t = r.it.AtT()
	}
}

// NewIterator returns an iterator over chunks, which must be in (MinTime, MaxTime) order. pick says which aggregate of
// downsampled chunks it reads.
func NewIterator(chunks []Chunk, pick Pick) *Iterator {
	it := new(Iterator)
	it.Reset(chunks, pick)
	return it
}

// Reset starts over with other chunks, without bounds of time. The iterator keeps its memory.
func (it *Iterator) Reset(chunks []Chunk, pick Pick) {
	it.chunks, it.pick, it.next, it.open, it.cur = chunks, pick, 0, 0, 0
	it.t, it.typ, it.err, it.overlap, it.starts = math.MinInt64, chunkenc.ValNone, nil, false, false
	it.mint, it.maxt = math.MinInt64, math.MaxInt64
	for i := 1; i < len(chunks) && !it.overlap; i++ {
		it.overlap = chunks[i].MinTime <= chunks[i-1].MaxTime
	}
}

// Bound makes the iterator yield only samples within [mint, maxt], both in ms. Call it before the first Next.
func (it *Iterator) Bound(mint, maxt int64) { it.mint, it.maxt = mint, maxt }

// Next implements chunkenc.Iterator.
func (it *Iterator) Next() chunkenc.ValueType {
	if it.err != nil {
		return chunkenc.ValNone
	}
	if it.stop.isSet() {
		return it.end(it.stop.err())
	}
	if it.open == 1 && (it.next == len(it.chunks) || it.readers[0].maxt < it.chunks[it.next].MinTime) {
		r := &it.readers[0]
		r.detached = false
		if r.step(); r.typ != chunkenc.ValNone {
			if it.t, it.typ = r.t, r.typ; it.t <= it.maxt {
				return it.typ
			}
			return it.end(nil)
		}
	}
	if it.t == math.MaxInt64 {
		return it.end(nil)
	}
	return it.advance(it.after())
}

// Seek implements chunkenc.Iterator.
func (it *Iterator) Seek(t int64) chunkenc.ValueType {
	if it.err != nil || it.typ != chunkenc.ValNone && it.t >= t {
		return it.typ
	}
	if it.stop.isSet() {
		return it.end(it.stop.err())
	}
	return it.advance(max(t, it.after()))
}

// after is the smallest timestamp that the next sample may have.
func (it *Iterator) after() int64 {
	if it.open == 0 && it.next == 0 {
		return it.mint
	}
	return max(it.mint, it.t+1)
}

// advance moves to the first sample at floor or later.
func (it *Iterator) advance(floor int64) chunkenc.ValueType {
	for i := range it.open {
		it.readers[i].detached = i != it.cur
	}
	for i := 0; i < it.open; {
		r := &it.readers[i]
		if r.t < floor && r.maxt >= floor {
			r.step() // this is enough for most samples
		}
		if (r.typ == chunkenc.ValNone || r.t < floor) && !it.forward(r, floor) {
			if it.err != nil {
				return it.end(it.err)
			}
			it.shut(i)
			continue
		}
		i++
	}
	it.cur = it.earliest()
	for it.next < len(it.chunks) && (it.open == 0 || it.chunks[it.next].MinTime <= it.readers[it.cur].t) {
		if !it.openNext(floor) && it.err != nil {
			return it.end(it.err)
		}
		it.cur = it.earliest()
	}
	if it.open == 0 || it.readers[it.cur].t > it.maxt {
		return it.end(nil)
	}
	it.t = it.readers[it.cur].t
	if it.open > 1 {
		it.settle()
	}
	it.typ = it.readers[it.cur].typ
	return it.typ
}

func (it *Iterator) end(err error) chunkenc.ValueType {
	it.err, it.typ, it.open, it.next = err, chunkenc.ValNone, 0, len(it.chunks)
	return it.typ
}

// forward moves r to its first sample at floor or later. It is false when there is none, or when the chunk is corrupt
// (it.err).
func (it *Iterator) forward(r *chunkReader, floor int64) bool {
	if r.maxt < floor && r.typ != chunkenc.ValNone {
		return false
	}
	for r.typ != chunkenc.ValNone && r.t < floor {
		r.step()
	}
	if r.typ == chunkenc.ValNone {
		if err := r.it.Err(); err != nil {
			it.err = errs.E(errs.Internal, "corrupt chunk: %w", err)
		}
		return false
	}
	return true
}

// openNext opens the next chunk. It is false when the chunk has no sample at floor or later, and after an error
// (it.err).
func (it *Iterator) openNext(floor int64) bool {
	c := &it.chunks[it.next]
	it.next++
	if c.MaxTime < floor {
		return false
	}
	if it.open == len(it.readers) {
		it.readers = append(it.readers, chunkReader{})
	}
	r := &it.readers[it.open]
	if r.it, it.err = r.decode(c, it.pick); it.err != nil || r.it == nil {
		return false
	}
	r.maxt, r.detached = c.MaxTime, it.overlap
	it.starts = it.starts || c.Raw.Encoding > chunkenc.EncFloatHistogram
	r.step()
	if !it.forward(r, floor) {
		return false
	}
	it.open++
	return true
}

// shut closes reader i. Its memory stays for reuse.
func (it *Iterator) shut(i int) {
	it.open--
	it.readers[i], it.readers[it.open] = it.readers[it.open], it.readers[i]
}

// earliest is the reader with the earliest sample. Of several it is the one that yielded the last sample, because its
// counter reset hints are right.
func (it *Iterator) earliest() int {
	best := 0
	for i := 1; i < it.open; i++ {
		r, b := &it.readers[i], &it.readers[best]
		if r.t < b.t || r.t == b.t && b.detached && !r.detached {
			best = i
		}
	}
	return best
}

// settle chooses among the readers that have a sample at it.t. Where values are equal, it.cur stays.
func (it *Iterator) settle() {
	for i := range it.open {
		if r := &it.readers[i]; i != it.cur && r.t == it.t && it.cmp.prefer(r, &it.readers[it.cur]) {
			it.cur = i
		}
	}
}

// At implements chunkenc.Iterator.
func (it *Iterator) At() (int64, float64) { return it.t, it.readers[it.cur].v }

// AtT implements chunkenc.Iterator.
func (it *Iterator) AtT() int64 { return it.t }

// AtST implements chunkenc.Iterator. The engine calls it for each sample, and few chunks have start timestamps, so
// starts saves the call to the chunk.
func (it *Iterator) AtST() int64 {
	if !it.starts {
		return 0
	}
	return it.readers[it.cur].it.AtST()
}

// AtHistogram implements chunkenc.Iterator.
func (it *Iterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	r := &it.readers[it.cur]
	t, h := r.it.AtHistogram(h)
	if r.detached {
		h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	}
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *Iterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	r := &it.readers[it.cur]
	t, h := r.it.AtFloatHistogram(h)
	if r.detached {
		h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	}
	return t, h
}

// sampleRange implements rangeIterator: a sample without a window stands for its own timestamp.
func (it *Iterator) sampleRange() (from, to int64) { return it.t, it.t }

// Err implements chunkenc.Iterator. It reports the end of the context also when all samples were read before that.
func (it *Iterator) Err() error {
	if it.err == nil && it.stop.isSet() {
		return it.stop.err()
	}
	return it.err
}
