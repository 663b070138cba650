package merge

import (
	"bytes"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/xor"
)

// samplesPerChunk is how many samples a chunk that is encoded anew has at most, as in Prometheus.
const samplesPerChunk = 120

// encoder writes samples into chunks. It keeps its memory for the next stretch.
type encoder struct {
	in  []series.Chunk
	it  *series.Iterator
	one *series.Iterator
}

func (e *encoder) reset() {
	if e.it == nil {
		e.it, e.one = series.NewIterator(nil, series.PickAvg), series.NewIterator(nil, series.PickAvg)
	}
}

// encode appends the union of the samples of e.in in [mint, maxt) to dst, and counts those outside in clipped. What is
// wrong with the chunks is an error, also where the decoder panics.
func (e *encoder) encode(dst []Chunk, mint, maxt int64, clipped *int64) ([]Chunk, error) {
	e.it.Reset(e.in, series.PickAvg)
	return e.write(dst, e.it, func(t int64) bool {
		if t >= mint && t < maxt {
			return true
		}
		*clipped++
		return false
	})
}

// dedup is encode for the chunks of several HA replicas. What is outside is not counted.
func (e *encoder) dedup(dst []Chunk, replicas [][]series.Chunk, mint, maxt int64) ([]Chunk, error) {
	it := series.NewDedupIterator(replicas, &series.Reading{MinTime: mint, MaxTime: maxt - 1})
	return e.write(dst, it, func(int64) bool { return true })
}

// write appends chunks of the samples of it to dst that are at times which keep wants. Samples must be in order, and
// within the times that the index says of the chunks, so that what is written does not overlap its neighbours.
func (e *encoder) write(dst []Chunk, it chunkenc.Iterator, keep func(t int64) bool) (out []Chunk, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = dst, fmt.Errorf("panic in a chunk: %v", p)
		}
	}()
	before, last := int64(math.MinInt64), int64(math.MinInt64)
	for _, c := range e.in {
		last = max(last, c.MaxTime)
	}
	w := chunkWriter{out: dst}
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		t := it.AtT()
		if t <= before && w.any || t < e.in[0].MinTime || t > last {
			return dst, fmt.Errorf("a sample at %d after %d, in chunks from %d to %d", t, before, e.in[0].MinTime, last)
		}
		before, w.any = t, true
		if !keep(t) {
			continue
		}
		if err := w.append(it, typ); err != nil {
			return dst, err
		}
	}
	w.cut()
	return w.out, it.Err()
}

// decodes reports what is wrong with one chunk.
func (e *encoder) decodes(c series.Chunk) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in the chunk from %d to %d: %v", c.MinTime, c.MaxTime, p)
		}
	}()
	e.one.Reset([]series.Chunk{c}, series.PickAvg)
	before := c.MinTime
	for typ := e.one.Next(); typ != chunkenc.ValNone; typ = e.one.Next() {
		if t := e.one.AtT(); t < before || t > c.MaxTime {
			return fmt.Errorf("the chunk from %d to %d has a sample at %d after %d", c.MinTime, c.MaxTime, t, before)
		} else {
			before = t
		}
		switch typ {
		case chunkenc.ValHistogram:
			e.one.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			e.one.AtFloatHistogram(nil)
		}
	}
	if err := e.one.Err(); err != nil {
		return fmt.Errorf("the chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
	}
	return nil
}

// chunkWriter cuts samples into chunks of one kind each.
type chunkWriter struct {
	out   []Chunk
	chunk chunkenc.Chunk // nil = none was begun
	app   chunkenc.Appender
	typ   chunkenc.ValueType
	count int
	any   bool // samples have come
	mint  int64
	maxt  int64
}

// append adds the current sample of it, whose type is typ. Start timestamps are left out: encodings that have them are
// not known by every reader (docs/design/016-start-timestamps.md).
func (w *chunkWriter) append(it chunkenc.Iterator, typ chunkenc.ValueType) error {
	var prev chunkenc.Appender
	if w.chunk != nil && (typ != w.typ || w.count >= samplesPerChunk) {
		if typ == w.typ {
			prev = w.app
		}
		w.cut()
	}
	if w.chunk == nil {
		if err := w.begin(typ); err != nil {
			return err
		}
	}
	t := it.AtT()
	var next chunkenc.Chunk
	var recoded bool
	app, err := w.app, error(nil)
	switch typ {
	case chunkenc.ValFloat:
		_, v := it.At()
		app.Append(0, t, v)
	case chunkenc.ValHistogram:
		_, h := it.AtHistogram(nil)
		next, recoded, app, err = app.AppendHistogram(prev, 0, t, h, false)
	case chunkenc.ValFloatHistogram:
		_, h := it.AtFloatHistogram(nil)
		next, recoded, app, err = app.AppendFloatHistogram(prev, 0, t, h, false)
	}
	if err != nil {
		return err
	}
	if next != nil {
		if !recoded { // next begins with this sample
			w.cut()
		}
		w.chunk, w.typ = next, typ
	}
	w.app = app
	if w.count == 0 {
		w.mint = t
	}
	w.maxt = t
	w.count++
	return nil
}

func (w *chunkWriter) begin(typ chunkenc.ValueType) (err error) {
	w.chunk, err = chunkenc.NewEmptyChunk(typ.ChunkEncoding(false, false))
	if err != nil {
		return err
	}
	w.typ, w.count, w.mint, w.maxt = typ, 0, math.MaxInt64, math.MinInt64
	w.app, err = w.chunk.Appender()
	return err
}

// cut ends the chunk.
func (w *chunkWriter) cut() {
	if w.chunk == nil {
		return
	}
	if w.count > 0 {
		w.out = append(w.out, Chunk{MinTime: w.mint, MaxTime: w.maxt, Encoding: byte(w.chunk.Encoding()),
			Data: w.chunk.Bytes()})
	}
	w.chunk, w.count = nil, 0
}

// encodeFloats appends chunks of floats to dst. w is used for each.
func encodeFloats(dst []Chunk, w *xor.Writer, t []int64, v []float64) []Chunk {
	for len(t) > 0 {
		n := min(len(t), samplesPerChunk)
		w.Reset()
		for i := range n {
			w.Append(t[i], v[i])
		}
		dst = append(dst, Chunk{MinTime: t[0], MaxTime: t[n-1], Encoding: byte(chunkenc.EncXOR),
			Data: bytes.Clone(w.Bytes())})
		t, v = t[n:], v[n:]
	}
	return dst
}
