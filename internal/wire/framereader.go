package wire

import (
	"encoding/binary"
	"math"
)

// reader reads Hearth's own frames. After the first fault failed is set, and everything that it returns is zero.
type reader struct {
	buf    []byte
	pos    int
	failed bool
	memory int // bytes that what is read may still take; see spend
}

// spend takes n bytes of the memory that the frame may become. Without any left the reader fails.
func (r *reader) spend(n int) {
	if r.memory -= n; r.memory < 0 {
		r.failed = true
	}
}

// overspent reports whether it failed because the frame takes too much memory.
func (r *reader) overspent() bool { return r.memory < 0 }

// rest is how many bytes are left, none after a fault.
func (r *reader) rest() int {
	if r.failed {
		return 0
	}
	return len(r.buf) - r.pos
}

func (r *reader) byte() byte {
	if r.rest() < 1 {
		r.failed = true
		return 0
	}
	r.pos++
	return r.buf[r.pos-1]
}

func (r *reader) uvarint() uint64 {
	if r.rest() > 0 && r.buf[r.pos] < 0x80 {
		r.pos++
		return uint64(r.buf[r.pos-1])
	}
	return r.longUvarint()
}

func (r *reader) longUvarint() uint64 {
	if r.failed {
		return 0
	}
	v, n := binary.Uvarint(r.buf[r.pos:])
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.pos += n
	return v
}

func (r *reader) varint() int64 { return zigzag(r.uvarint()) }

func (r *reader) double() float64 {
	if r.rest() < 8 {
		r.failed = true
		return 0
	}
	r.pos += 8
	return math.Float64frombits(binary.LittleEndian.Uint64(r.buf[r.pos-8:]))
}

// count reads the number of items that follow. Each of them takes at least size bytes.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(r.rest()/size) {
		r.failed = true
		return 0
	}
	return int(n)
}

// bytes reads a length and that many bytes, which alias the frame.
func (r *reader) bytes() []byte {
	n := r.count(1)
	r.pos += n
	return r.buf[r.pos-n : r.pos]
}
