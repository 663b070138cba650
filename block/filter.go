package block

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

// Filter returns those of metas that it keeps, which are blocks of v. It may change the slice. Filters are functions of
// values: they read no bucket and no clock.
type Filter func(v View, metas []*Meta) []*Meta

// Select returns the blocks of v that pass all filters, in order of time, then of id. Each filter gets what the ones
// before it kept.
func (v View) Select(filters ...Filter) []*Meta {
	all := slices.SortedFunc(maps.Values(v.Metas), ByTime)
	for _, filter := range filters {
		all = filter(v, all)
	}
	return all
}

// ByTime compares blocks by time, then by id.
func ByTime(a, b *Meta) int {
	return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
}

// Within keeps the blocks that may have samples of [mint, maxt], in ms.
func Within(mint, maxt int64) Filter {
	return func(_ View, metas []*Meta) []*Meta {
		return slices.DeleteFunc(metas, func(m *Meta) bool { return m.MinTime > maxt || m.MaxTime <= mint })
	}
}

// IDLabel is the label under which relabelling rules, and matchers on blocks, find the id of a block, as in Thanos.
const IDLabel = "__block_id"

// Chosen keeps the blocks that rules keep. The rules get the external labels of a block and __block_id; what they make
// of the labels is of no further effect. Blocks are so divided among gateways exactly as Thanos divides them.
func Chosen(rules []*relabel.Config) Filter {
	return func(_ View, metas []*Meta) []*Meta {
		if len(rules) == 0 {
			return metas
		}
		builder := labels.NewBuilder(labels.EmptyLabels())
		return slices.DeleteFunc(metas, func(m *Meta) bool {
			builder.Reset(m.ExternalLabels())
			builder.Set(IDLabel, m.ULID.String())
			return !relabel.ProcessBuilder(builder, rules...)
		})
	}
}

// NotReplaced takes out the blocks that others replace (Replaced).
func NotReplaced(_ View, metas []*Meta) []*Meta {
	replaced := Replaced(metas)
	return slices.DeleteFunc(metas, func(m *Meta) bool { _, gone := replaced[m.ULID]; return gone })
}

// Labelled keeps the blocks whose external labels have all that want has, with the same values.
func Labelled(want labels.Labels) Filter {
	return func(_ View, metas []*Meta) []*Meta {
		return slices.DeleteFunc(metas, func(m *Meta) bool {
			return want.Validate(func(l labels.Label) error {
				if v, ok := m.Thanos.Labels[l.Name]; !ok || v != l.Value {
					return errOther
				}
				return nil
			}) != nil
		})
	}
}

// errOther ends the search for a label that a block does not have.
var errOther = errors.New("another value")

// UploadedBefore takes out the blocks that were uploaded after at, in case that a bucket shows objects late. A block
// whose meta.json does not say when counts from when it was made. What compaction and repairs made is kept: the blocks
// that it replaces would go meanwhile.
func UploadedBefore(at time.Time) Filter {
	return func(_ View, metas []*Meta) []*Meta {
		return slices.DeleteFunc(metas, func(m *Meta) bool {
			switch m.Thanos.Source {
			case SourceCompactor, sourceCompactorRepair, SourceRepair:
				return false
			}
			return m.Uploaded().After(at)
		})
	}
}

// Unmarked takes out the blocks that are marked for deletion.
func Unmarked(v View, metas []*Meta) []*Meta {
	return slices.DeleteFunc(metas, func(m *Meta) bool { _, marked := v.Deletions[m.ULID]; return marked })
}

// NotMarkedBefore takes out the blocks that were marked for deletion before at.
func NotMarkedBefore(at time.Time) Filter {
	return func(v View, metas []*Meta) []*Meta {
		return slices.DeleteFunc(metas, func(m *Meta) bool {
			mark, marked := v.Deletions[m.ULID]
			return marked && mark.DeletionTime < at.Unix()
		})
	}
}
