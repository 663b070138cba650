package tsdb

import (
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// A sample that is not newer than the samples of its series is compared with what the head holds for its time: the
// same value is success and is not stored twice, another value is a Conflict. The TSDB itself compares only with the
// newest sample, and in the form that it keeps, which may not be the form that was sent.
// docs/design/014-what-is-stored.md has all cases.

// stored returns what the head holds of the series at t, which must not be less than in the call before. It does not
// look at samples that are in blocks, or on their way there, because the head may drop their chunks at any moment.
func (w *seriesWriter) stored(t int64) (sample, bool) {
	r := &w.tx.head
	if !w.looked {
		w.looked = true
		r.open(w.tx.in, w.reference(), t, w.until())
	}
	return r.at(t)
}

// reference is the head's reference for the series, even if no sample of it was accepted yet; 0 = none.
func (w *seriesWriter) reference() storage.SeriesRef {
	if app, ok := w.tx.app.(storage.GetRef); ok && w.ref == 0 {
		ref, _ := app.GetRef(w.labels, w.labels.Hash())
		return ref
	}
	return w.ref
}

// until is the time of the series' newest sample in the request.
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

// headReader reads samples of one series from the head, those that came in order and those that did not. It may only
// be used while nobody appends.
type headReader struct {
	chunks  *promtsdb.HeadAndOOOChunkReader
	builder labels.ScratchBuilder
	metas   []chunks.Meta
	next    int // in metas
	it      chunkenc.Iterator
	typ     chunkenc.ValueType // of the sample that it stands at
	reading bool               // it reads a chunk that may have more samples
}

func (r *headReader) reset() {
	clear(r.metas)
	*r = headReader{builder: r.builder, metas: r.metas[:0], it: r.it}
	r.builder.Reset()
}

// open makes r read the samples of series ref in [mint, maxt].
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

// at returns the sample at t. A chunk that cannot be read counts as one without samples.
func (r *headReader) at(t int64) (p sample, ok bool) {
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

// begin opens the next chunk that may have a sample at t; false when there is none.
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
