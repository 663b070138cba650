package rpc

import (
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/series"
)

// rawFrame is a received message that stays encoded. It owns its bytes.
type rawFrame struct{ data []byte }

func (f *rawFrame) decode(data mem.BufferSlice) error {
	f.data = data.Materialize()
	return nil
}

// seriesDecoder reads the frames of thanos.SeriesResponse. The chunk data of a decoded series refers to the frame's
// bytes, its labels are copies. Nothing of it refers to the decoder.
type seriesDecoder struct {
	out      []series.Series    // of the last frame
	warnings series.Warnings    // of all frames
	covered  *hearthpb.Coverage // of the last frame; nil = it says nothing of blocks

	faults  series.Faults // series that were left out, and why
	builder labels.ScratchBuilder
	chunks  []series.Chunk // the current slab: each series gets a part of it
}

// slabChunks is the number of chunks in one allocation.
const slabChunks = 256

// fields calls do for every field of m. It passes varints as n and length-delimited fields as b, which is never nil
// then. It passes fields of other types as number 0.
func fields(m []byte, do func(num protowire.Number, n uint64, b []byte) error) error {
	for len(m) > 0 {
		if short(m) {
			end := int(m[1]) + 2
			if err := do(protowire.Number(m[0]>>3), 0, m[2:end:end]); err != nil {
				return err
			}
			m = m[end:]
			continue
		}
		num, typ, size := protowire.ConsumeTag(m)
		if size < 0 {
			return malformed(size)
		}
		m = m[size:]
		var n uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(m)
		case protowire.BytesType:
			b, size = protowire.ConsumeBytes(m)
			b = b[:len(b):len(b)]
			if b == nil && size > 0 {
				b = []byte{}
			}
		default:
			size = protowire.ConsumeFieldValue(num, typ, m)
			num = 0 // not a type that our messages have
		}
		if size < 0 {
			return malformed(size)
		}
		m = m[size:]
		if err := do(num, n, b); err != nil {
			return err
		}
	}
	return nil
}

// short reports whether m begins with a whole field of the usual kind: a number below 16, and less than 128 bytes.
func short(m []byte) bool {
	return len(m) > 1 && m[0] < 0x80 && m[0] > 7 && m[0]&7 == byte(protowire.BytesType) &&
		m[1] < 0x80 && int(m[1])+2 <= len(m)
}

func malformed(size int) error {
	return errs.E(errs.Internal, "malformed message: %w", protowire.ParseError(size))
}

// fieldCoverage is the number of SeriesResponse.coverage.
const fieldCoverage = 1000

// frame decodes one SeriesResponse into d.out and d.warnings.
func (d *seriesDecoder) frame(m []byte) error {
	clear(d.out)
	d.out = d.out[:0]
	return fields(m, func(num protowire.Number, _ uint64, b []byte) error {
		switch {
		case num == 1 && b != nil:
			return d.series(b)
		case num == 2 && b != nil:
			d.warnings = append(d.warnings, string(b))
		case num == 4 && b != nil:
			return fields(b, func(num protowire.Number, _ uint64, b []byte) error {
				if num == 1 && b != nil {
					return d.series(b)
				}
				return nil
			})
		case num == fieldCoverage && b != nil:
			d.covered = new(hearthpb.Coverage)
			return d.covered.UnmarshalVT(b)
		}
		return nil
	})
}

// takeCoverage returns the coverage of the last frame; nil = none.
func (d *seriesDecoder) takeCoverage() *hearthpb.Coverage {
	said := d.covered
	d.covered = nil
	return said
}

func (d *seriesDecoder) series(m []byte) error {
	if cap(d.chunks)-len(d.chunks) < slabChunks/8 {
		d.chunks = make([]series.Chunk, 0, slabChunks)
	}
	d.builder.Reset()
	from, long := len(d.chunks), false
	err := fields(m, func(num protowire.Number, _ uint64, b []byte) error {
		switch {
		case num == 1 && b != nil:
			name, value, err := label(b)
			if err != nil {
				return err
			}
			if long = long || len(name) >= series.MaxLabelBytes || len(value) >= series.MaxLabelBytes; !long {
				d.builder.Add(name, value)
			}
		case num == 2 && b != nil:
			d.chunks = append(d.chunks, series.Chunk{})
			return chunk(b, &d.chunks[len(d.chunks)-1])
		}
		return nil
	})
	if err != nil {
		return err
	}
	s := series.Series{Labels: d.builder.Labels()}
	if long {
		d.faults.Add("series with a label of more than 16 MiB", s.Labels.String)
		return nil
	}
	if len(d.chunks) > from {
		s.Chunks = d.chunks[from:len(d.chunks):len(d.chunks)]
	}
	d.out = append(d.out, s)
	return nil
}

// label reads a Label. The strings refer to m.
func label(m []byte) (name, value string, err error) {
	err = fields(m, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case 1:
			name = alias(b)
		case 2:
			value = alias(b)
		}
		return nil
	})
	return name, value, err
}

func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func chunk(m []byte, c *series.Chunk) error {
	return fields(m, func(num protowire.Number, n uint64, b []byte) (err error) {
		switch {
		case num == 1:
			c.MinTime = int64(n)
		case num == 2:
			c.MaxTime = int64(n)
		case num == 3 && b != nil:
			c.Raw, err = encodedChunk(b)
		case num >= 4 && num < 4+protowire.Number(series.NumAggregates) && b != nil:
			if c.Aggr == nil {
				c.Aggr = new(series.AggrChunks)
			}
			c.Aggr[num-4], err = encodedChunk(b)
		}
		return err
	})
}

// unknownEncoding stands for every chunk encoding that Hearth does not know.
const unknownEncoding = chunkenc.Encoding(0xfe)

// encodedChunk reads a Chunk. Its data refers to m. A chunk in an unknown encoding has no data.
func encodedChunk(m []byte) (series.Encoded, error) {
	e, unknown := series.Encoded{Encoding: chunkenc.EncXOR}, false
	err := fields(m, func(num protowire.Number, n uint64, b []byte) error {
		switch {
		case num == 1 && n < uint64(chunkenc.EncFloatHistogram):
			e.Encoding = chunkenc.Encoding(n + 1)
		case num == 1:
			unknown = true
		case num == 2:
			e.Data = b
		}
		return nil
	})
	if unknown {
		return series.Encoded{Encoding: unknownEncoding}, err
	}
	return e, err
}
