package store

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/index"
)

// condition is all matchers on one label name. A series meets it if its value of the label, "" without one, matches
// them all.
type condition struct {
	name     string
	matchers []*labels.Matcher
	// without says that series without the label meet the condition. Then the lists are those of values that do not match,
	// and are taken away from others. Else they are those of values that match.
	without bool
	lists   []index.Range // in order
	// late says that the lists are not read: the condition is applied to entries of series.
	late bool
}

// conditions groups matchers by label name. What every series meets is left out.
func conditions(ms []*labels.Matcher) (out []*condition) {
	for _, m := range ms {
		if m.Type == labels.MatchRegexp && m.Value == ".*" {
			continue
		}
		i := slices.IndexFunc(out, func(c *condition) bool { return c.name == m.Name })
		if i < 0 {
			i, out = len(out), append(out, &condition{name: m.Name, without: true})
		}
		c := out[i]
		c.matchers, c.without = append(c.matchers, m), c.without && m.Matches("")
	}
	return out
}

func (c *condition) matches(value string) bool {
	for _, m := range c.matchers {
		if !m.Matches(value) {
			return false
		}
	}
	return true
}

// listed reports whether the list of a value is one of the condition's.
func (c *condition) listed(value string) bool { return c.matches(value) != c.without }

// values are the values whose lists may be needed, in order, if the matchers name them.
func (c *condition) values() (values []string, known bool) {
	for _, m := range c.matchers {
		named := m.SetMatches()
		if m.Type == labels.MatchEqual || m.Type == labels.MatchNotEqual {
			named = []string{m.Value}
		}
		positive := m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp
		switch {
		case !c.without && positive && len(named) > 0:
			values, known = named, true // no other value matches, whatever the other matchers are
		case c.without && (positive || len(named) == 0):
			return nil, false
		case c.without:
			values, known = append(values, named...), true
		}
		if known && !c.without {
			break
		}
	}
	values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !c.listed(v) })
	slices.Sort(values)
	return slices.Compact(values), known
}

// prefix is what all values begin with whose lists may be needed.
func (c *condition) prefix() (longest string) {
	for _, m := range c.matchers {
		selects := m.Type == labels.MatchRegexp && !c.without ||
			m.Type == labels.MatchNotRegexp && c.without && len(c.matchers) == 1
		if selects && len(m.Prefix()) > len(longest) {
			longest = m.Prefix()
		}
	}
	return longest
}

// listLead is how many bytes a list of postings has beside its references: its length, their number and a checksum.
const listLead = 12

// size is about how many bytes lists have, and series how many references.
func size(lists []index.Range) (bytes, series int64) {
	for _, r := range lists {
		bytes += r.End - r.Start
	}
	return bytes, max(0, bytes-listLead*int64(len(lists))) / 4
}

// farEntry is what a series entry costs, in bytes, when no other entry near it is read.
const farEntry = 4 << 10

// entries are the series entries of a block, as far as they are known before any is read.
type entries struct {
	total int64 // their number
	bytes int64 // of all together
}

// cost is about how many bytes must be read for n entries, which lie anywhere.
func (e entries) cost(n int64) int64 { return n * min(e.bytes/max(n, 1), farEntry) }

// plan chooses which conditions' lists are read, and sets late for the others. The condition with the fewest series is
// always read. Another one is read if that takes fewer bytes than the entries of the series that it leaves out. How
// many these are is not known: it is assumed that conditions have nothing to do with each other. Conditions that are
// late already stay so. Without a condition whose lists are added, all series are what the others are taken from.
func plan(cs []*condition, e entries) {
	left := e.total
	slices.SortStableFunc(cs, func(a, b *condition) int {
		_, n := size(a.lists)
		_, m := size(b.lists)
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(n, m))
	})
	for i, c := range cs {
		bytes, n := size(c.lists)
		n = min(n, e.total)
		switch {
		case c.late:
			continue
		case i == 0 && !c.without:
			left = n
			continue
		}
		if c.without {
			n = e.total - n
		}
		part := float64(n) / float64(max(e.total, 1)) // of the series, that meets the condition
		if c.late = float64(bytes) > float64(e.cost(left))*(1-part); !c.late {
			left = int64(math.Ceil(float64(left) * part))
		}
	}
}

// order is how conditions follow each other: lists that are added, then lists that are taken away, then the late ones.
func order(c *condition) int {
	switch {
	case c.late:
		return 2
	case c.without:
		return 1
	}
	return 0
}

// selection is the series of a block that matchers may select: those among refs that meet the late conditions.
type selection struct {
	refs []storage.SeriesRef // in label order
	late []*condition
	// question is what it is kept under, and again says that it was: that it is not asked for the first time.
	question []byte
	again    bool
}

// matching returns the series that ms select: as an earlier request found them, or from lists of postings.
func (ix *blockIndex) matching(ctx context.Context, ms []*labels.Matcher) (selection, error) {
	cs := conditions(ms)
	q := newQuestion(cs)
	if s, ok, err := ix.kept(ctx, q); ok || err != nil {
		return s, err
	}
	s, err := ix.expand(ctx, cs)
	if err == nil {
		ix.keep(q, s)
	}
	return s, err
}

