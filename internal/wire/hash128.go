package wire

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// secret makes the hashes of this process differ from those of every other one. A sender cannot tell which bytes have
// the same hash, or hashes that crowd one part of a table (docs/design/001).
var secret = newSecret()

const (
	hashBlock  = 1024 // bytes that have words of the secret of their own
	secretEnds = 4    // words of the secret for the last step
)

type secretWords [secretEnds + hashBlock/8]uint64

func newSecret() (s secretWords) {
	var raw [8 * len(s)]byte
	crand.Read(raw[:]) // never fails
	for i := range s {
		s[i] = binary.NativeEndian.Uint64(raw[8*i:])
	}
	return s
}

// hash128 is a hash of 128 bits that only this process can compute. Two processes never compare hashes, and none is
// ever written to disk.
//
// Each pair of words of the input is added to a pair of words of the secret, and the product of the two sums is added
// to a sum of 128 bits. That is NH, the hash of UMAC: two inputs, however they are chosen, have the same sum for at
// most one secret in 2^64. A second sum, of the halves of each product, tells apart nearly all that the first one does
// not. One product for 16 bytes makes it as fast as XXH3 with AVX-512 for labels (BenchmarkDigest).
//
// i is the place in both, the input and the secret. The last 16 bytes are a pair of their own, which may overlap the
// one before. Words are read without a check of bounds, which would cost a quarter.
func hash128(b []byte) Key {
	n := len(b)
	switch {
	case n < 16:
		return hash128Short(b)
	case n > hashBlock:
		return hash128Long(b)
	}
	var high, low, second, carry uint64
	in, key := unsafe.Pointer(unsafe.SliceData(b)), unsafe.Pointer(&secret[secretEnds])
	i := 0
	for ; i < n-16; i += 16 {
		h, l := bits.Mul64(wordAt(in, i)+wordAt(key, i), wordAt(in, i+8)+wordAt(key, i+8))
		low, carry = bits.Add64(low, l, 0)
		high, _ = bits.Add64(high, h, carry)
		second += h ^ l
	}
	h, l := bits.Mul64(wordAt(in, n-16)+wordAt(key, i), wordAt(in, n-8)+wordAt(key, i+8))
	low, carry = bits.Add64(low, l, 0)
	high, _ = bits.Add64(high, h, carry)
	return hash128End(high, low, second+(h^l), n)
}

// wordAt is the word at byte i behind p, in the order of this machine.
func wordAt(p unsafe.Pointer, i int) uint64 { return *(*uint64)(unsafe.Add(p, i)) }

// hash128Short is hash128 for less than 16 bytes.
func hash128Short(b []byte) Key {
	var x, y uint64
	switch n := len(b); {
	case n >= 8:
		x, y = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 4:
		x, y = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	case n > 0:
		x = uint64(b[0]) | uint64(b[n/2])<<8 | uint64(b[n-1])<<16
	}
	high, low := bits.Mul64(x+secret[secretEnds], y+secret[secretEnds+1])
	return hash128End(high, low, high^low, len(b))
}

// hash128Long is hash128 for inputs longer than the secret: a chain of the hashes of their blocks.
func hash128Long(b []byte) Key {
	k := hash128(b[:hashBlock])
	for b = b[hashBlock:]; len(b) > 0; {
		n := min(len(b), hashBlock)
		next := hash128(b[:n])
		b = b[n:]
		var link [32]byte
		binary.NativeEndian.PutUint64(link[0:], k.Hi)
		binary.NativeEndian.PutUint64(link[8:], next.Hi)
		binary.NativeEndian.PutUint64(link[16:], next.Lo)
		binary.NativeEndian.PutUint64(link[24:], k.Lo)
		k = hash128(link[:])
	}
	return k
}

// hash128End makes a hash of the two sums and the length. Every bit of it depends on the secret.
func hash128End(high, low, second uint64, n int) Key {
	high += uint64(n)
	return Key{Hi: fold(high^secret[0], low^secret[1]), Lo: fold(second^secret[2], high^secret[3])}
}

// fold multiplies two words and puts the halves of the product over each other.
func fold(a, b uint64) uint64 {
	h, l := bits.Mul64(a, b)
	return h ^ l
}
