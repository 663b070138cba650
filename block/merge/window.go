package merge

import (
	"errors"
	"io"
)

// window reads a stream forward through one buffer, which grows to the longest piece that is asked for.
type window struct {
	r        io.Reader
	buf      []byte
	from, to int   // buf[from:to] was read and not consumed
	off      int64 // in the stream, of buf[from]
}

// reset starts over with another stream, whose first byte has offset off.
func (w *window) reset(r io.Reader, off int64) { w.r, w.off, w.from, w.to = r, off, 0, 0 }

// need returns the next n bytes without consuming them. They are valid until the next call. At the end of the stream
// the error is io.ErrUnexpectedEOF, and the result has what is left.
func (w *window) need(n int) ([]byte, error) {
	if w.to-w.from >= n {
		return w.buf[w.from : w.from+n], nil
	}
	return w.fill(n)
}

func (w *window) fill(n int) ([]byte, error) {
	if n > len(w.buf) {
		grown := make([]byte, n+n/4)
		w.to = copy(grown, w.buf[w.from:w.to])
		w.buf, w.from = grown, 0
	} else if w.from+n > len(w.buf) {
		w.to = copy(w.buf, w.buf[w.from:w.to])
		w.from = 0
	}
	if w.from == w.to {
		w.from, w.to = 0, 0
	}
	for w.to-w.from < n {
		got, err := w.r.Read(w.buf[w.to:])
		w.to += got
		if err != nil && w.to-w.from < n {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return w.buf[w.from:w.to], err
		}
	}
	return w.buf[w.from : w.from+n], nil
}

// upTo is need for n bytes, or for fewer where the stream ends.
func (w *window) upTo(n int) ([]byte, error) {
	b, err := w.need(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return b, err
}

// skip consumes n bytes, which need has returned.
func (w *window) skip(n int) {
	w.from += n
	w.off += int64(n)
}

// discard consumes n bytes, read or not.
func (w *window) discard(n int64) error {
	for n > 0 {
		if w.from == w.to {
			if _, err := w.need(1); err != nil {
				return err
			}
		}
		step := int(min(n, int64(w.to-w.from)))
		w.skip(step)
		n -= int64(step)
	}
	return nil
}
