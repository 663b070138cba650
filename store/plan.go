package store

import (
	"cmp"
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

// superseded finds the blocks that a compaction replaced: another block of the same resolution, covering their time, has
// all their sources and more. Blocks with the very same sources are kept: they may be parts of one split output.
func superseded(all []*block.Meta, broken func(ulid.ULID) bool) map[ulid.ULID]bool {
	type source struct {
		id         ulid.ULID
		resolution int64
	}
	has := map[source][]*block.Meta{} // the larger blocks made from a source
	for _, m := range all {
		if len(m.Compaction.Sources) < 2 || broken(m.ULID) {
			continue
		}
		for _, s := range m.Compaction.Sources {
			k := source{s, m.Thanos.Downsample.Resolution}
			has[k] = append(has[k], m)
		}
	}
	old := map[ulid.ULID]bool{}
	for _, m := range all {
		if len(m.Compaction.Sources) == 0 {
			continue
		}
		for _, by := range has[source{m.Compaction.Sources[0], m.Thanos.Downsample.Resolution}] {
			if replaces(by, m) {
				old[m.ULID] = true
			}
		}
	}
	return old
}

func replaces(by, m *block.Meta) bool {
	if len(by.Compaction.Sources) <= len(m.Compaction.Sources) || by.MinTime > m.MinTime || by.MaxTime < m.MaxTime {
		return false
	}
	for _, s := range m.Compaction.Sources {
		if !slices.Contains(by.Compaction.Sources, s) {
			return false
		}
	}
	return true
}
