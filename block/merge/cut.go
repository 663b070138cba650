package merge

import (
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// Cutter takes samples out of chunks. It keeps its memory for the next chunk; one goroutine uses it.
type Cutter struct{ enc encoder }

// Cut appends chunks with those samples of in to dst whose times keep wants. They are in encodings that every reader
// knows, and keep nothing of in. A downsampled chunk, and one that is damaged, is an error of kind Invalid.
func (c *Cutter) Cut(dst []Chunk, in *Chunk, keep func(t int64) bool) ([]Chunk, error) {
	if in.Encoding == byte(series.EncAggregates) {
		return dst, errs.E(errs.Invalid, "a downsampled chunk has no samples to be cut")
	}
	c.enc.reset()
	c.enc.in = append(c.enc.in[:0], series.Chunk{MinTime: in.MinTime, MaxTime: in.MaxTime,
		Raw: series.Encoded{Encoding: chunkenc.Encoding(in.Encoding), Data: in.Data}})
	c.enc.it.Reset(c.enc.in, series.PickAvg)
	out, err := c.enc.write(dst, c.enc.it, keep)
	return out, errs.Wrap(errs.Invalid, err)
}
