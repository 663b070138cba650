package verify

import (
	"fmt"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// The issues, in Thanos's words.
const (
	IndexKnownIssues     = "index_known_issues"
	OverlappedBlocks     = "overlapped_blocks"
	DuplicatedCompaction = "duplicated_compaction"
)

// Finding is something wrong with a block.
type Finding struct {
	Block ulid.ULID `json:"block"`
	Issue string    `json:"issue"`
	// Text says what it is. Others are the blocks that have to do with it.
	Text   string      `json:"text"`
	Others []ulid.ULID `json:"others,omitempty"`
}

// Overlaps finds blocks of one stream and resolution whose times overlap. metas are those that readers use: neither
// replaced nor marked for deletion, oldest first. Each block is named once, with all before it that it overlaps with.
func Overlaps(metas []*block.Meta) (all []Finding) {
	open := map[string][]*block.Meta{} // by stream: those that end after the start of the last one
	for _, m := range metas {
		key := streamOf(m)
		before := slices.DeleteFunc(open[key], func(o *block.Meta) bool { return o.MaxTime <= m.MinTime })
		if len(before) > 0 {
			f := Finding{Block: m.ULID, Issue: OverlappedBlocks, Text: fmt.Sprintf("its time, from %d to %d, overlaps with "+
				"that of %d other blocks of the same labels and resolution", m.MinTime, m.MaxTime, len(before))}
			for _, o := range before {
				f.Others = append(f.Others, o.ULID)
			}
			all = append(all, f)
		}
		open[key] = append(before, m)
	}
	return all
}

func streamOf(m *block.Meta) string {
	return fmt.Sprint(m.Thanos.Downsample.Resolution, m.ExternalLabels())
}

// Duplicates finds blocks that were made twice: of one stream, with the same time, level, sources and numbers of
// series, samples and chunks. All of a group are named but the one with the lowest id.
func Duplicates(metas []*block.Meta) (all []Finding) {
	groups := map[string][]*block.Meta{}
	for _, m := range metas {
		sources := slices.SortedFunc(slices.Values(m.Compaction.Sources), ulid.ULID.Compare)
		key := fmt.Sprint(streamOf(m), m.MinTime, m.MaxTime, m.Compaction.Level, sources, m.Stats)
		groups[key] = append(groups[key], m)
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		group := slices.SortedFunc(slices.Values(groups[key]), func(a, b *block.Meta) int { return a.ULID.Compare(b.ULID) })
		for _, m := range group[1:] {
			all = append(all, Finding{Block: m.ULID, Issue: DuplicatedCompaction, Others: []ulid.ULID{group[0].ULID},
				Text: "it has the time, sources and statistics of another block"})
		}
	}
	slices.SortFunc(all, func(a, b Finding) int { return a.Block.Compare(b.Block) })
	return all
}
