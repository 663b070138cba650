package replicate

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
)

// Choice says which blocks are copied. Blocks without external labels never are: nobody could tell whose they are.
type Choice struct {
	// Blocks, if there are any, are the only ones, and what follows has no effect.
	Blocks []ulid.ULID
	// Resolutions are those of the blocks, in ms, and Levels their levels of compaction.
	Resolutions []int64
	Levels      []int
	// Matchers must all match the external labels.
	Matchers []*labels.Matcher
}

// Filter is the choice as a filter.
func (c Choice) Filter() block.Filter {
	return func(_ block.View, metas []*block.Meta) []*block.Meta {
		return slices.DeleteFunc(metas, func(m *block.Meta) bool { return !c.has(m) })
	}
}

func (c Choice) has(m *block.Meta) bool {
	switch {
	case len(m.Thanos.Labels) == 0:
		return false
	case len(c.Blocks) > 0:
		return slices.Contains(c.Blocks, m.ULID)
	}
	for _, matcher := range c.Matchers {
		if !matcher.Matches(m.Thanos.Labels[matcher.Name]) {
			return false
		}
	}
	return slices.Contains(c.Resolutions, m.Thanos.Downsample.Resolution) && slices.Contains(c.Levels, m.Compaction.Level)
}

// MarkDifference is a mark that one bucket has and the other one lacks.
type MarkDifference struct {
	Block ulid.ULID `json:"block"`
	Mark  string    `json:"mark"`
	// In is the bucket that has it: source or target.
	In string `json:"in"`
}

// marksOf are the names of the marks that v has of block id.
func marksOf(v block.View, id ulid.ULID) (names []string) {
	if _, ok := v.Deletions[id]; ok {
		names = append(names, block.DeletionMarkName)
	}
	if _, ok := v.NoCompact[id]; ok {
		names = append(names, block.NoCompactMarkName)
	}
	if _, ok := v.NoDownsample[id]; ok {
		names = append(names, block.NoDownsampleMarkName)
	}
	return names
}

// seen are the views of a pass: of the source before and after it, and of the target after it.
type seen struct {
	before, after, target block.View
	label                 string // that names a block's tenant in the target
}

// compare fills in what r says of the sets of blocks. wanted are the blocks that were to be copied.
func (s seen) compare(r *Report, wanted []*block.Meta, filters []block.Filter) {
	for _, m := range wanted {
		id := m.ULID
		if s.after.Metas[id] == nil {
			continue
		}
		r.Source++
		if s.target.Metas[id] == nil {
			r.Missing = append(r.Missing, id)
			continue
		}
		r.Target++
		before, after, target := marksOf(s.before, id), marksOf(s.after, id), marksOf(s.target, id)
		for _, name := range before {
			if slices.Contains(after, name) && !slices.Contains(target, name) {
				r.Marks = append(r.Marks, MarkDifference{id, name, "source"})
			}
		}
		for _, name := range target {
			if !slices.Contains(before, name) && !slices.Contains(after, name) {
				r.Marks = append(r.Marks, MarkDifference{id, name, "target"})
			}
		}
	}
	for _, m := range s.target.Select(filters...) {
		_, marked := s.target.Deletions[m.ULID]
		known := s.before.Metas[m.ULID] != nil || s.after.Metas[m.ULID] != nil || s.after.Partial[m.ULID] != nil
		if !marked && !known {
			r.Extra = append(r.Extra, m.ULID)
		}
	}
	r.Equal = len(r.Missing)+len(r.Extra)+len(r.Marks) == 0 && !slices.ContainsFunc(r.Blocks, Outcome.failed)
}

// order sorts files as they are sent: chunks, index, what others made of them.
func order(rels []string) {
	rank := func(rel string) int {
		switch {
		case inChunks(rel):
			return 0
		case rel == block.IndexName:
			return 1
		}
		return 2
	}
	slices.SortFunc(rels, func(a, b string) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(a, b)) })
}
