package cache

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// Expanded returns the references of the series of a block that matchers select, in order, if they are kept. matchers
// is a text that is the same only for matchers that select the same. The result is the caller's.
func (c *Cache) Expanded(ctx context.Context, block ulid.ULID, matchers []byte) ([]storage.SeriesRef, bool) {
	if !c.enabled[ExpandedPostings] {
		return nil, false
	}
	k := digest(block, expandedKey, matchers)
	encoded, ok := c.memory.get(k).([]byte)
	if !ok {
		encoded = c.expandedFromServer(ctx, k)
	}
	refs, ok := decodeRefs(encoded)
	hits := 0
	if ok {
		hits = 1
	}
	c.metrics.looked(ExpandedPostings, 1, hits)
	return refs, ok
}

func (c *Cache) expandedFromServer(ctx context.Context, k key) []byte {
	server, prefix := c.server(ExpandedPostings)
	if server == nil {
		return nil
	}
	name := k.onServer(prefix)
	content := c.unseal(name, server.get(ctx, []string{name})[name])
	if content != nil {
		content = slices.Clone(content) // what the server sent may be a part of something larger
		c.memory.put(k, ExpandedPostings, content, int64(cap(content)))
	}
	return content
}

// PutExpanded keeps what Expanded returns later. refs stay the caller's.
func (c *Cache) PutExpanded(block ulid.ULID, matchers []byte, refs []storage.SeriesRef) {
	if !c.enabled[ExpandedPostings] {
		return
	}
	k, content := digest(block, expandedKey, matchers), encodeRefs(refs)
	c.memory.put(k, ExpandedPostings, content, int64(cap(content)))
	if server, prefix := c.server(ExpandedPostings); server != nil {
		server.put(k.onServer(prefix), content)
	}
}

// encodeRefs is the number of references, and for each its distance from the one before, as unsigned varints.
func encodeRefs(refs []storage.SeriesRef) []byte {
	b := make([]byte, 0, binary.MaxVarintLen32+2*len(refs))
	b = binary.AppendUvarint(b, uint64(len(refs)))
	last := storage.SeriesRef(0)
	for _, ref := range refs {
		b = binary.AppendUvarint(b, uint64(ref-last))
		last = ref
	}
	return slices.Clip(b)
}

// decodeRefs is the reverse of encodeRefs. ok is false for what encodeRefs did not make of references in order.
func decodeRefs(b []byte) (refs []storage.SeriesRef, ok bool) {
	n, lead := binary.Uvarint(b)
	if lead <= 0 || n > uint64(len(b)-lead) { // each reference takes a byte or more
		return nil, false
	}
	refs, b = make([]storage.SeriesRef, 0, n), b[lead:]
	last := storage.SeriesRef(0)
	for range n {
		step, size := binary.Uvarint(b)
		ref := last + storage.SeriesRef(step)
		if size <= 0 || ref < last || step == 0 && len(refs) > 0 {
			return nil, false
		}
		refs, b, last = append(refs, ref), b[size:], ref
	}
	return refs, len(b) == 0
}

// Labels returns the labels of a series of a block, if they are kept. They are in memory only: to decode them costs
// less than to ask a server.
func (c *Cache) Labels(block ulid.ULID, ref storage.SeriesRef) (ls labels.Labels, ok bool) {
	if c.enabled[Series] {
		ls, ok = c.memory.get(seriesKeyOf(block, ref)).(labels.Labels)
	}
	return ls, ok
}

// PutLabels keeps what Labels returns later.
func (c *Cache) PutLabels(block ulid.ULID, ref storage.SeriesRef, ls labels.Labels) {
	if c.enabled[Series] {
		c.memory.put(seriesKeyOf(block, ref), Series, ls, int64(ls.ByteSize()))
	}
}

func seriesKeyOf(block ulid.ULID, ref storage.SeriesRef) key {
	return key{block, seriesKey, uint64(ref), 0}
}
