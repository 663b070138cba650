package query

import (
	"context"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/ring"
)

// filler finds the blocks of one bucket that the gateways which were asked first do not serve, and asks other gateways
// for them: up to attempts times, each time one gateway for each block. Gateways say what they cover before their first
// series, and the merge begins with the first series of all. So the filler is done before any series was merged.
//
// What a gateway that failed had said that it serves is asked from the next one of its group, not by the filler. The
// filler waits for that one as for the others.
//
// It is for one goroutine, after all groups of the plan are being asked.
type filler struct {
	sel      *selection
	bucket   string
	gateways []*endpoint               // those that may be asked
	tried    map[ulid.ULID][]*endpoint // the gateways that were asked for each missing block
	all      bool                      // all gateways were asked for all blocks that they own
	unheard  bool                      // a gateway was asked what the newest view needs
}

// fill returns the groups to ask for what is missing by now in all buckets.
func (s *selection) fill() (groups []*group) {
	for _, f := range s.fills {
		groups = append(groups, f.more(s.col.clone())...)
	}
	return groups
}

// more returns the groups to ask for the blocks that are missing from what col gathered; none when nothing is known to
// be missing, or nobody is left to ask. No other goroutine may use col.
func (f *filler) more(col *collector) (groups []*group) {
	e := f.sel.evidence(col, true)
	var missing []ulid.ULID
	var view series.View
	unnamed, unheard := false, false
	gaps, _ := series.Uncovered(f.bucket, e.covered, e.seen)
	for _, g := range gaps {
		missing, view = append(missing, g.Missing...), g.View
		unnamed, unheard = unnamed || g.Unnamed > 0, unheard || g.Unheard
	}
	alive := slices.DeleteFunc(slices.Clone(f.gateways), func(m *endpoint) bool {
		return slices.ContainsFunc(col.responses, func(r response) bool { return r.from == m && r.err != nil })
	})
	for m, ids := range assign(missing, alive, f.tried) {
		for part := range slices.Chunk(ids, series.MaxOnlyBlocks) {
			groups = append(groups, &group{startingWith(m, alive), series.BlockRequest{View: view, Only: part}})
		}
		f.sel.q.m.again.Add(float64(len(ids)))
	}
	// Nobody can be asked by name for blocks that nobody named. Each block has several owners, so the others are asked for
	// all that they own.
	if unnamed && !f.all {
		f.all = true
		for _, m := range alive {
			groups = append(groups, &group{[]*endpoint{m}, series.BlockRequest{View: view}})
		}
	}
	// Only one that failed meanwhile said the newest view. Another one is asked for none of the blocks: it says which ones
	// that view needs.
	if unheard && !f.unheard && len(alive) > 0 {
		f.unheard = true
		groups = append(groups, &group{alive, series.BlockRequest{View: view, Only: []ulid.ULID{}}})
	}
	return groups
}

// assign decides which gateway is asked for which of the missing blocks: the first owner that was not asked for it,
// since owners probably have it open. tried has the gateways that were asked for each block, and gets the new ones.
func assign(missing []ulid.ULID, gateways []*endpoint, tried map[ulid.ULID][]*endpoint) map[*endpoint][]ulid.ULID {
	members := make([]ring.Member, len(gateways))
	for i, m := range gateways {
		members[i].ID = m.Name
		if m.info.Instance != "" {
			members[i].ID = m.info.Instance
		}
	}
	out := map[*endpoint][]ulid.ULID{}
	for _, id := range missing {
		if len(tried[id]) == attempts {
			continue
		}
		for _, i := range ring.Owners(members, id[:], len(members)) {
			if m := gateways[i]; !slices.Contains(tried[id], m) {
				tried[id], out[m] = append(tried[id], m), append(out[m], id)
				break
			}
		}
	}
	return out
}

// prefetch begins to fill in the background, and returns the series of the missing blocks.
func (f *filler) prefetch(ctx context.Context, lease *memory.Lease) series.Set {
	return prefetch(ctx, func(ctx context.Context) series.Set {
		return &fillSet{Set: series.Empty(), open: func() series.Set { return f.open(ctx, lease) }}
	})
}

// open asks for what is missing, until nothing is or nobody is left, and returns the union of what comes.
func (f *filler) open(ctx context.Context, lease *memory.Lease) series.Set {
	var sets []series.Set
	for {
		col, changed := f.sel.col.follow()
		if col.awaits(f.bucket) {
			select {
			case <-changed:
			case <-ctx.Done():
				return series.Merge(append(sets, series.Failed(ctx.Err()))...)
			}
			continue
		}
		groups := f.more(col)
		if len(groups) == 0 {
			return series.Merge(sets...)
		}
		for _, g := range groups {
			sets = append(sets, (&groupSet{asking: f.sel.asking(g), ctx: ctx, lease: lease}).prefetch())
		}
	}
}

// fillSet is the set that open returns. The first Next calls open, which waits.
type fillSet struct {
	series.Set
	open func() series.Set // nil once it was called
}

func (s *fillSet) Next() bool {
	if s.open != nil {
		s.Set, s.open = s.open(), nil
	}
	return s.Set.Next()
}
