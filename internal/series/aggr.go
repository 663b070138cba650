package series

import (
	"errors"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Pick says what an Iterator reads of downsampled chunks. It reads raw chunks as they are.
type Pick uint8

// The picks. PickAvg is the zero value: the sum divided by the count, which is the best single value for a window.
const (
	PickAvg Pick = iota
	PickCount
	PickSum
	PickMin
	PickMax
	PickCounter
)

// Aggregates returns the aggregates that p reads, for Request.Aggregates.
func (p Pick) Aggregates() []Aggregate {
	switch p {
	case PickCount:
		return []Aggregate{Count}
	case PickSum:
		return []Aggregate{Sum}
	case PickMin:
		return []Aggregate{Min}
	case PickMax:
		return []Aggregate{Max}
	case PickCounter:
		return []Aggregate{Counter}
	}
	return []Aggregate{Count, Sum}
}

// minChunkBytes is how many bytes the decoders of Prometheus read without a look at the length of a chunk. A shorter
// chunk would make them panic.
const minChunkBytes = 3

// decoder turns chunks into sample iterators. It keeps its memory for the next chunk.
type decoder struct {
	chunk chunkenc.Chunk
	inner chunkenc.Iterator
	count *decoder         // reads the counts while this one reads the sums
	avg   *averageIterator // a pointer, because a decoder moves in memory while its iterator is in use
}

// decode returns an iterator over c. It is valid until the next decode, and nil when c has no data for pick.
func (d *decoder) decode(c *Chunk, pick Pick) (chunkenc.Iterator, error) {
	if c.Aggr == nil {
		return d.encoded(c.Raw)
	}
	if pick != PickAvg {
		return d.encoded(c.Aggr[pick.Aggregates()[0]])
	}
	if d.count == nil {
		d.count = new(decoder)
	}
	count, err := d.count.encoded(c.Aggr[Count])
	if err != nil || count == nil {
		return nil, err
	}
	sum, err := d.encoded(c.Aggr[Sum])
	if err != nil || sum == nil {
		return nil, err
	}
	if d.avg == nil {
		d.avg = new(averageIterator)
	}
	*d.avg = averageIterator{Iterator: sum, count: count}
	return d.avg, nil
}

// encoded is as decode, for the chunk of one aggregate or of raw samples.
func (d *decoder) encoded(e Encoded) (chunkenc.Iterator, error) {
	if e.Encoding == chunkenc.EncNone {
		return nil, nil
	}
	if err := e.Check(); err != nil {
		return nil, err
	}
	if d.chunk != nil && d.chunk.Encoding() == e.Encoding {
		d.chunk.Reset(e.Data)
	} else {
		chunk, err := chunkenc.FromData(e.Encoding, e.Data)
		if err != nil {
			return nil, errs.E(errs.Internal, "chunk: %w", err)
		}
		d.chunk = chunk
	}
	d.inner = d.chunk.Iterator(d.inner)
	return d.inner, nil
}

// averageIterator divides the sums of a downsampled chunk by its counts, which have the same timestamps.
type averageIterator struct {
	chunkenc.Iterator // sums
	count             chunkenc.Iterator
}

func (a *averageIterator) Next() chunkenc.ValueType {
	typ := a.Iterator.Next()
	if typ == chunkenc.ValNone || a.count.Seek(a.Iterator.AtT()) == chunkenc.ValNone {
		return chunkenc.ValNone
	}
	if typ == chunkenc.ValHistogram {
		return chunkenc.ValFloatHistogram
	}
	return typ
}

func (a *averageIterator) At() (int64, float64) {
	t, sum := a.Iterator.At()
	_, count := a.count.At()
	return t, sum / count
}

func (a *averageIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, h := a.Iterator.AtFloatHistogram(h)
	_, count := a.count.At()
	h.Div(count)
	h.CounterResetHint = histogram.GaugeType
	return t, h
}

func (a *averageIterator) Err() error { return errors.Join(a.Iterator.Err(), a.count.Err()) }
