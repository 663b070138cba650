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

	budget Budget
}

var (
	buffers    = sync.Pool{New: func() any { return new(Buffer) }}
	compressed sync.Pool // of *[]byte, for buffers that have none
)

// GetBuffer is a Buffer from the pool, to be given back with PutBuffer.
func GetBuffer() *Buffer {
	b := buffers.Get().(*Buffer)
	if b.compressed == nil {
		if c, ok := compressed.Get().(*[]byte); ok {
			b.compressed = *c
		}
	}
	return b
}

// shed gives up the body as it came, once it is decompressed.
func (b *Buffer) shed() {
	if len(b.decoded) == 0 {
		return
	}
	if c := reuse(b.compressed); c != nil {
		compressed.Put(&c)
	}
	b.compressed = nil
}

// SetBudget makes b ask budget before it takes memory for a body. A refusal is the error of the reading. The memory
// that b has from earlier use is asked for at once. If it is refused, b starts without it.
func (b *Buffer) SetBudget(budget Budget) {
	b.budget = budget
	if !budget.mayReuse(b.capacity()) {
		b.compressed, b.decoded = nil, nil
	}
}

func (b *Buffer) capacity() int { return cap(b.compressed) + cap(b.decoded) }

// Received is how many bytes the last body had as it came, as far as it was read.
func (b *Buffer) Received() int64 { return int64(len(b.compressed)) }

// PutBuffer gives b back. Nothing that b returned may be used afterwards. Memory that the last body hardly used is
// given up.
func PutBuffer(b *Buffer) {
	b.compressed, b.decoded = reuse(b.compressed), reuse(b.decoded)
	b.budget = nil
	buffers.Put(b)
}

// maxRatio is more than the best compression that the snappy format can express: 64 bytes by a copy of three.
const maxRatio = 22

// ReadSnappy reads r to its end and decompresses it (snappy block format). The result belongs to b until PutBuffer or
// the next ReadSnappy. Limits are in bytes. Errors: TooLarge with the size and the limit, Invalid when the content is
// not snappy, Unavailable when r breaks off, since a sender can then try again. No more memory is used than r has sent
// (maxCompressed at most) and its content can decompress to (maxDecoded at most): the content says at its start how
// much that is, and what is too much is refused before the rest is read.
func (b *Buffer) ReadSnappy(r io.Reader, maxCompressed, maxDecoded int64) ([]byte, error) {
	tooLarge := func(start []byte) error {
		if size, err := snappy.DecodedLen(start); err == nil && int64(size) > maxDecoded {
			return errs.E(errs.TooLarge, "body decompresses to %d bytes, more than the limit of %d", size, maxDecoded)
		}
		return nil
	}
	if err := b.read(r, maxCompressed, tooLarge); err != nil {
		return nil, err
	}
	size, err := snappy.DecodedLen(b.compressed)
	switch {
	case err != nil:
		return nil, errs.E(errs.Invalid, "body of %d bytes is not snappy: %w", len(b.compressed), err)
	case size/maxRatio > len(b.compressed):
		return nil, errs.E(errs.Invalid, "body of %d bytes is not snappy: it cannot hold %d bytes", len(b.compressed), size)
	}
	if cap(b.decoded) < size {
		if err := b.budget.ask(size - cap(b.decoded)); err != nil {
			return nil, err
		}
		b.decoded = make([]byte, size)
	}
	b.decoded, err = snappy.Decode(b.decoded[:cap(b.decoded)], b.compressed)
	if err != nil {
		return nil, errs.E(errs.Invalid, "body of %d bytes is not snappy: %w", len(b.compressed), err)
	}
	return b.decoded, nil
}

// firstRead is the size of the first buffer. Most bodies of 2,000 samples are smaller.
const firstRead = 256 << 10

// read fills b.compressed with all of r. check, if not nil, looks at the first bytes, up to a few, as soon as they are
// there.
func (b *Buffer) read(r io.Reader, limit int64, check func(start []byte) error) error {
	const start = 16
	buf := b.compressed[:0]
	defer func() { b.compressed = buf }()
	for {
		if len(buf) == cap(buf) {
			var err error
			if buf, err = grow(buf, b.budget); err != nil {
				return err
			}
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		early := len(buf) < start
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > limit:
			return errs.E(errs.TooLarge, "body of at least %d bytes is larger than the limit of %d", len(buf), limit)
		case err != nil && (!errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
			return errs.E(errs.Unavailable, "read body after %d bytes: %w", len(buf), err)
		}
		if early && check != nil {
			if err := check(buf); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// grow gives a full buffer twice its size.
func grow(full []byte, budget Budget) ([]byte, error) {
	size := max(firstRead, 2*cap(full))
	if err := budget.ask(size - cap(full)); err != nil {
		return full, err
	}
	return append(make([]byte, 0, size), full...), nil
}
