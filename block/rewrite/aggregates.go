package rewrite

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/xor"
)

// point is a sample of one aggregate.
type point struct {
	t int64
	v float64
	h *histogram.FloatHistogram // nil = v counts
}

// cutAggregates appends c without the windows whose times keep does not want to dst. Values stay as they are: those of
// a counter go on from the first one of the chunk, so the difference of two says what it was before.
func cutAggregates(dst []merge.Chunk, c *merge.Chunk, keep func(t int64) bool) (out []merge.Chunk, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = dst, errs.E(errs.Invalid, "panic in the chunk from %d to %d: %v", c.MinTime, c.MaxTime, p)
		}
	}()
	parts, err := series.DecodeAggregates(c.Data, series.EveryAggregate)
	if err != nil {
		return dst, errs.Wrap(errs.Invalid, err)
	}
	rest, mint, maxt, err := cutParts(parts, c.MinTime, c.MaxTime, keep)
	if err != nil || rest[series.Count].Encoding == chunkenc.EncNone {
		return dst, err
	}
	return append(dst, merge.Chunk{MinTime: mint, MaxTime: maxt, Encoding: c.Encoding,
		Data: series.AppendAggregates(nil, rest)}), nil
}

// cutParts makes the parts of a chunk from mint to maxt without the windows whose times keep does not want, and their
// bounds.
func cutParts(parts *series.AggrChunks, mint, maxt int64, keep func(t int64) bool) (rest *series.AggrChunks,
	first, last int64, err error) {
	rest, first, last = &series.AggrChunks{}, maxt, mint
	for i, e := range parts {
		if e.Encoding == chunkenc.EncNone {
			continue
		}
		all, err := points(e)
		if err != nil {
			return nil, 0, 0, errs.E(errs.Invalid, "aggregate %d of the chunk from %d to %d: %w", i, mint, maxt, err)
		}
		kept := filter(all, keep, series.Aggregate(i) == series.Counter)
		for _, p := range kept {
			first, last = min(first, p.t), max(last, p.t)
		}
		if rest[i], err = encode(kept, e); err != nil {
			return nil, 0, 0, errs.E(errs.Invalid, "aggregate %d of the chunk from %d to %d: %w", i, mint, maxt, err)
		}
		if len(kept) > 0 && kept[0].t == all[0].t {
			first = mint // it may be before the first sample
		}
		if len(kept) > 0 && kept[len(kept)-1].t == all[len(all)-1].t {
			last = maxt
		}
	}
	return rest, first, last, nil
}

// points decodes the chunk of one aggregate.
func points(e series.Encoded) (all []point, err error) {
	if e.Encoding != chunkenc.EncXOR && e.Encoding != chunkenc.EncFloatHistogram {
		return nil, fmt.Errorf("encoding %d", e.Encoding)
	}
	if err := e.Check(); err != nil {
		return nil, err
	}
	chunk, err := chunkenc.FromData(e.Encoding, e.Data)
	if err != nil {
		return nil, err
	}
	it := chunk.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		p := point{t: it.AtT()}
		if typ == chunkenc.ValFloatHistogram {
			_, h := it.AtFloatHistogram(nil)
			p.h = h.Copy()
		} else {
			_, p.v = it.At()
		}
		all = append(all, p)
	}
	if len(all) == 0 && it.Err() == nil {
		return nil, errors.New("no samples")
	}
	return all, it.Err()
}

// filter are the points that keep wants. The last point of a counter repeats the time of the one before it, and says
// with what value the series goes on after the chunk. If it goes, the last value that is left takes its place.
func filter(all []point, keep func(t int64) bool, counter bool) (kept []point) {
	for _, p := range all {
		if keep(p.t) {
			kept = append(kept, p)
		}
	}
	n := len(all)
	if counter && len(kept) > 0 && n > 1 && all[n-1].t == all[n-2].t && !keep(all[n-1].t) {
		last := kept[len(kept)-1]
		if last.h != nil {
			last.h = last.h.Copy()
		}
		kept = append(kept, last)
	}
	return kept
}

// encode makes a chunk of points like the one that they come from. It changes the points.
func encode(points []point, from series.Encoded) (series.Encoded, error) {
	if len(points) == 0 {
		return series.Encoded{}, nil
	}
	if from.Encoding == chunkenc.EncFloatHistogram {
		header := chunkenc.CounterResetHeader(from.Data[series.ResetFlags] & chunkenc.CounterResetHeaderMask)
		return series.EncodeHistograms(func(yield func(int64, *histogram.FloatHistogram) bool) {
			for _, p := range points {
				if !yield(p.t, p.h) {
					return
				}
			}
		}, header)
	}
	var w xor.Writer
	w.Reset()
	for _, p := range points {
		w.Append(p.t, p.v)
	}
	return series.Encoded{Encoding: chunkenc.EncXOR, Data: w.Bytes()}, nil
}