// expand returns the series that meet conditions.
func (ix *blockIndex) expand(ctx context.Context, cs []*condition) (selection, error) {
	e := ix.entries()
	if some, err := ix.find(ctx, cs, e); !some || err != nil {
		return selection{}, err
	}
	plan(cs, e)
	var s selection
	if i := slices.IndexFunc(cs, func(c *condition) bool { return c.late }); i >= 0 {
		cs, s.late = slices.Clip(cs[:i]), cs[i:]
	}
	if len(cs) == 0 || cs[0].without {
		cs = slices.Insert(cs, 0, &condition{lists: ix.every})
	}
	p, err := ix.unite(ctx, cs)
	if err != nil {
		return selection{}, err
	}
	for p.Next() {
		if err := ix.lease.listed(ctx, len(s.refs), refBytes); err != nil {
			return selection{}, err
		}
		s.refs = append(s.refs, p.At())
	}
	return s, p.Err()
}

// entries are those of the block.
func (ix *blockIndex) entries() entries {
	_, total := size(ix.every)
	at := ix.header.SeriesRange()
	return entries{total, at.End - at.Start}
}

// find looks up where the lists of all conditions are. The ones that name their values come first, since they are found
// fast and bound what the others are worth. some is false when no series can meet all conditions.
func (ix *blockIndex) find(ctx context.Context, cs []*condition, e entries) (some bool, err error) {
	fewest := e.total
	isFound := func(c *condition) bool {
		_, n := size(c.lists)
		if !c.without && !c.late {
			fewest = min(fewest, n)
		}
		return c.without || c.late || len(c.lists) > 0
	}
	var walks []*condition
	for _, c := range cs {
		values, known := c.values()
		if !known {
			walks = append(walks, c)
			continue
		}
		if c.lists, err = ix.header.Ranges(ctx, nil, c.name, values...); err != nil || !isFound(c) {
			return false, err
		}
	}
	sure := slices.ContainsFunc(cs, func(c *condition) bool { return len(c.lists) > 0 && !c.without })
	for _, c := range walks {
		w := walk{name: c.name, prefix: c.prefix(), match: c.listed}
		if sure {
			w.most = e.cost(fewest)
		}
		if err := ix.walk(ctx, &w); err != nil {
			return false, err
		}
		c.lists, c.late = w.lists, w.stopped
		if !isFound(c) {
			return false, nil
		}
		sure = sure || !c.without
	}
	return true, nil
}

// unite reads the lists of conditions in the order of plan, and returns the series that meet them all.
func (ix *blockIndex) unite(ctx context.Context, cs []*condition) (index.Postings, error) {
	var ranges []index.Range
	for _, c := range cs {
		ranges = append(ranges, c.lists...)
	}
	slices.SortFunc(ranges, byStart)
	lists, err := ix.lists(ctx, ranges)
	if err != nil {
		return nil, err
	}
	var of, without []index.Postings
	for _, c := range cs {
		own := make([]index.Postings, 0, len(c.lists))
		for _, r := range c.lists {
			i, _ := slices.BinarySearchFunc(ranges, r, byStart)
			own = append(own, lists[i])
		}
		if c.without {
			without = append(without, own...)
		} else {
			of = append(of, index.Merge(ctx, own...))
		}
	}
	return index.Without(index.Intersect(of...), index.Merge(ctx, without...)), nil
}

func byStart(a, b index.Range) int { return cmp.Compare(a.Start, b.Start) }

// meets reports whether a series meets conditions.
func (ix *blockIndex) meets(ctx context.Context, e *indexEntry, cs []*condition) (bool, error) {
	for _, c := range cs {
		if v, err := ix.symbols.value(ctx, e, c.name); err != nil || !c.matches(v) {
			return false, err
		}
	}
	return true, nil
}

// walkedValue is what it costs to look at one value of a label, compared with a byte that is read.
const walkedValue = 8

// walk is one look at the values of a label.
type walk struct {
	name, prefix string
	match        func(value string) bool
	limit        int   // of values; 0 = all
	most         int64 // bytes of lists at which it is not worth going on; 0 = no bound
	named        bool  // values are kept, not only their lists

	values  []string
	lists   []index.Range
	stopped bool // because of most
}

// What an entry of a list takes, in bytes: a reference of a series; a label value with the place of its postings, whose
// text is the index-header's.
const (
	refBytes   = 8
	valueBytes = 16 + 16
)

// walk lists the values of a label that match, in order, and where their postings are. The lists are counted.
func (ix *blockIndex) walk(ctx context.Context, w *walk) error {
	var fault error
	cost := int64(0)
	err := ix.header.Values(ctx, w.name, w.prefix, func(value string, at index.Range) bool {
		cost += walkedValue
		if fault = ctx.Err(); fault == nil && w.match(value) {
			cost += at.End - at.Start
			if fault = ix.lease.listed(ctx, len(w.lists), valueBytes); fault == nil {
				w.lists = append(w.lists, at)
				if w.named {
					w.values = append(w.values, value)
				}
			}
		}
		w.stopped = w.most > 0 && cost > w.most
		return fault == nil && !w.stopped && (w.limit <= 0 || len(w.lists) < w.limit)
	})
	if fault != nil {
		return fault
	}
	return err
}
