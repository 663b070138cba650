package wire

import (
	"math/rand/v2"
	"testing"
)

func TestDecodeLikePrometheus(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 3000 {
		for _, c := range []struct {
			msg   []byte
			check func(testing.TB, []byte)
		}{{oddV1(r), checkV1}, {oddV2(r), checkV2}} {
			c.check(t, c.msg)
			for range 3 { // and what a broken sender might make of it
				if len(c.msg) > 0 {
					c.msg[r.IntN(len(c.msg))] = byte(r.Uint32())
					c.check(t, c.msg)
				}
			}
			c.check(t, c.msg[:r.IntN(len(c.msg)+1)])
		}
	}
	checkV1(t, typicalV1(100))
	checkV2(t, typicalV2(100))
}

func FuzzDecodeV1(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		f.Add(oddV1(r))
	}
	f.Add(typicalV1(3))
	f.Fuzz(func(t *testing.T, msg []byte) { checkV1(t, msg) })
}

func FuzzDecodeV2(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		f.Add(oddV2(r))
	}
	f.Add(typicalV2(3))
	f.Fuzz(func(t *testing.T, msg []byte) { checkV2(t, msg) })
}
