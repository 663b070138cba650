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

// Blocks and the head may overlap: samples that were late are in blocks of their own. Where two chunks have values for
// one time the TSDB's querier takes one or the other, as it comes about. Which one is read must be the same everywhere
// (series.Iterator says which), so chunks of blocks go past that querier and are united here.
//
// The querier unites chunks that overlap by their times. So a chunk of a block is shown to it at a time of its own,
// later than all real ones, and is known by its type when it comes out.

// placed is a chunk of a block with its real times.
type placed struct {
	chunkenc.Chunk
	mint, maxt int64
}

// places are the times handed out, in the life of the process.
var places atomic.Int64

// firstPlace is later than any sample, ms.
const firstPlace = 1 << 61

// queryBlock is what the TSDB reads blocks and the head by.
func queryBlock(b promtsdb.BlockReader, mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := promtsdb.NewBlockChunkQuerier(b, mint, maxt)
	if _, head := b.(*promtsdb.RangeHead); head || err != nil {
		return q, err
	}
	return placing{q}, nil
}

type placing struct{ storage.ChunkQuerier }

// Select implements storage.ChunkQuerier.
func (q placing) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher,
) storage.ChunkSeriesSet {
	return placingSet{q.ChunkQuerier.Select(ctx, sorted, hints, ms...)}
}

type placingSet struct{ storage.ChunkSeriesSet }

// At implements storage.ChunkSeriesSet.
func (s placingSet) At() storage.ChunkSeries { return placingSeries{s.ChunkSeriesSet.At()} }

type placingSeries struct{ storage.ChunkSeries }

// Iterator implements storage.ChunkSeries.
func (s placingSeries) Iterator(it chunks.Iterator) chunks.Iterator {
	if p, ok := it.(*placingIterator); ok {
		p.Iterator = s.ChunkSeries.Iterator(p.Iterator)
		return p
	}
	return &placingIterator{Iterator: s.ChunkSeries.Iterator(nil)}
}

// placingIterator gives each chunk one time, however often it is asked: the querier does so to put many blocks in order.
type placingIterator struct {
	chunks.Iterator
	at chunks.Meta
}

// Next implements chunks.Iterator.
func (it *placingIterator) Next() bool {
	if !it.Iterator.Next() {
		return false
	}
	m := it.Iterator.At()
	m.Chunk = &placed{m.Chunk, m.MinTime, m.MaxTime}
	m.MinTime = firstPlace + places.Add(1)
	m.MaxTime = m.MinTime
	it.at = m
	return true
}

// At implements chunks.Iterator.
func (it *placingIterator) At() chunks.Meta { return it.at }

// unite makes of a series' chunks, in any order, such that do not overlap.
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

// encode appends chunks with the samples of all that overlap.
func encode(out *[]series.Chunk, overlap []series.Chunk) error {
	it := storage.NewSeriesToChunkEncoder(&storage.SeriesEntry{SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
		return series.NewIterator(overlap, series.PickAvg)
	}}).Iterator(nil)
	for it.Next() {
		m := it.At()
		*out = append(*out, series.Chunk{
			MinTime: m.MinTime, MaxTime: m.MaxTime,
			Raw: series.Encoded{Encoding: m.Chunk.Encoding(), Data: m.Chunk.Bytes()},
		})
	}
	return it.Err()
}
