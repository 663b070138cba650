package seriesref

import (
	"iter"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// Cache maps series keys to the references of one open head. It is safe for concurrent use. Reading takes no lock,
// and may miss a key that was just added or moved: the caller then finds the series by its labels, as one that is
// unknown. A reference may outlive its series; the head then answers that it does not know it. BenchmarkCache
// compares with maps under striped locks.
type Cache struct {
	number uint64 // of this cache among all of the process, for hints
	table  atomic.Pointer[table]

	mu   sync.Mutex // guards writes: used, live, and the swap of table
	used int        // slots with a key, dropped ones included
	live int        // slots with a reference
}

type table struct {
	slots []slot // a power of two, probed linearly from Key.Lo
}

// slot is an entry of a table. Its key is written once, before ref first becomes non-zero, and never changes.
type slot struct {
	key wire.Key
	ref atomic.Uint64
}

const (
	dropped   = 1 << 63 // the ref of a key whose series is gone; references count up from 1 and never get here
	firstSize = 64
)

// caches counts them, so that a hint of a head that is closed is not taken for one of the next head.
var caches atomic.Uint64

// NewCache makes the cache of a head that was just opened.
func NewCache() *Cache {
	c := &Cache{number: caches.Add(1)}
	c.table.Store(&table{slots: make([]slot, firstSize)})
	return c
}

// Get returns the reference of k, or 0.
func (c *Cache) Get(k wire.Key) storage.SeriesRef {
	slots := c.table.Load().slots
	mask := uint64(len(slots) - 1)
	for i := k.Lo & mask; ; i = (i + 1) & mask {
		switch ref := slots[i].ref.Load(); {
		case ref == 0:
			return 0
		case slots[i].key != k:
		case ref == dropped:
			return 0
		default:
			return storage.SeriesRef(ref)
		}
	}
}

// A hint (wire.Series.Hint) is a reference in its lower bits and the number of its cache in its upper ones. It saves
// the look-up of a series that a stream names by a number (BenchmarkAppend).
const (
	hintRefBits   = 40
	maxHintRef    = 1<<hintRefBits - 1
	maxHintNumber = 1<<(64-hintRefBits) - 1
)

// Find returns the reference of s, or 0. Where s has a hint of another cache, or none yet, it looks the key up and
// sets the hint; first then reports that it found a reference.
func (c *Cache) Find(s *wire.Series) (ref storage.SeriesRef, first bool) {
	if s.Hint == nil {
		return c.Get(s.Key), false
	}
	if hint := s.Hint.Load(); hint>>hintRefBits == c.number {
		return storage.SeriesRef(hint & maxHintRef), false
	}
	ref = c.Get(s.Key)
	c.Hint(s.Hint, ref)
	return ref, ref != 0
}

// Hint makes ref, which is committed or 0, the hint of its series. A nil hint, or a number too large for one, is left
// alone.
func (c *Cache) Hint(at *atomic.Uint64, ref storage.SeriesRef) {
	if at != nil && ref != 0 && ref <= maxHintRef && c.number <= maxHintNumber {
		at.Store(c.number<<hintRefBits | uint64(ref))
	}
}

// Put sets the reference of k.
func (c *Cache) Put(k wire.Key, ref storage.SeriesRef) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.table.Load()
	if c.used >= len(t.slots)*3/4 {
		t = c.grow(t)
	}
	at := t.find(k)
	switch at.ref.Load() {
	case 0:
		at.key = k
		c.used++
		c.live++
	case dropped:
		c.live++
	}
	at.ref.Store(uint64(ref))
}

// Drop forgets k if it still has the reference ref: the series may have come back under a new one.
func (c *Cache) Drop(k wire.Key, ref storage.SeriesRef) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.table.Load().find(k); ref != 0 && at.ref.Load() == uint64(ref) {
		at.ref.Store(dropped)
		c.live--
	}
}

// Len is how many keys have a reference.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live
}

// All yields the keys that have a reference, in no order. It may miss those that change meanwhile.
func (c *Cache) All() iter.Seq2[wire.Key, storage.SeriesRef] {
	slots := c.table.Load().slots
	return func(yield func(wire.Key, storage.SeriesRef) bool) {
		for i := range slots {
			if ref := slots[i].ref.Load(); ref != 0 && ref != dropped && !yield(slots[i].key, storage.SeriesRef(ref)) {
				return
			}
		}
	}
}

// grow replaces the table by one without dropped slots, at most half full. What readers find in the old one stays
// right. The caller holds c.mu.
func (c *Cache) grow(old *table) *table {
	size := firstSize
	for size < 2*(c.live+1) {
		size *= 2
	}
	t := &table{slots: make([]slot, size)}
	for i := range old.slots {
		if ref := old.slots[i].ref.Load(); ref != 0 && ref != dropped {
			at := t.find(old.slots[i].key)
			at.key = old.slots[i].key
			at.ref.Store(ref)
		}
	}
	c.used = c.live
	c.table.Store(t)
	return t
}

// find returns the slot that holds k, or the empty slot where k belongs. The caller holds Cache.mu.
func (t *table) find(k wire.Key) *slot {
	mask := uint64(len(t.slots) - 1)
	for i := k.Lo & mask; ; i = (i + 1) & mask {
		if at := &t.slots[i]; at.ref.Load() == 0 || at.key == k {
			return at
		}
	}
}
