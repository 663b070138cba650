package tsdb

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// refs maps series keys to the references of one open head. Reading takes no lock and may miss a key that was just
// added or moved: the caller then finds the series by its labels, as for an unknown one. A reference may outlive its
// series: the head answers that it does not know it. Heads never use a reference for a second label set, so a hit is
// never wrong (BenchmarkRefs compares with maps under striped locks).
type refs struct {
	number uint64 // of these among all of the process, for hints
	table  atomic.Pointer[refTable]

	mu   sync.Mutex // guards writes: used, live, and the swap of table
	used int        // slots with a key, dropped ones included
	live int        // slots with a reference
}

type refTable struct {
	slots []refSlot // a power of two, probed linearly from Key.Lo
}

// refSlot's key is written once, before ref first becomes non-zero, and never changes in its table.
type refSlot struct {
	key wire.Key
	ref atomic.Uint64
}

const (
	dropped   = 1 << 63 // the key's series is gone; references count up from 1 and never get here
	firstSize = 64
)

// numRefs counts refs, so that a hint from a head that is closed is not taken for one of the next.
var numRefs atomic.Uint64

func newRefs() *refs {
	r := &refs{number: numRefs.Add(1)}
	r.table.Store(&refTable{slots: make([]refSlot, firstSize)})
	return r
}

// get returns the reference of k, or 0.
func (r *refs) get(k wire.Key) storage.SeriesRef {
	slots := r.table.Load().slots
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

// A hint (wire.Series.Hint) is a reference with the number of its refs above: it saves the look-up of a series that comes
// by a number (BenchmarkAppend).
const (
	hintRefBits   = 40
	maxHintRef    = 1<<hintRefBits - 1
	maxHintNumber = 1<<(64-hintRefBits) - 1
)

// of returns the reference of s, or 0: by its hint, which it sets if it can and then is met for the first time.
func (r *refs) of(s *wire.Series) (ref storage.SeriesRef, met bool) {
	if s.Hint == nil {
		return r.get(s.Key), false
	}
	if hint := s.Hint.Load(); hint>>hintRefBits == r.number {
		return storage.SeriesRef(hint & maxHintRef), false
	}
	ref = r.get(s.Key)
	r.hint(s.Hint, ref)
	return ref, ref != 0
}

// hint makes ref, which is committed or 0, the hint of its series.
func (r *refs) hint(at *atomic.Uint64, ref storage.SeriesRef) {
	if at != nil && ref != 0 && ref <= maxHintRef && r.number <= maxHintNumber {
		at.Store(r.number<<hintRefBits | uint64(ref))
	}
}

// put sets the reference of k.
func (r *refs) put(k wire.Key, ref storage.SeriesRef) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.table.Load()
	if r.used >= len(t.slots)*3/4 {
		t = r.grow(t)
	}
	slot := t.find(k)
	switch slot.ref.Load() {
	case 0:
		slot.key = k
		r.used++
		r.live++
	case dropped:
		r.live++
	}
	slot.ref.Store(uint64(ref))
}

// drop forgets k if it still has the reference ref: the series may have come back under a new one.
func (r *refs) drop(k wire.Key, ref storage.SeriesRef) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slot := r.table.Load().find(k); ref != 0 && slot.ref.Load() == uint64(ref) {
		slot.ref.Store(dropped)
		r.live--
	}
}

func (r *refs) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live
}

// grow replaces the table by one without dropped slots, at most half full. Readers of the old one stay right.
func (r *refs) grow(old *refTable) *refTable {
	size := firstSize
	for size < 2*(r.live+1) {
		size *= 2
	}
	t := &refTable{slots: make([]refSlot, size)}
	for i := range old.slots {
		if ref := old.slots[i].ref.Load(); ref != 0 && ref != dropped {
			slot := t.find(old.slots[i].key)
			slot.key = old.slots[i].key
			slot.ref.Store(ref)
		}
	}
	r.used = r.live
	r.table.Store(t)
	return t
}

// find returns the slot that holds k, or the empty slot where k belongs. The caller holds refs.mu.
func (t *refTable) find(k wire.Key) *refSlot {
	mask := uint64(len(t.slots) - 1)
	for i := k.Lo & mask; ; i = (i + 1) & mask {
		if slot := &t.slots[i]; slot.ref.Load() == 0 || slot.key == k {
			return slot
		}
	}
}
