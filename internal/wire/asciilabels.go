package wire

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
)

// highBits are the highest bits of eight bytes.
const highBits = 0x8080808080808080

// prefixOf is the first eight bytes of s as a number, filled up with zeros. Numbers order most names without a
// comparison of bytes (BenchmarkDecodeV1: a fifth). s may have more bytes behind its end, within its capacity.
func prefixOf(s []byte) uint64 {
	n := len(s)
	if n >= 8 {
		return binary.BigEndian.Uint64(s)
	}
	if cap(s) >= 8 {
		return binary.BigEndian.Uint64(s[:8]) &^ (1<<(64-8*n) - 1)
	}
	var v uint64
	for i, c := range s {
		v |= uint64(c) << (56 - 8*i)
	}
	return v
}

// namePrefix is prefixOf(nameLabel), which is the only name with this prefix and length.
var namePrefix = prefixOf([]byte(nameLabel))

// nameOrder checks that names ascend.
type nameOrder struct {
	last    uint64 // prefix of the last name
	name    []byte // the last name
	hasName bool   // there was a metric name
}

// next reports whether name, of this prefix, comes after the last one, and makes it the last.
func (o *nameOrder) next(prefix uint64, name []byte) bool {
	if prefix <= o.last && (prefix < o.last || bytes.Compare(name, o.name) <= 0) {
		return false
	}
	o.last, o.name = prefix, name
	o.hasName = o.hasName || prefix == namePrefix && len(name) == len(nameLabel)
	return true
}

// asciiWriter writes canonical labels in ascending order of names, in words of eight bytes. Most names and values are
// one or two words, for which a call of memmove is slow (BenchmarkDecodeV1: a quarter).
type asciiWriter struct {
	nameOrder
	dst  []byte // with its capacity as length
	at   int    // where the next label begins
	high uint64 // highest bits of all names and values, or-ed: zero if they are ASCII
}

// slack is how many bytes beyond what it writes an asciiWriter needs.
const slack = 8

// newASCIIWriter appends to dst, and has space for size bytes.
func newASCIIWriter(dst []byte, size int) asciiWriter {
	dst = slices.Grow(dst, size+slack)
	return asciiWriter{dst: dst[:cap(dst)], at: len(dst)}
}

// reserve makes space for n bytes more.
func (w *asciiWriter) reserve(n int) {
	if len(w.dst)-w.at < n+slack {
		grown := slices.Grow(w.dst[:w.at], n+slack)
		w.dst = grown[:cap(grown)]
	}
}

// add writes a label, neither part empty. There is space for it.
func (w *asciiWriter) add(name, value []byte) {
	at := w.at
	high := copyText(w.dst[at:], name)
	at += len(name)
	w.dst[at] = Sep
	high |= copyText(w.dst[at+1:], value)
	at += 1 + len(value)
	w.dst[at] = Sep
	w.at = at + 1
	w.high |= high
}

// shortLabels writes the label fields at pos of m as long as they are what nearly all are: below 128 bytes, exactly a
// name and a value, names ascending within their first eight bytes. It returns where it stopped. It does the work of
// splitLabel, next and add in one loop, without slices and calls (BenchmarkDecodeV1: a third).
func (w *asciiWriter) shortLabels(m []byte, pos int) int {
	whole := m[:cap(m)] // words may reach beyond m, but not beyond the message
	dst, at, last, high := w.dst, w.at, w.last, w.high
	lastAt, lastEnd := 0, 0
	for pos+8 <= len(m) && m[pos] == labelTag {
		size, nameSize := int(m[pos+1]), int(m[pos+3])
		nameAt, end := pos+4, pos+2+size
		nameEnd := nameAt + nameSize
		if size >= 0x80 || m[pos+2] != nameTag || nameSize == 0 || end > len(m) || nameEnd+2 >= end ||
			m[nameEnd] != valueTag || nameEnd+2+int(m[nameEnd+1]) != end || end+8 > len(whole) {
			break
		}
		prefix := binary.BigEndian.Uint64(whole[nameAt:])
		if nameSize < 8 {
			prefix &^= 1<<(64-8*nameSize) - 1
		}
		if prefix <= last {
			break
		}
		last, lastAt, lastEnd = prefix, nameAt, nameEnd
		w.hasName = w.hasName || prefix == namePrefix && nameSize == len(nameLabel)
		high |= copyText(dst[at:], whole[nameAt:nameEnd])
		at += nameSize
		dst[at] = Sep
		high |= copyText(dst[at+1:], whole[nameEnd+2:end])
		at += end - nameEnd - 1
		dst[at] = Sep
		at++
		pos = end
	}
	if lastEnd > 0 {
		w.name = m[lastAt:lastEnd]
	}
	w.at, w.last, w.high = at, last, high
	return pos
}

// copyText copies src to the start of dst and returns the highest bits of all its bytes, or-ed: zero if they are ASCII.
// It may write up to eight bytes behind the copy.
func copyText(dst, src []byte) (high uint64) {
	n := len(src)
	switch {
	case n >= 8:
		last := n - 8
		for i := 0; i < last; i += 8 {
			v := binary.LittleEndian.Uint64(src[i:])
			binary.LittleEndian.PutUint64(dst[i:], v)
			high |= v
		}
		v := binary.LittleEndian.Uint64(src[last:])
		binary.LittleEndian.PutUint64(dst[last:], v)
		high |= v
	case cap(src) >= 8:
		v := binary.LittleEndian.Uint64(src[:8])
		binary.LittleEndian.PutUint64(dst, v)
		high = v << (64 - 8*n)
	default:
		for _, c := range src[:copy(dst, src)] {
			high |= uint64(c)
		}
	}
	return high & highBits
}

// isASCIICanonical reports whether labels are canonical and ASCII. It looks at eight bytes at a time for bytes with the
// highest bit set, which must all be separators (BenchmarkDecodeShard: a quarter).
func isASCIICanonical(labels []byte) bool {
	var order nameOrder
	begin, inName := 0, true
	for i := 0; i < len(labels); i += 8 {
		var word uint64
		if i+8 <= len(labels) {
			word = binary.LittleEndian.Uint64(labels[i:])
		} else {
			for j, c := range labels[i:] {
				word |= uint64(c) << (8 * j)
			}
		}
		for high := word & highBits; high != 0; high &= high - 1 {
			at := i + bits.TrailingZeros64(high)/8
			text := labels[begin:at]
			if labels[at] != Sep || len(text) == 0 || len(text) > MaxLabelLength {
				return false
			}
			if inName && !order.next(prefixOf(text), text) {
				return false
			}
			begin, inName = at+1, !inName
		}
	}
	return begin == len(labels) && begin > 0 && inName
}
