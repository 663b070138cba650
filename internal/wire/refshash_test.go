package wire

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// TestReferred: lists differ in their hash as soon as they differ in what they refer to, and not by how they are
// written.
func TestReferred(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	hashes := make([]Key, 20000)
	for i := range hashes {
		hashes[i] = Key{r.Uint64(), r.Uint64()}
	}
	l := NewSeriesCache(1).lookup(testTenant)
	list := func(refs ...uint32) (b []byte) {
		for _, ref := range refs {
			b = binary.AppendUvarint(b, uint64(ref))
		}
		return b
	}
	hash := func(list []byte) Key {
		t.Helper()
		id, ok := l.hashRefs(list, hashes)
		if !ok {
			t.Fatalf("%x has no hash", list)
		}
		return id
	}
	seen := map[Key]int{}
	n := 0
	add := func(refs ...uint32) {
		t.Helper()
		if was, ok := seen[hash(list(refs...))]; ok {
			t.Fatalf("%d has the hash of list %d", refs, was)
		}
		seen[hash(list(refs...))] = n
		n++
	}
	sizes := []uint32{0, 1, 2, 127, 128, 129, 16383, 16384, 19999}
	for _, a := range sizes {
		for _, b := range sizes {
			add(a, b)
			for _, c := range sizes {
				for _, d := range sizes {
					add(a, b, c, d)
				}
			}
		}
	}
	add()
	long := make([]uint32, 200)
	for i := range long {
		long[i] = uint32(r.IntN(len(hashes)))
	}
	add(long...)
	for i := range long {
		long[i] = (long[i] + 1) % uint32(len(hashes))
		add(long...)
		if i < len(long)-2 {
			add(long[:i/2*2+2]...)
		}
	}
	if a, b := hash([]byte{1, 2}), hash([]byte{0x81, 0, 0x82, 0x80, 0}); a != b {
		t.Error("a reference in more bytes is another")
	}
	other := l.known.lookup("another")
	if id, _ := other.hashRefs(list(1, 2), hashes); id == hash(list(1, 2)) {
		t.Error("two tenants have one hash")
	}
	for _, bad := range [][]byte{{1}, {1, 2, 3}, {0x80}, {1, 0x80}, list(1, 20000), list(20000, 1), {1, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		if _, ok := l.hashRefs(bad, hashes); ok {
			t.Errorf("%x has a hash", bad)
		}
	}
}
