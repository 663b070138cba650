package wire

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/hearth-metrics/hearth/internal/errs"
)

var inflaters = sync.Pool{New: func() any { return new(gzip.Reader) }}

// ReadPlain reads r, which is not compressed, to its end. The result belongs to b as ReadSnappy's does; so do the
// errors.
func (b *Buffer) ReadPlain(r io.Reader, limit int64) ([]byte, error) {
	err := b.read(r, limit, nil)
	return b.compressed, err
}

// ReadGzip is ReadSnappy for gzip. The format does not say the size in advance, so decompression stops when it comes to
// more than maxDecoded.
func (b *Buffer) ReadGzip(r io.Reader, maxCompressed, maxDecoded int64) ([]byte, error) {
	if err := b.read(r, maxCompressed, nil); err != nil {
		return nil, err
	}
	z := inflaters.Get().(*gzip.Reader)
	defer inflaters.Put(z)
	err := z.Reset(bytes.NewReader(b.compressed))
	out := b.decoded[:0]
	for err == nil {
		if len(out) == cap(out) {
			var refused error
			if out, refused = grow(out, b.budget); refused != nil {
				b.decoded = out
				return nil, refused
			}
		}
		var n int
		n, err = z.Read(out[len(out):cap(out)])
		if out = out[:len(out)+n]; int64(len(out)) > maxDecoded {
			err = errs.E(errs.TooLarge, "body decompresses to more than the limit of %d bytes", maxDecoded)
		}
	}
	b.decoded = out
	switch {
	case errors.Is(err, io.EOF) && len(b.compressed) > 0:
		return out, nil
	case errs.KindOf(err) == errs.TooLarge:
		return nil, err
	}
	return nil, errs.E(errs.Invalid, "body of %d bytes is not gzip: %w", len(b.compressed), err)
}
