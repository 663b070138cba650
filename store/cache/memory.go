package cache

import (
	"hash/maphash"
	"math/bits"
	"sync"

	"github.com/oklog/ulid/v2"
)

// key names a value. Two numbers are enough for all kinds of them, see the functions that make keys.
type key struct {
	block ulid.ULID
	what  byte // one of pageKey, ...
	a, b  uint64
}

const (
	// overhead is what an entry takes beside its value, in bytes: itself, and its place in the map.
	overhead = 256
	// shardBytes is the least size of a shard: large enough for the largest items, small enough for a busy process.
	shardBytes = 16 << 20
	// maxShards bounds how many parts memory has, each with a lock of its own.
	maxShards = 16
)

// memory is the tier in this process. It is safe for concurrent use.
type memory struct {
	seed   maphash.Seed
	shards []shard // their number is a power of two
}

// newMemory makes a memory of at most maxBytes, 0 keeps nothing, in values of at most maxItem, 0 = any.
func newMemory(maxBytes, maxItem int64, m *metrics) *memory {
	n := min(max(maxBytes/shardBytes, 1), maxShards)
	n = 1 << (bits.Len64(uint64(n)) - 1)
	c := &memory{seed: maphash.MakeSeed(), shards: make([]shard, n)}
	if most := maxBytes / n / 2; maxItem <= 0 || maxItem > most {
		maxItem = most
	}
	for i := range c.shards {
		c.shards[i].init(maxBytes/n, maxItem, m)
	}
	return c
}

func (c *memory) shard(k key) *shard {
	return &c.shards[maphash.Comparable(c.seed, k)&uint64(len(c.shards)-1)]
}

// get returns the value of k, nil when there is none.
func (c *memory) get(k key) any { return c.shard(k).get(k) }

// put keeps a value of size bytes, unless there is one already, or it is too large.
func (c *memory) put(k key, kind Kind, value any, size int64) {
	c.shard(k).put(k, kind, value, size)
}

// size is the bytes of all entries.
func (c *memory) size() (bytes int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		bytes += s.once.size + s.again.size
		s.mu.Unlock()
	}
	return bytes
}

// shard is a part of memory: a segmented list of what was used last. An entry begins among those that were used once.
// With its second use it moves to those that were used again, which have at most againPart of the bytes; beyond that
// their oldest moves back. Entries leave from the oldest end of the first list. So a scan, whose entries are used once,
// pushes out other scans before it pushes out anything that is in use.
type shard struct {
	max     int64 // bytes
	maxItem int64 // bytes; a value takes half of the shard at most
	metrics *metrics

	mu          sync.Mutex // guards what follows
	entries     map[key]*entry
	once, again list
}

// againPart is how much of a shard, in percent, may be held by what was used more than once. The rest is for new
// entries, which must live long enough to be used again.
const againPart = 80

// entry is one value. It is in one of its shard's lists.
type entry struct {
	key
	kind       Kind
	again      bool
	value      any
	size       int64 // with overhead
	prev, next *entry
}

func (s *shard) init(maxBytes, maxItem int64, m *metrics) {
	s.max, s.maxItem, s.metrics, s.entries = maxBytes, maxItem, m, map[key]*entry{}
	s.once.init()
	s.again.init()
}

func (s *shard) get(k key) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[k]
	if e == nil {
		return nil
	}
	if e.again {
		s.again.remove(e)
	} else {
		s.once.remove(e)
		e.again = true
	}
	s.again.push(e)
	for s.again.size > s.max/100*againPart {
		old := s.again.oldest()
		s.again.remove(old)
		old.again = false
		s.once.push(old)
	}
	return e.value
}

func (s *shard) put(k key, kind Kind, value any, size int64) {
	size += overhead
	if size > s.maxItem {
		s.metrics.of[kind].overflowed.Inc()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[k] != nil {
		return
	}
	for s.once.size+s.again.size+size > s.max {
		s.drop()
	}
	e := &entry{key: k, kind: kind, value: value, size: size}
	s.entries[k] = e
	s.once.push(e)
	s.metrics.kept(kind, size)
}

// drop removes the oldest entry of those that were used once, else of the others.
func (s *shard) drop() {
	l := &s.once
	if l.size == 0 {
		l = &s.again
	}
	e := l.oldest()
	l.remove(e)
	delete(s.entries, e.key)
	s.metrics.dropped(e.kind, e.size)
}

// list is a ring of entries with their bytes; the newest follows root.
type list struct {
	root entry
	size int64
}

func (l *list) init() { l.root.prev, l.root.next = &l.root, &l.root }

func (l *list) oldest() *entry { return l.root.prev }

func (l *list) push(e *entry) {
	e.prev, e.next = &l.root, l.root.next
	e.prev.next, e.next.prev = e, e
	l.size += e.size
}

func (l *list) remove(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
	l.size -= e.size
}
