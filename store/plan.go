package store

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// plan decides which of the bucket's blocks are served: those within [mint, maxt], not marked for deletion for longer
// than delay, and not superseded by another one that is served. broken are blocks that cannot be opened: they supersede
// nothing. The result is in order of time, then id.
func plan(v block.View, broken func(ulid.ULID) bool, mint, maxt int64, deletedBefore time.Time) []*block.Meta {
	var all []*block.Meta
	for id, m := range v.Metas {
		mark, marked := v.Deletions[id]
		if marked && mark.DeletionTime < deletedBefore.Unix() || m.MinTime > maxt || m.MaxTime <= mint {
			continue
		}
		all = append(all, m)
	}
	old := superseded(all, broken)
	all = slices.DeleteFunc(all, func(m *block.Meta) bool { return old[m.ULID] })
	slices.SortFunc(all, func(a, b *block.Meta) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
	})
	return all
}

// superseded finds the blocks that a compaction replaced: another block of the same stream covers their time, and has all
// their sources and more. Blocks with the very same sources are kept: they may be parts of one split output.
func superseded(all []*block.Meta, broken func(ulid.ULID) bool) map[ulid.ULID]bool {
	has := map[ulid.ULID][]*block.Meta{} // the larger blocks made from a source
	for _, m := range all {
		if len(m.Compaction.Sources) < 2 || broken(m.ULID) {
			continue
		}
		for _, s := range m.Compaction.Sources {
			has[s] = append(has[s], m)
		}
	}
	old := map[ulid.ULID]bool{}
	for _, m := range all {
		if len(m.Compaction.Sources) == 0 {
			continue
		}
		old[m.ULID] = slices.ContainsFunc(has[m.Compaction.Sources[0]], func(by *block.Meta) bool { return replaces(by, m) })
	}
	return old
}

// sameStream reports whether two blocks have samples of the same series: equal external labels, tenant and replica among
// them, and one resolution. Ids of sources prove nothing of it: blocks are copied between tenants, and rewritten.
func sameStream(a, b *block.Meta) bool {
	return a.Thanos.Downsample.Resolution == b.Thanos.Downsample.Resolution && maps.Equal(a.Thanos.Labels, b.Thanos.Labels)
}

// covers reports whether by has all samples that m had, as far as their metas tell.
func covers(by, m *block.Meta) bool {
	return sameStream(by, m) && by.MinTime <= m.MinTime && by.MaxTime >= m.MaxTime &&
		!slices.ContainsFunc(m.Compaction.Sources, func(s ulid.ULID) bool { return !slices.Contains(by.Compaction.Sources, s) })
}

// replaces reports whether by covers m and was made of more than m.
func replaces(by, m *block.Meta) bool {
	return covers(by, m) &&
		slices.ContainsFunc(by.Compaction.Sources, func(s ulid.ULID) bool { return !slices.Contains(m.Compaction.Sources, s) })
}

// sourcesOf are the ids whose samples the served raw blocks have: their own, and those of the blocks they were made of. A
// source that is still in the bucket counts only if the block covers it; one that is gone was deleted by who made the block.
func sourcesOf(served []*block.Meta, inBucket map[ulid.ULID]*block.Meta) map[ulid.ULID]bool {
	out := map[ulid.ULID]bool{}
	for _, m := range served {
		if m.Thanos.Downsample.Resolution != 0 {
			continue
		}
		out[m.ULID] = true
		for _, id := range m.Compaction.Sources {
			if source := inBucket[id]; source == nil || covers(m, source) {
				out[id] = true
			}
		}
	}
	return out
}
