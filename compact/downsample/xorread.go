package downsample

import (
	"encoding/binary"
	"errors"
	"math"
)

// xorHeader is the length of the header of an XOR chunk: the number of its samples.
const xorHeader = 2

var errCut = errors.New("the chunk is cut off")

// samples are times in ms and as many values.
type samples struct {
	t []int64
	v []float64
}

// readXOR replaces s by the samples of an XOR chunk. They are those that chunkenc's iterator yields, in less than
// half of its time (BenchmarkReadXOR), as most of downsampling is this.
func (s *samples) readXOR(data []byte) error {
	s.t, s.v = s.t[:0], s.v[:0]
	if len(data) < xorHeader {
		return errCut
	}
	n := int(binary.BigEndian.Uint16(data))
	if n == 0 {
		return nil
	}
	r := bitReader{data: data[xorHeader:]}
	u := r.uvarint()
	t, v := int64(u>>1)^-int64(u&1), r.long(64)
	if r.n < 0 {
		return errCut
	}
	if s.put(t, v); n == 1 {
		return nil
	}
	delta := int64(r.uvarint())
	t += delta
	lead, size := 0, 0
	r.fill()
	for i := 1; ; {
		if r.take(1) != 0 {
			if r.take(1) != 0 {
				lead, size = int(r.take(5)), int(r.take(6))
				if size == 0 {
					size = 64
				}
			}
			trail := 64 - lead - size
			if trail < 0 || size == 0 { // no difference came before, or one of more than 64 bits
				return errCut
			}
			if size <= r.n && size <= 57 {
				v ^= r.take(size) << trail
			} else {
				v ^= r.long(size) << trail
			}
		}
		if r.n < 0 {
			return errCut
		}
		s.put(t, v)
		if i++; i == n {
			return nil
		}
		if r.n < 57 {
			r.fill()
		}
		if r.take(1) != 0 {
			delta += r.deltaOfDelta()
		}
		t += delta
	}
}

func (s *samples) put(t int64, v uint64) {
	s.t, s.v = append(s.t, t), append(s.v, math.Float64frombits(v))
}

// bitReader reads bits, the highest first. Bits behind the end of the data are 0, and make n negative.
type bitReader struct {
	data []byte // what was not loaded yet
	buf  uint64 // the next bits, from the highest on
	n    int    // how many bits of buf were loaded; negative when more were read than there are
}

// fill loads bits until 57 can be taken, or all that there are.
func (r *bitReader) fill() {
	if len(r.data) >= 8 && r.n >= 0 {
		// Bits beyond n are loaded, too. The next call loads the same ones again.
		r.buf |= binary.BigEndian.Uint64(r.data) >> (r.n & 63)
		whole := (64 - r.n) >> 3
		r.data = r.data[whole:]
		r.n += whole << 3
		return
	}
	r.fillLast()
}

func (r *bitReader) fillLast() {
	for r.n >= 0 && r.n <= 56 && len(r.data) > 0 {
		r.buf |= uint64(r.data[0]) << (56 - r.n)
		r.data = r.data[1:]
		r.n += 8
	}
}

// take reads k bits, at most 57, which must be loaded if they exist.
func (r *bitReader) take(k int) uint64 {
	v := r.buf >> ((64 - k) & 63)
	r.buf <<= k & 63
	r.n -= k
	return v
}

// long reads k bits, at most 64.
func (r *bitReader) long(k int) uint64 {
	r.fill()
	if k <= 57 {
		return r.take(k)
	}
	high := r.take(k - 32)
	r.fill()
	return high<<32 | r.take(32)
}

// uvarint reads whole bytes as binary.Uvarint does.
func (r *bitReader) uvarint() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		b := r.long(8)
		if shift == 63 && b > 1 {
			break
		}
		v |= (b & 0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.n = math.MinInt32 // too long
	return 0
}

// deltaOfDelta reads how much the distance of samples changed, after the first bit, which says that it did.
func (r *bitReader) deltaOfDelta() int64 {
	switch {
	case r.take(1) == 0:
		return signed(r.take(14), 14)
	case r.take(1) == 0:
		return signed(r.take(17), 17)
	case r.take(1) == 0:
		return signed(r.take(20), 20)
	}
	dod := int64(r.long(64))
	r.fill()
	return dod
}

// signed is the number that was written with k bits. They reach from -2^(k-1)+1 to 2^(k-1).
func signed(u uint64, k int) int64 {
	if u > 1<<(k-1) {
		return int64(u) - 1<<k
	}
	return int64(u)
}
