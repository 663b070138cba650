package xor

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"slices"
)

// headerSize is the length of the header of an XOR chunk: the number of its samples.
const headerSize = 2

var errCut = errors.New("the chunk is cut off")

// Samples are times in ms and as many values.
type Samples struct {
	T []int64
	V []float64
}

// Reset removes all samples and keeps their memory.
func (s *Samples) Reset() { s.T, s.V = s.T[:0], s.V[:0] }

// Append adds the samples of an XOR chunk. They are those that chunkenc's iterator yields, in a fraction of its time
// (BenchmarkRead). A chunk that ends too early is an error, after the samples that it has.
func (s *Samples) Append(data []byte) error {
	if len(data) < headerSize {
		return errCut
	}
	n := int(binary.BigEndian.Uint16(data))
	data = data[headerSize:]
	if n == 0 {
		return nil
	}
	most := min(n, 1+4*len(data)) // a sample has two bits at least
	had := len(s.T)
	s.T, s.V = slices.Grow(s.T, most), slices.Grow(s.V, most)
	read, err := decode(data, n, s.T[had:had+most], s.V[had:had+most])
	s.T, s.V = s.T[:had+read], s.V[:had+read]
	return err
}

// decode reads n samples into ts and vs, at most as many as these hold, and returns how many it did.
func decode(data []byte, n int, ts []int64, vs []float64) (int, error) {
	r := bitReader{data: data}
	u := r.uvarint()
	t, v := int64(u>>1)^-int64(u&1), r.long(64)
	if r.n < 0 {
		return 0, errCut
	}
	ts[0], vs[0] = t, math.Float64frombits(v)
	if n == 1 {
		return 1, nil
	}
	delta := int64(r.uvarint())
	t += delta
	lead, size := 0, 0
	r.fill()
	for i := 1; ; {
		buf, left := r.buf, r.n // of the value: they stay in registers
		if int64(buf) >= 0 {
			buf, left = buf<<1, left-1
		} else {
			if buf<<1>>63 != 0 {
				lead, size = int(buf>>57&31), int(buf>>51&63)
				if size == 0 {
					size = 64
				}
				buf, left = buf<<13, left-13
			} else {
				buf, left = buf<<2, left-2
			}
			trail := 64 - lead - size
			if trail < 0 || size == 0 { // no difference came before, or one of more than 64 bits
				return i, errCut
			}
			if size <= left && size <= 57 {
				v ^= buf >> (uint(64-size) & 63) << (uint(trail) & 63)
				buf, left = buf<<(uint(size)&63), left-size
			} else {
				r.buf, r.n = buf, left
				v ^= r.long(size) << trail
				buf, left = r.buf, r.n
			}
		}
		if left < 0 || i >= len(ts) {
			return i, errCut
		}
		ts[i], vs[i] = t, math.Float64frombits(v)
		if i++; i == n {
			return i, nil
		}
		if r.buf, r.n = buf, left; left < 57 {
			r.fill()
		}
		switch buf = r.buf; {
		case int64(buf) >= 0:
			r.buf, r.n = buf<<1, r.n-1
		case buf>>62 == 0b10:
			delta += signed(buf>>48&(1<<14-1), 14)
			r.buf, r.n = buf<<16, r.n-16
			if r.n < 18 {
				r.fill()
			}
		default:
			r.take(1)
			if delta += r.deltaOfDelta(); r.n < 57 {
				r.fill()
			}
		}
		t += delta
	}
}

// BitReader reads bits, the highest first. Bits behind the end of the data are 0; Short says that some were read.
type BitReader struct{ r bitReader }

// NewBitReader reads data.
func NewBitReader(data []byte) BitReader { return BitReader{bitReader{data: data}} }

// Read reads k bits, 1 to 64.
func (r *BitReader) Read(k int) uint64 { return r.r.long(k) }

// Varbit reads a number of variable length, 0 or more, as histogram chunks have it.
func (r *BitReader) Varbit() uint64 {
	v, _ := r.r.varbit()
	return v
}

// SignedVarbit is Varbit for a number with a sign.
func (r *BitReader) SignedVarbit() int64 {
	v, k := r.r.varbit()
	if k == 0 || k == 64 {
		return int64(v)
	}
	return signed(v, k)
}

// Zeros reads bits that are 0, at most n of them and none behind the first 1, and returns how many. Numbers of variable
// length that are 0 have one such bit each.
func (r *BitReader) Zeros(n int) int {
	b := &r.r
	for read := 0; ; {
		if b.n < 57 {
			b.fill()
		}
		if b.n <= 0 {
			b.n = math.MinInt32
			return n
		}
		zeros := min(bits.LeadingZeros64(b.buf), b.n, n-read)
		b.buf, b.n = b.buf<<zeros, b.n-zeros
		if read += zeros; read == n || b.n > 0 {
			return read
		}
	}
}

// Float reads a value that was written as its difference to v, the value before it, and keeps it in v.
func (r *BitReader) Float(v *Float) float64 {
	b := &r.r
	if b.n < 57 {
		b.fill()
	}
	if b.take(1) == 0 {
		return math.Float64frombits(v.bits)
	}
	if b.take(1) == 1 {
		v.lead, v.size = int(b.take(5)), int(b.take(6))
		if v.size == 0 {
			v.size = 64
		}
	}
	trail := 64 - v.lead - v.size
	if trail < 0 || v.size == 0 { // no difference came before, or one of more than 64 bits
		b.n = math.MinInt32
		return 0
	}
	v.bits ^= b.long(v.size) << trail
	return math.Float64frombits(v.bits)
}

// Float is the last one of values that are written as differences.
type Float struct {
	bits       uint64
	lead, size int // of the last difference; size is 0 before the first one
}

// NewFloat begins with a first value, which was written as a whole.
func NewFloat(bits uint64) Float { return Float{bits: bits} }

// Value is the last value.
func (v *Float) Value() float64 { return math.Float64frombits(v.bits) }

// Short reports whether more bits were read than there are.
func (r *BitReader) Short() bool { return r.r.n < 0 }

// bitReader reads bits, the highest first. Bits behind the end of the data are 0, and make n negative.
type bitReader struct {
	data []byte // what was not loaded yet
	buf  uint64 // the next bits, from the highest on
	n    int    // how many bits of buf were loaded; negative when more were read than there are
}

// fill loads bits until 57 can be taken, or all that there are. There must not be 64 already.
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

// take reads k bits, 1 to 57, which must be loaded if they exist.
func (r *bitReader) take(k int) uint64 {
	v := r.buf >> ((64 - k) & 63)
	r.buf <<= k & 63
	r.n -= k
	return v
}

// long reads k bits, 1 to 64.
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

// varbitSizes are the lengths in bits of the numbers that follow 0 to 8 ones.
var varbitSizes = [...]int{0, 3, 6, 9, 12, 18, 25, 56, 64}

// varbit reads a number of variable length, and returns its length in bits, too.
func (r *bitReader) varbit() (v uint64, size int) {
	if r.n < 57 {
		r.fill()
	}
	ones := bits.LeadingZeros64(^r.buf)
	if ones > 6 {
		ones = min(ones, 8)
		r.take(8) // a 0 follows seven ones, and none follows eight
		return r.long(varbitSizes[ones]), varbitSizes[ones]
	}
	head, size := ones+1, varbitSizes[ones]
	v = r.buf << head >> (64 - size)
	r.buf, r.n = r.buf<<(head+size), r.n-head-size
	return v, size
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
