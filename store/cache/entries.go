package cache

import (
	"unsafe"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// Entry is one series of a block with all of its chunks, as its index has them.
type Entry struct {
	Labels labels.Labels
	Chunks []chunks.Meta
}

// Size is the memory that the entry takes, in bytes.
func (e Entry) Size() int64 {
	return int64(unsafe.Sizeof(e)) + int64(e.Labels.ByteSize()) +
		int64(cap(e.Chunks))*int64(unsafe.Sizeof(chunks.Meta{}))
}

// MostEntries is the largest number of series whose entries are kept: those of a panel.
const MostEntries = 1024

// entriesKey is the kind of keys of entries. They are in memory only.
const entriesKey = 's'

// Entries returns the series of a block that matchers select, decoded and in order, if they are kept, else nil.
// matchers is a text that is the same only for matchers that select the same.
func (c *Cache) Entries(block ulid.ULID, matchers []byte) []Entry {
	if !c.enabled[Series] {
		return nil
	}
	all, _ := c.memory.get(digest(block, entriesKey, matchers)).([]Entry)
	hits := 0
	if all != nil {
		hits = 1
	}
	c.metrics.looked(Series, 1, hits)
	return all
}

// PutEntries keeps what Entries returns later. Nobody changes all any more.
func (c *Cache) PutEntries(block ulid.ULID, matchers []byte, all []Entry) {
	if !c.enabled[Series] || len(all) > MostEntries {
		return
	}
	size := int64(0)
	for _, e := range all {
		size += e.Size()
	}
	c.memory.put(digest(block, entriesKey, matchers), Series, all, size)
}
