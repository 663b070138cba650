package rpc

import (
	"math/bits"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
)

// This package writes and reads the series of thanos.SeriesResponse by hand. Generated messages would cost several
// allocations per label and chunk (BenchmarkSeries).

// Tags of the fields.
const (
	tagSeries      = 1<<3 | 2 // SeriesResponse.series, SeriesBatch.series, Series.labels, Label.name
	tagBatch       = 4<<3 | 2 // SeriesResponse.batch
	tagLabels      = 1<<3 | 2
	tagChunks      = 2<<3 | 2
	tagName        = 1<<3 | 2
	tagValue       = 2<<3 | 2
	tagMinTime     = 1 << 3
	tagMaxTime     = 2 << 3
	tagFirstChunk  = 3<<3 | 2 // AggrChunk.raw; the aggregates follow
	tagEncoding    = 1 << 3
	tagData        = 2<<3 | 2
	maxFrameBytes  = 256 << 10 // a batch of that size is sent; also a slow reader must read as much at a time
	numChunkFields = 1 + int(series.NumAggregates)
)

// batch collects series for one frame.
type batch struct {
	body *[]byte // from frames; nil = empty
	n    int     // number of series
}

// add appends s. It fails for a chunk encoding that StoreAPI has no number for.
func (b *batch) add(s series.Series) error {
	for _, c := range s.Chunks {
		if c.Raw.Encoding > chunkenc.EncFloatHistogram {
			return errs.E(errs.Unsupported,
				"series %s has a chunk of encoding %s, which StoreAPI cannot carry", s.Labels, c.Raw.Encoding)
		}
	}
	if b.body == nil {
		b.body = frames.empty()
	}
	*b.body = appendSeries(*b.body, s)
	b.n++
	return nil
}

func (b *batch) full(limit int) bool {
	return b.n >= max(limit, 1) || b.n > 0 && len(*b.body) >= maxFrameBytes
}

// take returns the collected series as one frame, and empties b. Without batches a frame has the form of a single
// series.
func (b *batch) take(batches bool) *encoded {
	e := &encoded{body: b.body}
	if batches {
		e.head = protowire.AppendVarint([]byte{tagBatch}, uint64(len(*b.body)))
	}
	*b = batch{}
	return e
}

// drop discards the collected series.
func (b *batch) drop() {
	if b.body != nil {
		frames.Put(b.body)
	}
	*b = batch{}
}

// appendSeries appends s as a field series = 1.
func appendSeries(dst []byte, s series.Series) []byte {
	size := 0
	s.Labels.Range(func(l labels.Label) { size += sizeField(sizeLabel(l)) })
	for i := range s.Chunks {
		size += sizeField(sizeChunk(&s.Chunks[i]))
	}
	dst = protowire.AppendVarint(append(dst, tagSeries), uint64(size))
	s.Labels.Range(func(l labels.Label) {
		dst = protowire.AppendVarint(append(dst, tagLabels), uint64(sizeLabel(l)))
		dst = protowire.AppendString(append(dst, tagName), l.Name)
		dst = protowire.AppendString(append(dst, tagValue), l.Value)
	})
	for i := range s.Chunks {
		dst = appendChunk(dst, &s.Chunks[i])
	}
	return dst
}

func appendChunk(dst []byte, c *series.Chunk) []byte {
	dst = protowire.AppendVarint(append(dst, tagChunks), uint64(sizeChunk(c)))
	if c.MinTime != 0 {
		dst = protowire.AppendVarint(append(dst, tagMinTime), uint64(c.MinTime))
	}
	if c.MaxTime != 0 {
		dst = protowire.AppendVarint(append(dst, tagMaxTime), uint64(c.MaxTime))
	}
	for i := range numChunkFields {
		e := encodedAt(c, i)
		if e == nil || e.Encoding == chunkenc.EncNone {
			continue
		}
		dst = protowire.AppendVarint(append(dst, byte(tagFirstChunk+i<<3)), uint64(sizeEncoded(e)))
		if e.Encoding != chunkenc.EncXOR {
			dst = append(dst, tagEncoding, byte(e.Encoding-1))
		}
		dst = protowire.AppendBytes(append(dst, tagData), e.Data)
	}
	return dst
}

// encodedAt returns the content of field 3+i of AggrChunk, nil = none.
func encodedAt(c *series.Chunk, i int) *series.Encoded {
	switch {
	case i == 0:
		return &c.Raw
	case c.Aggr == nil:
		return nil
	}
	return &c.Aggr[i-1]
}

func sizeVarint(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }
func sizeField(n int) int     { return 1 + sizeVarint(uint64(n)) + n }
func sizeLabel(l labels.Label) int {
	return sizeField(len(l.Name)) + sizeField(len(l.Value))
}

func sizeEncoded(e *series.Encoded) int {
	n := sizeField(len(e.Data))
	if e.Encoding != chunkenc.EncXOR {
		n += 2
	}
	return n
}

func sizeChunk(c *series.Chunk) int {
	n := 0
	if c.MinTime != 0 {
		n += 1 + sizeVarint(uint64(c.MinTime))
	}
	if c.MaxTime != 0 {
		n += 1 + sizeVarint(uint64(c.MaxTime))
	}
	for i := range numChunkFields {
		if e := encodedAt(c, i); e != nil && e.Encoding != chunkenc.EncNone {
			n += sizeField(sizeEncoded(e))
		}
	}
	return n
}

// warningFrame makes a frame of a warning.
func warningFrame(text string) *thanospb.SeriesResponse {
	return &thanospb.SeriesResponse{Result: &thanospb.SeriesResponse_Warning{Warning: text}}
}
