package cache

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/storage"
)

// Expanded returns which series of a block matchers select, if it is kept, else nil. matchers is a text that is the
// same only for matchers that select the same.
func (c *Cache) Expanded(ctx context.Context, block ulid.ULID, matchers []byte) Selection {
	if !c.enabled[ExpandedPostings] {
		return nil
	}
	k := digest(block, expandedKey, matchers)
	s, ok := c.memory.get(k).(Selection)
	if !ok {
		s = c.expandedFromServer(ctx, k)
	}
	hits := 0
	if s != nil {
		hits = 1
	}
	c.metrics.looked(ExpandedPostings, 1, hits)
	return s
}

func (c *Cache) expandedFromServer(ctx context.Context, k key) Selection {
	server, prefix := c.server(ExpandedPostings)
	if server == nil {
		return nil
	}
	name := k.onServer(prefix)
	content := c.unseal(name, server.get(ctx, []string{name})[name])
	if content == nil {
		return nil
	}
	s := Selection(slices.Clone(content)) // what the server sent is larger, and would stay with it
	c.memory.put(k, ExpandedPostings, s, int64(cap(s)))
	return s
}

// PutExpanded keeps what Expanded returns later.
func (c *Cache) PutExpanded(block ulid.ULID, matchers []byte, s Selection) {
	if !c.enabled[ExpandedPostings] {
		return
	}
	k := digest(block, expandedKey, matchers)
	c.memory.put(k, ExpandedPostings, s, int64(cap(s)))
	if server, prefix := c.server(ExpandedPostings); server != nil {
		server.put(k.onServer(prefix), s)
	}
}

// Selection is the series of a block that matchers select, encoded: which of the matchers are still to be applied to
// the series (a bit each), the number of references, and for each reference its distance from the one before, as
// unsigned varints.
type Selection []byte

// NewSelection encodes references, which are in order. They stay the caller's.
func NewSelection(late uint64, refs []storage.SeriesRef) Selection {
	b := make([]byte, 0, 2*binary.MaxVarintLen64+2*len(refs))
	b = binary.AppendUvarint(b, late)
	b = binary.AppendUvarint(b, uint64(len(refs)))
	last := storage.SeriesRef(0)
	for _, ref := range refs {
		b = binary.AppendUvarint(b, uint64(ref-last))
		last = ref
	}
	return slices.Clip(b)
}

// head reads what stands before the references. ok is false if there cannot be that many.
func (s Selection) head() (late, n uint64, rest []byte, ok bool) {
	late, lead := binary.Uvarint(s)
	if lead <= 0 {
		return 0, 0, nil, false
	}
	n, more := binary.Uvarint(s[lead:])
	if more <= 0 || n > uint64(len(s)-lead-more) { // each reference takes a byte or more
		return 0, 0, nil, false
	}
	return late, n, s[lead+more:], true
}

// Len is the number of references, 0 for what NewSelection did not make.
func (s Selection) Len() int {
	_, n, _, _ := s.head()
	return int(n)
}

// Decode is the reverse of NewSelection. ok is false for what NewSelection did not make of references in order.
func (s Selection) Decode() (late uint64, refs []storage.SeriesRef, ok bool) {
	late, n, b, ok := s.head()
	if !ok {
		return 0, nil, false
	}
	refs = make([]storage.SeriesRef, 0, n)
	last := storage.SeriesRef(0)
	for range n {
		step, size := binary.Uvarint(b)
		ref := last + storage.SeriesRef(step)
		if size <= 0 || ref < last || step == 0 && len(refs) > 0 {
			return 0, nil, false
		}
		refs, b, last = append(refs, ref), b[size:], ref
	}
	return late, refs, len(b) == 0
}
