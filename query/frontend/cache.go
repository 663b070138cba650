package frontend

import (
	"cmp"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Cache keeps bytes under keys. It is safe for concurrent use. A fault is a miss. Values are shared: nobody changes
// what Get returned or Put was given.
type Cache interface {
	Get(key string) []byte
	Put(key string, value []byte)
}

// Memory is a Cache in the memory of the process.
type Memory struct {
	maxBytes, maxItem int64 // of all values, and of one
	validity          time.Duration
	now               func() time.Time

	mu   sync.Mutex // guards what follows
	lru  *simplelru.LRU[string, kept]
	used int64
}

// kept is a value and when it was put.
type kept struct {
	value []byte
	at    time.Time
}

// itemBytes is what the bookkeeping of one value takes.
const itemBytes = 160

// NewMemory makes a cache of at most maxBytes, with what the bookkeeping takes, and maxItems values; 0 = any number. A
// value of more than an eighth of maxBytes is not kept. Values are forgotten after validity; 0 = only for want of
// memory.
func NewMemory(maxBytes int64, maxItems int, validity time.Duration) *Memory {
	m := &Memory{maxBytes: maxBytes, maxItem: maxBytes / 8, validity: validity, now: time.Now}
	evicted := func(key string, k kept) { m.used -= size(key, k.value) }
	m.lru, _ = simplelru.NewLRU(cmp.Or(maxItems, math.MaxInt32), evicted) // there is no error for these sizes
	return m
}

func size(key string, value []byte) int64 { return int64(len(key) + len(value) + itemBytes) }

// Get implements Cache.
func (m *Memory) Get(key string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, found := m.lru.Get(key)
	if found && m.validity > 0 && m.now().Sub(k.at) > m.validity {
		m.lru.Remove(key)
		return nil
	}
	return k.value
}

// Put implements Cache.
func (m *Memory) Put(key string, value []byte) {
	n := size(key, value)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lru.Remove(key)
	if n > m.maxItem || n > m.maxBytes {
		return
	}
	for m.used+n > m.maxBytes {
		m.lru.RemoveOldest()
	}
	m.lru.Add(key, kept{value, m.now()})
	m.used += n
}

// Bytes is what is used.
func (m *Memory) Bytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}
