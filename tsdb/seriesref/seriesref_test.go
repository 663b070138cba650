package seriesref

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/wire"
)

func TestCache(t *testing.T) {
	r, model := NewCache(), map[wire.Key]storage.SeriesRef{}
	rnd := rand.New(rand.NewPCG(1, 2))
	key := func() wire.Key { return wire.Key{Hi: rnd.Uint64N(3), Lo: rnd.Uint64N(500) << 3} } // collisions
	for i := range 50_000 {
		k := key()
		switch rnd.IntN(3) {
		case 0, 1:
			ref := storage.SeriesRef(i + 1)
			r.Put(k, ref)
			model[k] = ref
		case 2:
			r.Drop(k, model[k])
			r.Drop(key(), storage.SeriesRef(1<<40)) // not its reference any more
			delete(model, k)
		}
		if k = key(); r.Get(k) != model[k] {
			t.Fatalf("step %d: %v is %d, want %d", i, k, r.Get(k), model[k])
		}
	}
	if r.Len() != len(model) {
		t.Fatalf("%d references, want %d", r.Len(), len(model))
	}
	if n := len(r.table.Load().slots); n > 8192 {
		t.Fatalf("%d slots for %d references", n, len(model))
	}
}

func TestSet(t *testing.T) {
	var s Set
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		if round == 1000 {
			s.round = maxRound - 500 // it begins anew on the way
		}
		n := rnd.IntN(300)
		s.Reset(n)
		model := map[storage.SeriesRef]bool{}
		for range n {
			ref := storage.SeriesRef(rnd.IntN(2*n) + 1)
			if got := s.Add(ref); got != model[ref] {
				t.Fatalf("round %d: reference %d was there: %t", round, ref, got)
			}
			model[ref] = true
		}
	}
	if len(s.slots) > 1024 {
		t.Fatalf("%d slots", len(s.slots))
	}
}

// TestHintBounds: what does not fit a hint is none.
func TestHintBounds(t *testing.T) {
	r := NewCache()
	var hint atomic.Uint64
	key := wire.Key{Hi: 1, Lo: 2}
	f := func(number, ref, want uint64) {
		t.Helper()
		r.number = number
		r.Put(key, 7) // what is right whatever the hint
		hint.Store(0)
		r.Hint(&hint, storage.SeriesRef(ref))
		if got := hint.Load(); got != want {
			t.Errorf("hint %#x, want %#x", got, want)
		}
	}
	f(1, 5, 1<<40|5)
	f(1, maxHintRef, 1<<41-1)
	f(1, maxHintRef+1, 0)
	f(maxHintNumber, 5, maxHintNumber<<40|5)
	f(maxHintNumber+1, 5, 0)
	f(1, 0, 0)
	r.Hint(nil, 5)
	for _, number := range []uint64{2, maxHintNumber, maxHintNumber + 1, math.MaxUint64} {
		r.number = 1
		r.Hint(&hint, 9)
		r.number = number
		if ref, _ := r.Find(&wire.Series{Key: key, Hint: &hint}); ref != 7 {
			t.Errorf("references number %d: %d", number, ref)
		}
	}
}

// BenchmarkCache looks up 100k keys in random order, beside maps under striped locks.
func BenchmarkCache(b *testing.B) {
	const n = 100_000
	keys := make([]wire.Key, n)
	for i := range keys {
		keys[i] = wire.Key{Hi: rand.Uint64(), Lo: rand.Uint64()}
	}
	b.Run("cache", func(b *testing.B) {
		r := NewCache()
		for i, k := range keys {
			r.Put(k, storage.SeriesRef(i+1))
		}
		i := 0
		for b.Loop() {
			if r.Get(keys[i%n]) == 0 {
				b.Fatal("lost")
			}
			i++
		}
	})
	b.Run("striped maps", func(b *testing.B) {
		var stripes [256]struct {
			sync.RWMutex
			m map[wire.Key]storage.SeriesRef
		}
		for i, k := range keys {
			s := &stripes[k.Hi%256]
			if s.m == nil {
				s.m = map[wire.Key]storage.SeriesRef{}
			}
			s.m[k] = storage.SeriesRef(i + 1)
		}
		i := 0
		for b.Loop() {
			s := &stripes[keys[i%n].Hi%256]
			s.RLock()
			ref := s.m[keys[i%n]]
			s.RUnlock()
			if ref == 0 {
				b.Fatal("lost")
			}
			i++
		}
	})
}
