package frontend

import (
	"encoding/binary"
	"slices"
)

// formatVersion is the version of keys and entries. Entries of another version are not found.
const formatVersion = 1

// key is that of the cache entry with the steps of q in the interval, in ms, in which a piece begins. Each field goes
// in with its length, so that no two requests have one key.
func (q *request) key(from, interval int64) string {
	b := []byte{formatVersion}
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(len(q.tenants)))
	for _, id := range q.tenants {
		text(string(id))
	}
	labels := slices.Sorted(slices.Values(q.replicaLabels))
	b = binary.AppendUvarint(b, uint64(len(labels)))
	for _, name := range labels {
		text(name)
	}
	for _, s := range []string{q.text, q.dedup, q.partial, q.resolution, q.lookback, q.engine} {
		text(s)
	}
	number := from
	if interval > 0 {
		number = from / interval
	}
	for _, n := range []int64{q.step, from % q.step, interval, number} {
		b = binary.AppendVarint(b, n)
	}
	return string(b)
}
