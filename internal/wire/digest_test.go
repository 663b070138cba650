package wire

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/xxh3"
)

// BenchmarkDigest compares with XXH3, which is public.
func BenchmarkDigest(b *testing.B) {
	for _, n := range []int{5, 16, 24, 40, 80, 150, 290, 330, 1000, 5000} {
		texts := make([]byte, 64*n)
		for i := range texts {
			texts[i] = byte(rand.Uint32())
		}
		run := func(name string, hash func([]byte) Key) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				var sum uint64
				for i := 0; b.Loop(); i++ {
					at := i % 64 * n
					k := hash(texts[at : at+n])
					sum += k.Hi ^ k.Lo
				}
				_ = sum
			})
		}
		run("xxh3", func(b []byte) Key { h := xxh3.Hash128(b); return Key{h.Hi, h.Lo} })
		run("digest", digest)
	}
}
