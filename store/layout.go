package store

import (
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/series"
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

// layout is what a snapshot is made of.
type layout struct {
	view     block.View
	contents series.Contents
	owners   owners
	blocks   []*planned             // in order of time; each with a reference for the snapshot
	failed   map[*block.Meta]failed // the blocks that should be served here and cannot be
}

// layOut decides for each block of the view whether answers need it, and whether it is served here. A gateway that
// shares the bucket plans with all blocks, whether it can open them or not. One that is alone leaves out what it cannot
// open, so that what was replaced is served. The caller holds planMu.
func (g *Gateway) layOut(now time.Time) layout {
	l := layout{view: g.view, contents: g.contents, owners: g.owners, failed: map[*block.Meta]failed{}}
	alone := g.owners.alone()
	metas := g.view.Select(g.opts.filters(now)...)
	broken := func(m *block.Meta) bool { return g.broken(m, now).err != nil }
	counts := func(m *block.Meta) bool {
		_, marked := g.view.Deletions[m.ULID]
		return alone && !broken(m) || !alone && !marked
	}
	replaced := block.Replaced(slices.DeleteFunc(slices.Clone(metas), func(m *block.Meta) bool { return !counts(m) }))
	made := map[ulid.ULID][]*planned{}
	byID := make(map[ulid.ULID]*planned, len(metas))
	for _, m := range metas {
		_, marked := g.view.Deletions[m.ULID]
		p := &planned{meta: m, by: replaced[m.ULID].By, marked: marked && !alone}
		p.place = g.place(p)
		if alone && p.place == elsewhere {
			continue
		}
		var f failed
		p.b, f = g.blockOf(m, now)
		p.tenant, p.fault = f.tenant, f.err
		if f.err != nil && p.place > elsewhere {
			l.failed[m] = f
		}
		if p.tenant == "" { // nobody can ask for it
			continue
		}
		byID[m.ULID], l.blocks = p, append(l.blocks, p)
		if r := replaced[m.ULID]; r.Last {
			for _, by := range r.By {
				made[by.ULID] = append(made[by.ULID], p)
			}
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
	return l
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
