package series

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Iterator is the union of the samples of a series' chunks, in time order, one sample per timestamp. Chunks may overlap
// and repeat each other. Where several values stand for one timestamp, prefer decides.
//
// It decodes a chunk only when its time has come, skips whole chunks on Seek, and reuses what it allocated for the
// chunks before, also across Reset. A counter reset hint is kept only where the sample that it compares to was yielded
// just before; elsewhere it becomes unknown, so that readers compare values.
type Iterator struct {
	chunks []Chunk
	pick   Pick
	next   int    // position in chunks of the first one that was not opened
	readers  []chunkReader // [:open] stand at a sample each, the rest is for reuse
	open   int
	cur    int   // the chunkReader whose sample is the current one
	mixed  bool  // chunks overlap
	starts bool  // a chunk that was opened may have start timestamps
	mint   int64 // bounds of what is yielded
	maxt   int64
	t      int64
	typ    chunkenc.ValueType
	err    error
	cmp    sampleComparer
	stop   *StopFlag // nil = for ever
}

// chunkReader is one chunk being read.
type chunkReader struct {
	decoder
	it   chunkenc.Iterator
	typ  chunkenc.ValueType
	t    int64
	v    float64 // the value, if it is a float
	maxt int64
	// broken says that the sample before this one in the chunk is not the one yielded before it.
	broken bool
}

// step moves l to its next sample.
func (l *chunkReader) step() {
	switch l.typ = l.it.Next(); l.typ {
	case chunkenc.ValNone:
	case chunkenc.ValFloat:
		l.t, l.v = l.it.At()
	default:
		l.t = l.it.AtT()
	}
}

// NewIterator returns an iterator over chunks, which must be in (MinTime, MaxTime) order. pick says what is read of
// downsampled chunks.
func NewIterator(chunks []Chunk, pick Pick) *Iterator {
	it := new(Iterator)
	it.Reset(chunks, pick)
	return it
}

// Reset starts over with other chunks.
func (it *Iterator) Reset(chunks []Chunk, pick Pick) {
	it.chunks, it.pick, it.next, it.open, it.cur = chunks, pick, 0, 0, 0
	it.t, it.typ, it.err, it.mixed, it.starts = math.MinInt64, chunkenc.ValNone, nil, false, false
	it.mint, it.maxt = math.MinInt64, math.MaxInt64
	for i := 1; i < len(chunks) && !it.mixed; i++ {
		it.mixed = chunks[i].MinTime <= chunks[i-1].MaxTime
	}
}

// Bound makes the iterator yield only samples within [mint, maxt], both in ms. It is called before the first Next.
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
		l := &it.readers[0]
		l.broken = false
		if l.step(); l.typ != chunkenc.ValNone {
			if it.t, it.typ = l.t, l.typ; it.t <= it.maxt {
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

// after is the smallest timestamp that may still come.
func (it *Iterator) after() int64 {
	if it.open == 0 && it.next == 0 {
		return it.mint
	}
	return max(it.mint, it.t+1)
}

// advance moves to the first sample at or after floor.
func (it *Iterator) advance(floor int64) chunkenc.ValueType {
	for i := range it.open {
		it.readers[i].broken = i != it.cur
	}
	for i := 0; i < it.open; {
		l := &it.readers[i]
		if l.t < floor && l.maxt >= floor {
			l.step() // as a rule this is enough
		}
		if (l.typ == chunkenc.ValNone || l.t < floor) && !it.forward(l, floor) {
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

// forward moves l to its first sample at or after floor; false when it has none or is broken (it.err).
func (it *Iterator) forward(l *chunkReader, floor int64) bool {
	if l.maxt < floor && l.typ != chunkenc.ValNone {
		return false
	}
	for l.typ != chunkenc.ValNone && l.t < floor {
		l.step()
	}
	if l.typ == chunkenc.ValNone {
		if err := l.it.Err(); err != nil {
			it.err = errs.E(errs.Internal, "corrupt chunk: %w", err)
		}
		return false
	}
	return true
}

// openNext opens the next chunk; false when nothing of it is at or after floor.
func (it *Iterator) openNext(floor int64) bool {
	c := &it.chunks[it.next]
	it.next++
	if c.MaxTime < floor {
		return false
	}
	if it.open == len(it.readers) {
		it.readers = append(it.readers, chunkReader{})
	}
	l := &it.readers[it.open]
	if l.it, it.err = l.decode(c, it.pick); it.err != nil || l.it == nil {
		return false
	}
	l.maxt, l.broken = c.MaxTime, it.mixed
	it.starts = it.starts || c.Raw.Encoding > chunkenc.EncFloatHistogram
	l.step()
	if !it.forward(l, floor) {
		return false
	}
	it.open++
	return true
}

// shut ends chunkReader i and keeps its buffers.
func (it *Iterator) shut(i int) {
	it.open--
	it.readers[i], it.readers[it.open] = it.readers[it.open], it.readers[i]
}

// earliest is the chunkReader with the first sample; of several the one that yielded the last sample, whose hints hold.
func (it *Iterator) earliest() int {
	best := 0
	for i := 1; i < it.open; i++ {
		l, b := &it.readers[i], &it.readers[best]
		if l.t < b.t || l.t == b.t && b.broken && !l.broken {
			best = i
		}
	}
	return best
}

// settle chooses among the readers that have a sample at it.t; it.cur stays where values are equal.
func (it *Iterator) settle() {
	for i := range it.open {
		if l := &it.readers[i]; i != it.cur && l.t == it.t && it.cmp.prefer(l, &it.readers[it.cur]) {
			it.cur = i
		}
	}
}

// At implements chunkenc.Iterator.
func (it *Iterator) At() (int64, float64) { return it.t, it.readers[it.cur].v }

// AtT implements chunkenc.Iterator.
func (it *Iterator) AtT() int64 { return it.t }

// AtST implements chunkenc.Iterator. The engine asks it of each sample, and chunks with an answer are rare.
func (it *Iterator) AtST() int64 {
	if !it.starts {
		return 0
	}
	return it.readers[it.cur].it.AtST()
}

// AtHistogram implements chunkenc.Iterator.
func (it *Iterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	l := &it.readers[it.cur]
	t, h := l.it.AtHistogram(h)
	if l.broken {
		h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	}
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *Iterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	l := &it.readers[it.cur]
	t, h := l.it.AtFloatHistogram(h)
	if l.broken {
		h.CounterResetHint = unknownUnlessGauge(h.CounterResetHint)
	}
	return t, h
}

// stands implements rangeIterator.
func (it *Iterator) sampleRange() (from, to int64) { return it.t, it.t }

// Err implements chunkenc.Iterator. It tells of the end of a read's life also when all samples were read before.
func (it *Iterator) Err() error {
	if it.err == nil && it.stop.isSet() {
		return it.stop.err()
	}
	return it.err
}
