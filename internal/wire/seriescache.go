package wire

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// SeriesCache remembers the identity of series by the bytes that senders name them with. The labels of a series that
// comes again are then neither taken apart, nor copied, nor checked. It is in front of Key: it may forget at any time,
// and a series that two senders name in two ways has two entries with one Key.
//
// An entry is found by the hash of those bytes (of 2.0: a sum over the hashes of the symbols, see hashRefs), mixed with
// numbers that are different for each tenant. The bytes themselves are not kept: a sender cannot tell which bytes have
// the same hash. Entries that were not used for an hour go when the table is full.
//
// Reading takes no lock and may miss what was just added. All methods may be called at the same time. A nil
// *SeriesCache knows nothing.
type SeriesCache struct {
	table atomic.Pointer[cacheTable]
	most  int
	start time.Time
	seed  [2]maphash.Seed

	mu   sync.Mutex // guards writes: used, and the swap of table
	used int
}

// cacheTable is probed linearly, over at most maxProbes slots.
type cacheTable struct{ slots []cacheSlot }

// cacheSlot is one cache line. What is not atomic is written once, before used first becomes non-zero.
type cacheSlot struct {
	spelled Key
	key     Key
	hash    uint64
	size    uint32 // of the canonical labels
	name    uint32 // of 2.0: the position of the metric name's value among the references
	hint    atomic.Uint64
	used    atomic.Uint32 // when, in ticks of SeriesCache plus one; 0 = empty
	told    atomic.Uint32 // of 2.0: what metadata it brought, and when (metadataV2.mark)
}

const (
	maxProbes  = 32
	firstSlots = 1 << 10
	cacheTick  = time.Minute
	cacheAge   = 60 // ticks
)

// CachedSeriesBytes is the most that a SeriesCache takes for each of its series. It takes that much while a full table
// is copied, and half of it otherwise.
const CachedSeriesBytes = 3 * int64(unsafe.Sizeof(cacheSlot{}))

// NewSeriesCache makes a cache for up to most series.
func NewSeriesCache(most int) *SeriesCache {
	k := &SeriesCache{most: most, start: time.Now(), seed: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	k.table.Store(&cacheTable{make([]cacheSlot, min(firstSlots, most))})
	return k
}

// lookup is what one request looks in a SeriesCache with.
type lookup struct {
	known      *SeriesCache
	salt       Key
	now        uint32
	prefetched uint32 // keeps the compiler from leaving prefetch out
}

func (k *SeriesCache) lookup(id tenant.ID) lookup {
	if k == nil {
		return lookup{}
	}
	return lookup{
		known: k, now: uint32(time.Since(k.start)/cacheTick) + 1,
		salt: Key{Hi: maphash.String(k.seed[0], string(id)), Lo: maphash.String(k.seed[1], string(id))},
	}
}

// spelled is the key of the bytes that name a series.
func (l *lookup) spelled(bytes []byte) Key {
	h := hash128(bytes)
	return Key{Hi: h.Hi ^ l.salt.Hi, Lo: h.Lo ^ l.salt.Lo}
}

func (t *cacheTable) at(spelled Key) int {
	i, _ := bits.Mul64(spelled.Hi, uint64(len(t.slots)))
	return int(i)
}

// get finds what is known of a series; nil = nothing.
func (l *lookup) get(spelled Key) *cacheSlot {
	t := l.known.table.Load()
	i := t.at(spelled)
	for range maxProbes {
		s := &t.slots[i]
		used := s.used.Load()
		if used == 0 {
			return nil
		}
		if s.spelled == spelled {
			if used != l.now {
				s.used.Store(l.now)
			}
			return s
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	return nil
}

// prefetch makes the processor fetch what get will look at.
func (l *lookup) prefetch(ahead []rawSeries) {
	t, sum := l.known.table.Load(), uint32(0)
	for i := range ahead {
		sum |= t.slots[t.at(ahead[i].id)].used.Load()
	}
	l.prefetched = sum
}

// put remembers s, and gives its slot, or nil where there is none.
func (l *lookup) put(spelled Key, s *Series, name int) *cacheSlot {
	k := l.known
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.table.Load()
	if k.used >= len(t.slots)/4*3 {
		t = k.rebuild(t, l.now)
	}
	slot := t.free(spelled)
	if slot == nil || slot.used.Load() != 0 {
		return slot
	}
	slot.spelled, slot.key, slot.hash = spelled, s.Key, s.Hash
	slot.size, slot.name = uint32(s.size), uint32(name)
	slot.used.Store(l.now)
	k.used++
	return slot
}

// free is the slot for spelled: the one that has it, else an empty one, else none.
func (t *cacheTable) free(spelled Key) *cacheSlot {
	i := t.at(spelled)
	for range maxProbes {
		s := &t.slots[i]
		if s.used.Load() == 0 || s.spelled == spelled {
			return s
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	return nil
}

// rebuild replaces the table by one with empty slots: a larger one, or one without old entries, or an empty one when
// all slots that it may have are in use. k.mu is held.
func (k *SeriesCache) rebuild(t *cacheTable, now uint32) *cacheTable {
	recent := func(s *cacheSlot) bool { used := s.used.Load(); return used != 0 && used+cacheAge >= now }
	live := 0
	for i := range t.slots {
		if recent(&t.slots[i]) {
			live++
		}
	}
	n := max(firstSlots, live*5/2)
	if n > k.most/3*4 {
		n = k.most / 3 * 4
	}
	fresh := &cacheTable{make([]cacheSlot, max(n, 1))}
	k.used = 0
	if live <= n/2 {
		for i := range t.slots {
			if s := &t.slots[i]; recent(s) {
				if to := fresh.free(s.spelled); to != nil && to.used.Load() == 0 {
					to.spelled, to.key, to.hash, to.size, to.name = s.spelled, s.key, s.hash, s.size, s.name
					to.hint.Store(s.hint.Load())
					to.used.Store(s.used.Load())
					k.used++
				}
			}
		}
	}
	k.table.Store(fresh)
	return fresh
}

// Memory is about how many bytes k takes.
func (k *SeriesCache) Memory() int64 {
	return int64(len(k.table.Load().slots)) * int64(unsafe.Sizeof(cacheSlot{}))
}

// Len is how many ways of naming a series k remembers.
func (k *SeriesCache) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.used
}
