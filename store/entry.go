package store

import (
	"context"
	"math/bits"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// indexEntry is an entry of an index's series as it is stored: labels are symbols. Most queries need the labels of few
// entries, since the others have no chunk in time.
type indexEntry struct {
	symbols []uint32 // name, value, name, value ...
	chunks  []chunks.Meta
}

// decode reads the content of an entry into e, whose memory is used again. Its form is that of index.Decoder.Series.
func (e *indexEntry) decode(b []byte) error {
	e.symbols, e.chunks = e.symbols[:0], e.chunks[:0]
	d := encoding.Decbuf{B: b}
	for k := d.Uvarint(); k > 0 && d.Err() == nil; k-- {
		name, value := d.Uvarint(), d.Uvarint()
		e.symbols = append(e.symbols, uint32(name), uint32(value))
	}
	var maxt, ref int64
	k := d.Uvarint()
	if k < 0 {
		k = 1 // so reads Prometheus a number that is too large
	}
	for i := 0; i < k && d.Err() == nil; i++ {
		var mint int64
		if i == 0 {
			mint = d.Varint64()
			maxt = mint + int64(d.Uvarint64())
			ref = int64(d.Uvarint64())
		} else {
			mint = maxt + int64(d.Uvarint64())
			maxt = mint + int64(d.Uvarint64())
			ref += d.Varint64()
		}
		e.chunks = append(e.chunks, chunks.Meta{Ref: chunks.ChunkRef(ref), MinTime: mint, MaxTime: maxt})
	}
	return d.Err()
}

// maxSymbols is how many symbols a request remembers of one block.
const maxSymbols = 8 << 10

// symbols looks up the strings of one index and remembers the last ones: most of the labels of a series are those of
// the series before. It is not safe for concurrent use.
type symbols struct {
	header header
	known  []symbol // at the lowest bits of the reference
}

type symbol struct {
	next uint32 // the reference plus one; 0 means nothing
	text string
}

// expect makes space for the symbols of n series.
func (s *symbols) expect(n int) {
	size := 1 << bits.Len(uint(min(max(n, 16), maxSymbols/2)))
	if size > len(s.known) {
		s.known = make([]symbol, size)
	}
}

// lookup returns the string of a symbol, which is valid while the block is held.
func (s *symbols) lookup(ctx context.Context, ref uint32) (string, error) {
	at := &s.known[ref&uint32(len(s.known)-1)]
	if at.next == ref+1 && at.next != 0 {
		return at.text, nil
	}
	text, err := s.header.LookupSymbol(ctx, ref)
	if err != nil {
		return "", errs.Wrap(errs.Invalid, err)
	}
	if len(text) >= series.MaxLabelBytes {
		return "", errs.E(errs.Invalid, "a label of %d bytes", len(text))
	}
	*at = symbol{ref + 1, text}
	return text, nil
}

// labels returns the labels of e, in memory of their own: in order, which all blocks should have them in, and without
// empty values. A hash of the labels, which shards are made of, is wrong otherwise.
func (s *symbols) labels(ctx context.Context, e *indexEntry, builder *labels.ScratchBuilder) (labels.Labels, error) {
	builder.Reset()
	last, ordered := "", true
	for i := 0; i < len(e.symbols); i += 2 {
		name, err := s.lookup(ctx, e.symbols[i])
		if err != nil {
			return labels.EmptyLabels(), err
		}
		value, err := s.lookup(ctx, e.symbols[i+1])
		if err != nil {
			return labels.EmptyLabels(), err
		}
		if value != "" {
			builder.Add(name, value)
			last, ordered = name, ordered && last <= name
		}
	}
	if !ordered {
		builder.Sort()
	}
	return builder.Labels(), nil
}

// value returns the value that e has for a label name, "" if none.
func (s *symbols) value(ctx context.Context, e *indexEntry, name string) (string, error) {
	for i := 0; i < len(e.symbols); i += 2 {
		if n, err := s.lookup(ctx, e.symbols[i]); err != nil || n == name {
			if err != nil {
				return "", err
			}
			return s.lookup(ctx, e.symbols[i+1])
		}
	}
	return "", nil
}
