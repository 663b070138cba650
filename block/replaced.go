package block

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"
)

// Replacement is what replaces a block.
type Replacement struct {
	// By are the blocks that replace it and were not replaced themselves. Several ones may be the parts of one split
	// output, so that only all of them together have the samples.
	By []*Meta
	// Last says that no block between it and By is left: By were made of it, as far as the view shows.
	Last bool
}

// Replaced finds the blocks among metas that compactions replaced: others cover them and were made of more. All
// parts of a split output that may have series of a block must be there: as long as one is missing, the block is
// not replaced. Blocks with the very same sources of which nobody says whether they are parts of one output all
// stay. A block that nobody serves, as a filter took it out or it cannot be opened, must not be among metas: it
// replaces nothing. The result is a function of metas and their order.
func Replaced(metas []*Meta) map[ulid.ULID]Replacement {
	r := replacing{sources: sourceLists{}, may: mayReplace(metas), known: map[*Meta]*Replacement{}}
	out := map[ulid.ULID]Replacement{}
	for _, m := range metas {
		if len(r.may[m]) == 0 {
			continue
		}
		if by := r.of(m); by != nil {
			out[m.ULID] = *by
		}
	}
	return out
}

// mayReplace finds for each of metas which others could replace it, by time, resolution and external labels: those
// that no block says were removed are equal. It looks at pairs that overlap, of which there are few.
func mayReplace(metas []*Meta) map[*Meta][]*Meta {
	type group struct {
		family     string
		resolution int64
	}
	groups := map[group][]*Meta{}
	for family, in := range FamiliesOf(metas).Group(metas) {
		for _, m := range in {
			g := group{family, m.Thanos.Downsample.Resolution}
			groups[g] = append(groups[g], m)
		}
	}
	out := map[*Meta][]*Meta{}
	for _, in := range groups {
		slices.SortStableFunc(in, func(a, b *Meta) int { return cmp.Compare(a.MinTime, b.MinTime) })
		var open []*Meta // may contain those that follow
		for _, m := range in {
			open = slices.DeleteFunc(open, func(o *Meta) bool { return o.MaxTime < m.MinTime })
			for _, o := range open {
				if o.MaxTime >= m.MaxTime && o.madeOfOthers() {
					out[m] = append(out[m], o)
				}
				if o.MinTime == m.MinTime && o.MaxTime <= m.MaxTime && m.madeOfOthers() {
					out[o] = append(out[o], m)
				}
			}
			open = append(open, m)
		}
	}
	return out
}

func (m *Meta) madeOfOthers() bool { return m.Origin != nil || len(m.Compaction.Sources) > 1 }

// replacing finds what replaces blocks.
type replacing struct {
	sources sourceLists
	may     map[*Meta][]*Meta
	// known has an entry for each block that was looked at. It is nil if nothing replaces the block, and pending while
	// that is being found out.
	known map[*Meta]*Replacement
}

// pending stands for a block that is being looked at.
var pending = &Replacement{}

// of is what replaces m, nil if nothing does. What metas say may be a cycle: then one of its blocks stays, the last
// one that is reached.
func (r *replacing) of(m *Meta) *Replacement {
	if by, ok := r.known[m]; ok {
		return by
	}
	r.known[m] = pending
	out := r.find(m)
	r.known[m] = out
	return out
}

func (r *replacing) find(m *Meta) *Replacement {
	part := m.Part()
	var candidates []*Meta
	var parts []Part
	for _, by := range r.may[m] {
		if r.known[by] != pending && r.sources.replaces(by, m) {
			candidates = append(candidates, by)
			parts = append(parts, by.Vouches()...)
		}
	}
	if len(candidates) == 0 || !part.CoveredBy(parts) {
		return nil
	}
	out := &Replacement{Last: true}
	for _, by := range candidates {
		final := []*Meta{by}
		if later := r.of(by); later != nil {
			final, out.Last = later.By, false
		}
		for _, f := range final {
			if !slices.Contains(out.By, f) && f.meets(part) {
				out.By = append(out.By, f)
			}
		}
	}
	if len(out.By) == 0 {
		return nil
	}
	return out
}

// meets reports whether m says something of series of part.
func (m *Meta) meets(part Part) bool { return slices.ContainsFunc(m.Vouches(), part.Meets) }

// sourceLists has the sources of blocks in order, each once.
type sourceLists map[*Meta]sourceList

