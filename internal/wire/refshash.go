package wire

import "math/bits"

// hashRefs hashes what the packed list of label references stands for, by the hashes of the symbols. It is not ok when
// the list is broken, or has references without a partner or outside of the table.
//
// For the name and the value of each label a product of two halves of their hashes is taken, another one of the other
// halves, and both are added up. Halves are shifted by secrets that differ from label to label, so order matters. Two
// different lists agree in one sum with a chance of about 2^-64, in both with 2^-128. Products do not wait for each
// other, which makes this several times faster than a hash of the hashes (BenchmarkKnownV2).
func (l *lookup) hashRefs(list []byte, hashes []Key) (id Key, ok bool) {
	const step1, step2 = 0x9e3779b97f4a7c15, 0xd1b54a32d192ed03 // odd, and far from each other
	shift1, shift2 := l.salt.Hi, l.salt.Lo
	var high1, low1, high2, low2 uint64
	for pos := 0; pos < len(list); {
		name := uint32(list[pos])
		if pos++; name >= 0x80 {
			name, pos = longReference(list, pos, name)
		}
		if uint(pos) >= uint(len(list)) { // also a fault, and the end
			return Key{}, false
		}
		value := uint32(list[pos])
		if pos++; value >= 0x80 {
			if value, pos = longReference(list, pos, value); pos < 0 {
				return Key{}, false
			}
		}
		if int(name) >= len(hashes) || int(value) >= len(hashes) {
			return Key{}, false
		}
		n, v := &hashes[name], &hashes[value]
		var carry uint64
		high, low := bits.Mul64(n.Hi+shift1, v.Hi+shift2)
		low1, carry = bits.Add64(low1, low, 0)
		high1 += high + carry
		high, low = bits.Mul64(n.Lo+shift2, v.Lo+shift1)
		low2, carry = bits.Add64(low2, low, 0)
		high2 += high + carry
		shift1 += step1
		shift2 += step2
	}
	return Key{Hi: avalanche(high1*step2 ^ low1), Lo: avalanche(high2*step1 ^ low2)}, true
}

// longReference reads a reference behind its first byte.
func longReference(list []byte, pos int, first uint32) (ref uint32, next int) {
	if pos < len(list) && list[pos] < 0x80 {
		return first&0x7f | uint32(list[pos])<<7, pos + 1
	}
	v, next := longUvarint(list, pos-1)
	return uint32(v), next
}

// avalanche makes every bit of the result depend on every bit of v.
func avalanche(v uint64) uint64 {
	v ^= v >> 32
	v *= 0xe9846af9b1a615d
	v ^= v >> 32
	return v
}
