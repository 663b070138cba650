package block

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block/bucketindex"
)

// Origin is what Hearth's compactor says of a block that it made (docs/format/split-blocks.md).
type Origin = bucketindex.Origin

// MaxParts is into how many parts the output of a compaction is split at most.
const MaxParts = bucketindex.MaxParts

// extensionName is the field of Thanos.Extensions that has the Origin.
const extensionName = "hearth"

// origin is what extensions say of block id. What is faulty, or says something of another block, counts as absent.
func (t *Thanos) origin(id ulid.ULID) *Origin {
	var all map[string]json.RawMessage
	if len(t.Extensions) == 0 || json.Unmarshal(t.Extensions, &all) != nil || all[extensionName] == nil {
		return nil
	}
	o := &Origin{}
	if json.Unmarshal(all[extensionName], o) != nil || o.Validate(id) != nil {
		return nil
	}
	return o
}

// withOrigin is extensions with o in them. All other fields stay as they are, also those of extensions.hearth.
func withOrigin(extensions json.RawMessage, o *Origin) (json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	if len(extensions) > 0 && json.Unmarshal(extensions, &all) != nil || all == nil {
		all = map[string]json.RawMessage{} // they are no object, so nobody can have fields there
	}
	now, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	if was := all[extensionName]; was != nil {
		now = keepUnknown(was, now, reflect.TypeFor[Origin]())
	}
	all[extensionName] = now
	return json.Marshal(all)
}

// Sources are the blocks that were not made of others, and whose samples m has: those of its part, if m is one. Do not
// change them.
func (m *Meta) Sources() []ulid.ULID {
	if m.Origin != nil {
		return m.Origin.Sources
	}
	return m.Compaction.Sources
}

// Part is the part of all series that m may have.
func (m *Meta) Part() Part {
	if m.Origin != nil {
		return Part{m.Origin.Shard, m.Origin.Of}
	}
	return Part{0, 1}
}

// Vouches are the parts of which m says that blocks made of its sources have nothing else: its own, and empty ones.
func (m *Meta) Vouches() []Part {
	parts := []Part{m.Part()}
	if m.Origin != nil {
		for _, shard := range m.Origin.Empty {
			parts = append(parts, Part{shard, m.Origin.Of})
		}
	}
	return parts
}

// Part is a part of all series: those whose labels.StableHash % Of is Shard. Of is a power of two, so of two parts one
// contains the other, or they have no series in common.
type Part struct{ Shard, Of int }

// Contains reports whether all series of q are in p.
func (p Part) Contains(q Part) bool { return p.Of <= q.Of && q.Shard%p.Of == p.Shard }

// Meets reports whether p and q have series in common.
func (p Part) Meets(q Part) bool { return p.Contains(q) || q.Contains(p) }

// CoveredBy reports whether parts together have all series of p.
func (p Part) CoveredBy(parts []Part) bool {
	if slices.ContainsFunc(parts, func(q Part) bool { return q.Contains(p) }) {
		return true
	}
	var inside []Part
	for _, q := range parts {
		if p.Contains(q) {
			inside = append(inside, q)
		}
	}
	return len(inside) > 1 && Part{p.Shard, 2 * p.Of}.CoveredBy(inside) && Part{p.Shard + p.Of, 2 * p.Of}.CoveredBy(inside)
}

// Deduped is the value that Thanos gives to the first of the labels that it removes, if a block has no other label.
const Deduped = "deduped"

// sameStream reports whether by may have the samples of m, by their resolution and external labels, tenant and replica
// among them. by may lack those labels of which it says that they were removed. Ids of sources prove nothing of it:
// blocks are copied between tenants, and rewritten.
func sameStream(by, m *Meta) bool {
	if by.Thanos.Downsample.Resolution != m.Thanos.Downsample.Resolution {
		return false
	}
	if by.Origin == nil || len(by.Origin.Removed) == 0 {
		return maps.Equal(by.Thanos.Labels, m.Thanos.Labels)
	}
	removed := func(name string) bool {
		_, found := slices.BinarySearch(by.Origin.Removed, name)
		return found
	}
	same := 0
	for name, value := range by.Thanos.Labels {
		switch {
		case removed(name) && value != Deduped:
			return false
		case removed(name):
		case m.Thanos.Labels[name] != value:
			return false
		default:
			if _, has := m.Thanos.Labels[name]; !has {
				return false
			}
			same++
		}
	}
	for name := range m.Thanos.Labels {
		if !removed(name) {
			same--
		}
	}
	return same == 0
}
