package block

import "github.com/oklog/ulid/v2"

// Replacement is what replaces a block.
type Replacement struct {
	// By are the blocks that replace it and were not replaced themselves. Several ones may be the parts of one split
	// output, so that only all of them together have the samples.
	By []*Meta
	// Last says that no block between it and By is left: By were made of it, as far as the view shows.
	Last bool
}

// Replaced finds the blocks among metas that compactions replaced: another block covers them and was made of more
// sources. Blocks with the very same sources all stay, since they may be the parts of one split output. A block that
// nobody serves, as a filter took it out or it cannot be opened, must not be among metas: it replaces nothing.
func Replaced(metas []*Meta) map[ulid.ULID]Replacement {
	madeOf := map[ulid.ULID][]*Meta{} // blocks of several sources, by each of these
	for _, m := range metas {
		if len(m.Compaction.Sources) > 1 {
			for _, s := range m.Compaction.Sources {
				madeOf[s] = append(madeOf[s], m)
			}
		}
	}
	all := map[ulid.ULID][]*Meta{}
	for _, m := range metas {
		if len(m.Compaction.Sources) == 0 {
			continue
		}
		// What replaces m has all its sources, the first among them.
		for _, by := range madeOf[m.Compaction.Sources[0]] {
			if replaces(by, m) {
				all[m.ULID] = append(all[m.ULID], by)
			}
		}
	}
	out := make(map[ulid.ULID]Replacement, len(all))
	for id, replacing := range all {
		r := Replacement{Last: true}
		for _, m := range replacing {
			if all[m.ULID] == nil {
				r.By = append(r.By, m) // there is one, as each block that replaces another has more sources
			} else {
				r.Last = false
			}
		}
		out[id] = r
	}
	return out
}
