package tsdb

import (
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// A sample that is not newer than all of its series is compared with what the head holds for its time: the same again
// is success and not stored twice, another value is a Conflict. The TSDB compares with the newest sample only, and with
// the form that it keeps and not with the form that was sent. docs/design/014-what-is-stored.md has the whole of it.

// point is a sample: a float, unless one of the histograms is set.
type point struct {
	t  int64
	v  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// stale reports whether p is a stale marker. The TSDB stores one in the form of the sample before it.
func (p point) stale() bool {
	switch {
	case p.h != nil:
		return value.IsStaleNaN(p.h.Sum)
	case p.fh != nil:
		return value.IsStaleNaN(p.fh.Sum)
	}
	return value.IsStaleNaN(p.v)
}

// same reports whether p and o are one value, whatever their form: stale markers of all kinds are alike, and histograms
// may differ by empty buckets, which the TSDB adds where other samples of a chunk have some. Floats are compared by
// bits.
func (p point) same(o point) bool {
	if p.stale() || o.stale() {
		return p.stale() && o.stale()
	}
	switch {
	case p.h != nil && o.h != nil:
		return p.h.Equals(o.h) || p.h.Copy().Compact(0).Equals(o.h.Copy().Compact(0))
	case p.fh != nil && o.fh != nil:
		return p.fh.Equals(o.fh) || p.fh.Copy().Compact(0).Equals(o.fh.Copy().Compact(0))
	}
	return p.h == nil && o.h == nil && p.fh == nil && o.fh == nil && math.Float64bits(p.v) == math.Float64bits(o.v)
}

// stored returns what the head holds of the series at t, which must not be less than in the call before. Samples that
// are in blocks, or on their way there, are not looked at: their chunks may go at any moment.
func (w *seriesWriter) stored(t int64) (point, bool) {
	r := &w.tx.head
	if !w.looked {
		w.looked = true
		r.open(w.tx.in, w.reference(), t, w.until())
	}
	return r.at(t)
}

// reference is the head's for the series, also where nothing of it was accepted yet; 0 = none.
func (w *seriesWriter) reference() storage.SeriesRef {
	if app, ok := w.tx.app.(storage.GetRef); ok && w.ref == 0 {
		ref, _ := app.GetRef(w.labels, w.labels.Hash())
		return ref
	}
	return w.ref
}

// until is the time of the newest sample that the request has of the series.
func (w *seriesWriter) until() int64 {
	last := int64(math.MinInt64)
	for i := range w.s.Samples {
		last = max(last, w.s.Samples[i].T)
	}
	for i := range w.s.Histograms {
		last = max(last, w.s.Histograms[i].T)
	}
	return last
}

// headReader reads samples of one series from the head, in and out of order. It may only be used while nothing is
// appended.
type headReader struct {
	chunks  *promtsdb.HeadAndOOOChunkReader
	builder labels.ScratchBuilder
	metas   []chunks.Meta
	next    int // in metas
	it      chunkenc.Iterator
	typ     chunkenc.ValueType // at which it stands
	reading bool               // it is a chunk's
}

func (r *headReader) reset() {
	clear(r.metas)
	*r = headReader{builder: r.builder, metas: r.metas[:0], it: r.it}
	r.builder.Reset()
}

// open begins with the samples of series ref in [mint, maxt].
func (r *headReader) open(in *instance, ref storage.SeriesRef, mint, maxt int64) {
	r.reset()
	head := in.db.Head()
	cutBefore, cutLate := in.cutBefore.Load(), chunks.ChunkDiskMapperRef(in.cutLate.Load())
	index := promtsdb.NewHeadAndOOOIndexReader(head, max(mint, cutBefore), mint, maxt, cutLate)
	if err := index.Series(ref, &r.builder, &r.metas); err != nil {
		r.metas = r.metas[:0] // the head does not have the series
	}
	r.chunks = promtsdb.NewHeadAndOOOChunkReader(head, mint, maxt, nil, nil, 0)
}

// at returns the sample at t. A chunk that cannot be read is taken for one that has none.
func (r *headReader) at(t int64) (p point, ok bool) {
	for {
		if !r.reading && !r.begin(t) {
			return p, false
		}
		if r.typ = r.it.Seek(t); r.typ == chunkenc.ValNone {
			r.reading = false
			continue
		}
		if r.it.AtT() != t {
			return p, false
		}
		switch p.t = t; r.typ {
		case chunkenc.ValHistogram:
			_, p.h = r.it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			_, p.fh = r.it.AtFloatHistogram(nil)
		default:
			_, p.v = r.it.At()
		}
		return p, true
	}
}

// begin reads the next chunk that may have a sample at t; false when there is none.
func (r *headReader) begin(t int64) (ok bool) {
	defer func() {
		var damage *chunks.CorruptionErr
		if p := recover(); p == nil {
			return
		} else if err, is := p.(error); !is || !errors.As(err, &damage) {
			panic(p)
		}
		ok = false
	}()
	for ; r.next < len(r.metas) && r.metas[r.next].MinTime <= t; r.next++ {
		m := &r.metas[r.next]
		if m.MaxTime < t {
			continue
		}
		chunk, several, err := r.chunks.ChunkOrIterable(*m)
		switch {
		case err != nil:
			continue
		case several != nil:
			r.it = several.Iterator(r.it)
		default:
			r.it = chunk.Iterator(r.it)
		}
		r.reading = true
		r.next++
		return true
	}
	return false
}
