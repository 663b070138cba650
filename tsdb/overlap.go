package tsdb

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/internal/series"
)

// Blocks and the head may overlap, because samples that came out of order are in blocks of their own. Where two
// chunks have a value for one time, the TSDB's querier takes one of them, and which one depends on chance. It must be
// the same one everywhere (series.Iterator says which), so chunks of blocks are united here and not by that querier.
//
// The querier unites chunks whose times overlap. So each chunk of a block is shown to it at a time of its own, later
// than all real times. The chunk's type, shiftedChunk, tells it apart when it comes out of the querier.

// shiftedChunk is a chunk of a block with its real times, ms.
type shiftedChunk struct {
	chunkenc.Chunk
	mint, maxt int64
}

// shifts counts the times that were given to chunks since the process began.
var shifts atomic.Int64

// firstShift is later than any sample, ms.
const firstShift = 1 << 61

// queryShifted is how the TSDB reads blocks and the head. Chunks of the in-order head keep their times.
func queryShifted(b promtsdb.BlockReader, mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := promtsdb.NewBlockChunkQuerier(b, mint, maxt)
	if _, head := b.(*promtsdb.RangeHead); head || err != nil {
		return q, err
	}
	return shiftingQuerier{q}, nil
}

type shiftingQuerier struct{ storage.ChunkQuerier }

// Select implements storage.ChunkQuerier.
func (q shiftingQuerier) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher,
) storage.ChunkSeriesSet {
	return shiftingSet{q.ChunkQuerier.Select(ctx, sorted, hints, ms...)}
}

type shiftingSet struct{ storage.ChunkSeriesSet }

// At implements storage.ChunkSeriesSet.
func (s shiftingSet) At() storage.ChunkSeries { return shiftingSeries{s.ChunkSeriesSet.At()} }

type shiftingSeries struct{ storage.ChunkSeries }

// Iterator implements storage.ChunkSeries.
func (s shiftingSeries) Iterator(it chunks.Iterator) chunks.Iterator {
	if p, ok := it.(*shiftingIterator); ok {
		p.Iterator = s.ChunkSeries.Iterator(p.Iterator)
		return p
	}
	return &shiftingIterator{Iterator: s.ChunkSeries.Iterator(nil)}
}

// shiftingIterator gives each chunk a time of its own. At answers the same each time: the querier calls it several
// times when it puts chunks of many blocks in order.
type shiftingIterator struct {
	chunks.Iterator
	at chunks.Meta
}

// Next implements chunks.Iterator.
func (it *shiftingIterator) Next() bool {
	if !it.Iterator.Next() {
		return false
	}
	m := it.Iterator.At()
	m.Chunk = &shiftedChunk{m.Chunk, m.MinTime, m.MaxTime}
	m.MinTime = firstShift + shifts.Add(1)
	m.MaxTime = m.MinTime
	it.at = m
	return true
}

// At implements chunks.Iterator.
func (it *shiftingIterator) At() chunks.Meta { return it.at }

// unite turns a series' chunks, which may come in any order, into chunks that do not overlap.
func unite(in []series.Chunk) ([]series.Chunk, error) {
	compare := func(a, b series.Chunk) int {
		return cmp.Or(
			cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime),
			cmp.Compare(a.Raw.Encoding, b.Raw.Encoding), bytes.Compare(a.Raw.Data, b.Raw.Data),
		)
	}
	slices.SortFunc(in, compare)
	in = slices.CompactFunc(in, func(a, b series.Chunk) bool { return compare(a, b) == 0 })
	out := in[:0:0]
	for len(in) > 0 {
		n, maxt := 1, in[0].MaxTime
		for n < len(in) && in[n].MinTime <= maxt {
			maxt = max(maxt, in[n].MaxTime)
			n++
		}
		if n == 1 {
			out = append(out, in[0])
		} else if err := encode(&out, in[:n]); err != nil {
			return nil, err
		}
		in = in[n:]
	}
	return out, nil
}

// encode appends chunks with the samples of overlap.
func encode(out *[]series.Chunk, overlap []series.Chunk) error {
	samples := func(chunkenc.Iterator) chunkenc.Iterator { return series.NewIterator(overlap, series.PickAvg) }
	it := storage.NewSeriesToChunkEncoder(&storage.SeriesEntry{SampleIteratorFn: samples}).Iterator(nil)
	for it.Next() {
		m := it.At()
		*out = append(*out, series.Chunk{
			MinTime: m.MinTime, MaxTime: m.MaxTime,
			Raw: series.Encoded{Encoding: m.Chunk.Encoding(), Data: m.Chunk.Bytes()},
		})
	}
	return it.Err()
}
