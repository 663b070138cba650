package store

import (
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// planned is a block of the view, as requests plan with it.
type planned struct {
	meta   *block.Meta
	tenant tenant.ID
	// b reads the block; nil if it is known to be broken.
	b     *bucketBlock
	fault error // why it is known to be broken
	place place
	// by are the blocks that replace it. marked says that it is marked for deletion, and the mark is young.
	by     []*block.Meta
	marked bool
	// parts are blocks of the view that it was made of. all says that they have all of its samples.
	parts []*planned
	all   bool
}

// needed reports whether a complete answer needs the block. That is a function of the view alone.
func (p *planned) needed() bool { return len(p.by) == 0 && !p.marked }

// serves reports whether the block is served here to callers that name no blocks.
func (p *planned) serves() bool { return p.b != nil && p.place > elsewhere }

func (p *planned) external() labels.Labels {
	if p.b != nil {
		return p.b.external
	}
	return p.meta.ExternalLabels()
}

// matches reports whether the external labels and the id of the block match all of ms.
func (p *planned) matches(ms []*labels.Matcher) bool {
	external := p.external()
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
		if m.Name == block.IDLabel {
			return !m.Matches(p.meta.ULID.String())
		}
		return !m.Matches(external.Get(m.Name))
	})
}

// resolution is in ms, 0 = raw.
func (p *planned) resolution() int64 { return p.meta.Thanos.Downsample.Resolution }

// replaces are the ids of the blocks that have all samples of p together, nil if these are not known.
func (p *planned) replaces() (ids []ulid.ULID) {
	if p.all {
		for _, part := range p.parts {
			ids = append(ids, part.meta.ULID)
		}
	}
	return ids
}

// timeline has blocks in order of their MinTime.
type timeline struct {
	blocks []*planned
	until  []int64 // the largest MaxTime of the blocks up to the same place
}

// add appends a block that begins no earlier than the last one.
func (t *timeline) add(p *planned) {
	until := p.meta.MaxTime
	if n := len(t.until); n > 0 {
		until = max(until, t.until[n-1])
	}
	t.blocks, t.until = append(t.blocks, p), append(t.until, until)
}

// within yields the blocks that may have samples of [mint, maxt], in ms.
func (t *timeline) within(mint, maxt int64) func(yield func(*planned) bool) {
	return func(yield func(*planned) bool) {
		from, _ := slices.BinarySearchFunc(t.until, mint, func(until, mint int64) int {
			if until <= mint {
				return -1
			}
			return 1
		})
		for _, p := range t.blocks[from:] {
			if p.meta.MinTime > maxt || p.meta.MaxTime > mint && !yield(p) {
				return
			}
		}
	}
}

// familyKey names a family: blocks of one tenant of which some may replace others.
type familyKey struct{ tenant, labels string }

// family is what requests plan with of one family. It does not change.
type family struct {
	metas   []*block.Meta // the blocks of the view that filters let through, in order of time
	tenant  tenant.ID     // "" if it has no valid one; then there are no blocks
	blocks  []*planned    // in order of time
	failed  map[*block.Meta]failed
	streams []*stream // each without its class
	missing []missing
	counts  counts
	span    span // of the blocks that can be read; empty if mint > maxt
}

// counts are of blocks: served here, owned and needed, and those that are served besides.
type counts struct{ serves, owns, kept int }

func (c *counts) add(p *planned) {
	if p.serves() {
		c.serves++
	}
	if p.place >= owned && p.needed() {
		c.owns++
	} else if p.serves() {
		c.kept++
	}
}

// layOut decides for each block of a family whether answers need it, and whether it is served here. A gateway that
// shares the bucket plans with all blocks, whether it can open them or not. One that is alone leaves out what it cannot
// open, so that what was replaced is served. The caller holds planMu.
func (g *Gateway) layOut(metas []*block.Meta, now time.Time) *family {
	f := &family{metas: metas, failed: map[*block.Meta]failed{}, span: span{math.MaxInt64, math.MinInt64}}
	alone := g.owners.alone()
	counts := func(m *block.Meta) bool {
		_, marked := g.view.Deletions[m.ULID]
		return alone && g.broken(m, now).err == nil || !alone && !marked
	}
	replaced := block.Replaced(slices.DeleteFunc(slices.Clone(metas), func(m *block.Meta) bool { return !counts(m) }))
	made := map[ulid.ULID][]*planned{}
	byID := map[ulid.ULID]*planned{}
	for _, m := range metas {
		_, marked := g.view.Deletions[m.ULID]
		p := &planned{meta: m, by: replaced[m.ULID].By, marked: marked && !alone}
		p.place = g.place(p)
		if alone && p.place == elsewhere {
			continue
		}
		var why failed
		p.b, why = g.blockOf(m, now)
		p.tenant, p.fault = why.tenant, why.err
		if why.err != nil && p.place > elsewhere {
			f.failed[m] = why
		}
		if p.tenant == "" { // nobody can ask for it
			continue
		}
		f.tenant = p.tenant
		f.blocks = append(f.blocks, p)
		if r := replaced[m.ULID]; r.Last {
			for _, by := range r.By {
				made[by.ULID] = append(made[by.ULID], p)
			}
		}
	}
	if len(made) > 0 {
		for _, p := range f.blocks {
			byID[p.meta.ULID] = p
		}
	}
	for id, parts := range made {
		if p := byID[id]; p != nil {
			p.parts = parts
			var metas []*block.Meta
			for _, part := range parts {
				metas = append(metas, part.meta)
			}
			p.all = block.HaveAll(metas, p.meta)
		}
	}
	f.group(alone)
	return f
}

// group divides the blocks of f into streams.
func (f *family) group(alone bool) {
	var last *stream // most often the next block is of it, too
	for _, p := range f.blocks {
		f.counts.add(p)
		if p.b != nil {
			f.span.mint, f.span.maxt = min(f.span.mint, p.meta.MinTime), max(f.span.maxt, p.meta.MaxTime-1)
		}
		if p.fault != nil && p.place > elsewhere && p.needed() {
			f.missing = append(f.missing, missing{p.meta.ULID, p.meta.MinTime, p.meta.MaxTime, p.fault})
		}
		if p.fault != nil && alone {
			continue // others are planned as if it were not there
		}
		external := p.external()
		if last == nil || !labels.Equal(last.external, external) {
			at := slices.IndexFunc(f.streams, func(st *stream) bool { return labels.Equal(st.external, external) })
			if at < 0 {
				at, f.streams = len(f.streams), append(f.streams, &stream{external: external})
			}
			last = f.streams[at]
		}
		if p.needed() {
			last.needed.add(p)
		} else {
			last.also.add(p)
		}
	}
}

// place is that of a block. A block that moved is kept, and one that is replaced is served, until others serve what is
// needed instead. For a gateway that is alone, that is at once.
func (g *Gateway) place(p *planned) place {
	id := p.meta.ULID
	if len(p.by) > 0 && (g.owners.alone() || g.handover.released[id]) {
		return elsewhere
	}
	at := g.owners.place(id)
	if at == elsewhere && g.current != nil && !g.handover.released[id] {
		if was := g.current.planned[id]; was != nil && was.place > elsewhere {
			at = kept
		}
	}
	return at
}
