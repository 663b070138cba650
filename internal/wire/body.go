package wire

import (
	"errors"
	"io"
	"sync"

	"github.com/golang/snappy"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Buffer holds one request body, as it came and decompressed. It serves one request at a time.
type Buffer struct {
	compressed, decoded []byte
}

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// GetBuffer is a Buffer from the pool, to be given back with PutBuffer.
func GetBuffer() *Buffer { return buffers.Get().(*Buffer) }

// PutBuffer gives b back; nothing that b returned may be used from here on. Memory that the last body had little use for
// is let go.
func PutBuffer(b *Buffer) {
	b.compressed, b.decoded = reuse(b.compressed), reuse(b.decoded)
	buffers.Put(b)
}

// maxRatio is more than the best compression that the snappy format can express: 64 bytes by a copy of three.
const maxRatio = 22

// ReadSnappy reads r to its end and decompresses it (snappy block format). The result belongs to b until PutBuffer or the
// next ReadSnappy. Limits are in bytes. Errors: TooLarge with the size and the limit, Invalid when the content is not
// snappy, Unavailable when r breaks off, since a sender can then try again. No more memory is used than r has sent
// (maxCompressed at most) and its content can decompress to (maxDecoded at most).
func (b *Buffer) ReadSnappy(r io.Reader, maxCompressed, maxDecoded int64) ([]byte, error) {
	if err := b.read(r, maxCompressed); err != nil {
		return nil, err
	}
	size, err := snappy.DecodedLen(b.compressed)
	switch {
	case err != nil:
		return nil, errs.E(errs.Invalid, "body of %d bytes is not snappy: %w", len(b.compressed), err)
	case int64(size) > maxDecoded:
		return nil, errs.E(errs.TooLarge, "body decompresses to %d bytes, more than the limit of %d", size, maxDecoded)
	case size/maxRatio > len(b.compressed):
		return nil, errs.E(errs.Invalid, "body of %d bytes is not snappy: it cannot hold %d bytes", len(b.compressed), size)
	}
	if cap(b.decoded) < size {
		b.decoded = make([]byte, size)
	}
	b.decoded, err = snappy.Decode(b.decoded[:cap(b.decoded)], b.compressed)
	if err != nil {
		return nil, errs.E(errs.Invalid, "body of %d bytes is not snappy: %w", len(b.compressed), err)
	}
	return b.decoded, nil
}

// firstRead is the size of the first buffer, above that of most bodies of 2,000 samples.
const firstRead = 256 << 10

// read fills b.compressed with all of r.
func (b *Buffer) read(r io.Reader, limit int64) error {
	buf := b.compressed[:0]
	defer func() { b.compressed = buf }()
	for {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), max(firstRead, 2*cap(buf)))
			copy(grown, buf)
			buf = grown
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > limit:
			return errs.E(errs.TooLarge, "body of at least %d bytes is larger than the limit of %d", len(buf), limit)
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return errs.E(errs.Unavailable, "read body after %d bytes: %w", len(buf), err)
		}
	}
}