// sourceList are the sources of a block: those of its part, and those that its meta.json says to everybody, which are
// the same for all blocks but parts of a split output.
type sourceList struct{ own, told []ulid.ULID }

func (s sourceLists) of(m *Meta) sourceList {
	l, ok := s[m]
	if !ok {
		l = sourceList{InOrder(m.Sources()), InOrder(m.Compaction.Sources)}
		s[m] = l
	}
	return l
}

// InOrder is ids in order, each once. It is ids itself if that is so already; else ids stay as they are.
func InOrder(ids []ulid.ULID) []ulid.ULID {
	for i := 1; i < len(ids); i++ {
		if ids[i-1].Compare(ids[i]) >= 0 {
			ids = slices.Clone(ids)
			slices.SortFunc(ids, ulid.ULID.Compare)
			return slices.Compact(ids)
		}
	}
	return ids
}

// Subset reports whether all of a are in b. Both are InOrder.
func Subset(a, b []ulid.ULID) bool {
	if len(a) > len(b) {
		return false
	}
	for _, id := range a {
		for len(b) > 0 && b[0].Compare(id) < 0 {
			b = b[1:]
		}
		if len(b) == 0 || b[0] != id {
			return false
		}
	}
	return true
}

// covers reports whether by has all samples that m has in the parts that by vouches for, as far as their metas tell.
func (s sourceLists) covers(by, m *Meta) bool {
	if !sameStream(by, m) || by.MinTime > m.MinTime || by.MaxTime < m.MaxTime || !by.meets(m.Part()) {
		return false
	}
	b, a := s.of(by), s.of(m)
	return Subset(a.own, b.own) || Subset(a.told, b.told)
}

// replaces reports whether by covers m and was made of more than m: of more sources, or of m itself and others that
// have no other sources. Of two blocks of Hearth's compactor with the same sources the one that was compacted more
// often counts, and then the one with the smaller id: two compactors made them.
func (s sourceLists) replaces(by, m *Meta) bool {
	if !s.covers(by, m) {
		return false
	}
	b, a := s.of(by), s.of(m)
	if Subset(a.own, b.own) && len(a.own) > 0 {
		if len(b.own) > len(a.own) {
			return true
		}
		if by.Origin == nil {
			return false
		}
		if _, direct := slices.BinarySearchFunc(by.Origin.Replaces, m.ULID, ulid.ULID.Compare); direct {
			return true
		}
		if m.Origin != nil {
			return by.Compaction.Level > m.Compaction.Level ||
				by.Compaction.Level == m.Compaction.Level && by.ULID.Compare(m.ULID) < 0
		}
		return false
	}
	return Subset(a.told, b.told) && len(a.told) > 0 && len(b.told) > len(a.told)
}

// HaveAll reports whether parts, blocks that m was made of, have all samples of m together.
func HaveAll(parts []*Meta, m *Meta) bool {
	have := map[ulid.ULID][]Part{}
	for _, p := range parts {
		for _, id := range p.Sources() {
			have[id] = append(have[id], p.Vouches()...)
		}
		for _, id := range p.Compaction.Sources {
			if id == p.ULID {
				have[id] = append(have[id], Part{0, 1}) // it is all of itself
			}
		}
	}
	return !slices.ContainsFunc(m.Sources(), func(id ulid.ULID) bool { return !m.Part().CoveredBy(have[id]) })
}

// SourcesOf are the ids of the blocks whose samples the raw ones among served have: their own ids, and those of the
// blocks that they were made of. A source of split outputs counts if all parts that it may have series of are
// served. A source that v still has counts only when the served block covers it: an id in a list of sources may be
// that of another tenant's block. A source that is gone was deleted by whoever made the served block.
func (v View) SourcesOf(served []*Meta) map[ulid.ULID]bool {
	out, split, lists := map[ulid.ULID]bool{}, map[ulid.ULID][]Part{}, sourceLists{}
	for _, m := range served {
		if m.Thanos.Downsample.Resolution != 0 {
			continue
		}
		out[m.ULID] = true
		for _, id := range m.Sources() {
			source := v.Metas[id]
			switch {
			case source != nil && !lists.covers(m, source):
			case m.Part().Of == 1:
				out[id] = true
			default:
				split[id] = append(split[id], m.Vouches()...)
			}
		}
	}
	for id, parts := range split {
		whole := Part{0, 1}
		if source := v.Metas[id]; source != nil {
			whole = source.Part()
		}
		if whole.CoveredBy(parts) {
			out[id] = true
		}
	}
	return out
}
