package merge

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
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
func (e *encoder) encode(dst []Chunk, mint, maxt int64, clipped *int64) (out []Chunk, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = dst, fmt.Errorf("panic in a chunk: %v", p)
		}
	}()
	e.it.Reset(e.in, series.PickAvg)
	w := chunkWriter{out: dst}
	for typ := e.it.Next(); typ != chunkenc.ValNone; typ = e.it.Next() {
		if t := e.it.AtT(); t < mint || t >= maxt {
			*clipped++
			continue
		}
		if err := w.append(e.it, typ); err != nil {
			return dst, err
		}
	}
	w.cut()
	return w.out, e.it.Err()
}

// decodes reports what is wrong with one chunk.
func (e *encoder) decodes(c series.Chunk) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in the chunk from %d to %d: %v", c.MinTime, c.MaxTime, p)
		}
	}()
	e.one.Reset([]series.Chunk{c}, series.PickAvg)
	for typ := e.one.Next(); typ != chunkenc.ValNone; typ = e.one.Next() {
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
