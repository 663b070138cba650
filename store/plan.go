package store

import (
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// drawn is what the current snapshot was made of. The next plan looks only at families in which something has changed.
type drawn struct {
	now      time.Time
	owners   owners
	handover *handover
	released int                       // how many of handover.order were let go
	metas    map[ulid.ULID]*block.Meta // of the view
	marks    map[ulid.ULID]block.DeletionMark
	broken   map[ulid.ULID]time.Time // blocks that are left alone, and until when
	chosen   []*block.Meta           // those of metas that the rules choose, in order of time
	passed   []*block.Meta           // those of chosen that the filters let through
	sorts    block.Families
	families map[familyKey]*family
}

// change is a family before and after; nil = it was or is not there.
type change struct{ was, is *family }

// plan makes the snapshot that requests use from now on, of the view and the ring. It reads nothing, so that a request
// can wait for it. The caller holds planMu.
func (g *Gateway) plan() {
	if g.settling != nil || g.view.Metas == nil || g.closed { // the ring or the bucket is not known yet
		return
	}
	d, next, changes := g.draw(g.drawn, g.opts.Now())
	g.drawn = d
	g.report(d.failed())
	g.metrics.count(d.counts())
	g.swap(next, changes)
}

// draw makes the next snapshot of last, which is of the current one and of no use afterwards, and of what has changed
// since. nil stands for no last one, and gives the same snapshot. The caller holds planMu.
func (g *Gateway) draw(last *drawn, now time.Time) (d *drawn, next *snapshot, changes []change) {
	d = g.inputs(last, now)
	next = &snapshot{view: g.view, window: g.opts.planWindow(now), contents: g.lastFound(), owners: g.owners}
	var gone, came, was []*block.Meta
	if last != nil {
		was = last.passed
		gone, came = differ(was, d.passed)
	}
	g.note(last == nil, was, d.passed, gone, came, now.UnixMilli())
	if d.follows(last, came) {
		changes = g.redraw(last, d, gone, came)
	} else {
		changes = g.drawAll(last, d)
		last = nil
	}
	switch {
	case last == nil:
		next.planned, next.made = make(map[ulid.ULID]*planned, len(d.passed)), &sourceIndex{}
		next.blocks = make(map[ulid.ULID]*bucketBlock, len(d.passed))
	case len(changes) > 0:
		next.planned, next.made = maps.Clone(g.current.planned), &sourceIndex{}
		next.blocks = maps.Clone(g.current.blocks)
	default:
		next.planned, next.made, next.blocks = g.current.planned, g.current.made, g.current.blocks
	}
	next.apply(changes)
	bad := unread(g.view, now)
	if next.sound = len(bad) == 0; next.sound && last != nil && len(changes) == 0 && g.current.sound {
		next.tenants, next.info = g.current.tenants, g.current.info
	} else {
		next.assemble(d.families, bad, g.opts)
	}
	return d, next, changes
}

// apply brings the blocks of a snapshot from what they were to what they are.
func (s *snapshot) apply(changes []change) {
	for _, c := range changes {
		if c.was != nil {
			for _, p := range c.was.blocks {
				delete(s.planned, p.meta.ULID)
				delete(s.blocks, p.meta.ULID)
			}
		}
	}
	for _, c := range changes {
		if c.is == nil {
			continue
		}
		for _, p := range c.is.blocks {
			s.planned[p.meta.ULID] = p
			if p.b != nil {
				s.blocks[p.meta.ULID] = p.b
			}
		}
	}
}

// inputs is what the next snapshot is made of, without the families.
func (g *Gateway) inputs(last *drawn, now time.Time) *drawn {
	d := &drawn{now: now, owners: g.owners, handover: g.handover, released: len(g.handover.order), metas: g.view.Metas,
		marks: g.view.Deletions, broken: map[ulid.ULID]time.Time{}}
	for id, f := range g.failures {
		if now.Before(f.until) {
			d.broken[id] = f.until
		}
	}
	chosen := block.Chosen(g.opts.Relabel)
	if last == nil {
		d.chosen = g.view.Select(chosen)
	} else {
		d.chosen = choseFrom(last, g.view, chosen)
	}
	d.passed = slices.Clone(d.chosen)
	for _, filter := range g.opts.filters(now) {
		d.passed = filter(g.view, d.passed)
	}
	return d
}

// choseFrom is the blocks of a view that chosen keeps, in order of time.
func choseFrom(last *drawn, v block.View, chosen block.Filter) []*block.Meta {
	var came []*block.Meta
	for id, m := range v.Metas {
		if last.metas[id] != m {
			came = append(came, m)
		}
	}
	if len(came) == 0 && len(v.Metas) == len(last.metas) {
		return last.chosen
	}
	came = chosen(v, came)
	all := make([]*block.Meta, 0, len(last.chosen)+len(came))
	for _, m := range last.chosen {
		if v.Metas[m.ULID] == m {
			all = append(all, m)
		}
	}
	return inserted(all, came)
}

// inserted is all, which is in order of time, with some others at their places.
func inserted(all, others []*block.Meta) []*block.Meta {
	if len(others) > 0 {
		all = append(all, others...)
		slices.SortFunc(all, block.ByTime)
	}
	return all
}

// follows reports whether d is of the same ring as last, and blocks are divided into families as they were, also those
// that came.
func (d *drawn) follows(last *drawn, came []*block.Meta) bool {
	return last != nil && d.handover == last.handover && d.owners.equal(last.owners) &&
		!slices.ContainsFunc(came, func(m *block.Meta) bool { return !last.sorts.Fits(m) })
}

// drawAll makes all families anew.
func (g *Gateway) drawAll(last, d *drawn) (changes []change) {
	if last != nil {
		for _, f := range last.families {
			changes = append(changes, change{was: f})
		}
	}
	d.sorts = block.FamiliesOf(d.passed)
	members := map[familyKey][]*block.Meta{}
	for labels, in := range d.sorts.Group(d.passed) {
		for _, m := range in {
			key := familyKey{m.Thanos.Labels[g.opts.TenantLabel], labels}
			members[key] = append(members[key], m)
		}
	}
	d.families = make(map[familyKey]*family, len(members))
	for key, metas := range members {
		f := g.layOut(metas, d.now)
		d.families[key] = f
		changes = append(changes, change{is: f})
	}
	return changes
}

// redraw takes the families of last over, and makes those anew in which something has changed. gone and came are the
// blocks in which last.passed and d.passed differ.
func (g *Gateway) redraw(last, d *drawn, gone, came []*block.Meta) (changes []change) {
	d.sorts, d.families = last.sorts, last.families
	goes, comes := map[*block.Meta]bool{}, map[familyKey][]*block.Meta{}
	touched := map[familyKey]bool{}
	touch := func(m *block.Meta) (key familyKey) {
		if m != nil {
			key = familyKey{m.Thanos.Labels[g.opts.TenantLabel], d.sorts.Of(m)}
			touched[key] = true
		}
		return key
	}
	for _, m := range gone {
		goes[m] = true
		touch(m)
	}
	for _, m := range came {
		key := touch(m)
		comes[key] = append(comes[key], m)
	}
	for id := range different(last.broken, d.broken) {
		touch(d.metas[id])
	}
	for id := range different(last.marks, d.marks) {
		touch(d.metas[id])
	}
	for _, id := range d.handover.order[last.released:] {
		touch(d.metas[id])
	}
	for key := range touched {
		c := change{was: d.families[key]}
		var metas []*block.Meta
		if c.was != nil {
			metas = slices.DeleteFunc(slices.Clone(c.was.metas), func(m *block.Meta) bool { return goes[m] })
		}
		if metas = inserted(metas, comes[key]); len(metas) == 0 {
			delete(d.families, key)
		} else {
			c.is = g.layOut(metas, d.now)
			d.families[key] = c.is
		}
		changes = append(changes, c)
	}
	return changes
}

// differ returns what only one of two lists has. Both are in order of time.
func differ(a, b []*block.Meta) (onlyA, onlyB []*block.Meta) {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] == b[0]:
			a, b = a[1:], b[1:]
		case block.ByTime(a[0], b[0]) <= 0:
			onlyA, a = append(onlyA, a[0]), a[1:]
		default:
			onlyB, b = append(onlyB, b[0]), b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}

// different yields the keys under which two maps do not have the same.
func different[V comparable](a, b map[ulid.ULID]V) func(yield func(ulid.ULID) bool) {
	return func(yield func(ulid.ULID) bool) {
		for id, v := range a {
			if w, ok := b[id]; (!ok || v != w) && !yield(id) {
				return
			}
		}
		for id := range b {
			if _, ok := a[id]; !ok && !yield(id) {
				return
			}
		}
	}
}

// failed are the blocks that should be served here and cannot be.
func (d *drawn) failed() map[*block.Meta]failed {
	all := map[*block.Meta]failed{}
	for _, f := range d.families {
		maps.Copy(all, f.failed)
	}
	return all
}

func (d *drawn) counts() (all counts) {
	for _, f := range d.families {
		all.serves += f.counts.serves
		all.owns += f.counts.owns
		all.kept += f.counts.kept
	}
	return all
}

// blockOf returns the block of m: the one that is served already, whose reference goes from the current snapshot to
// the next one, or a new one. Only swap changes which are served, under planMu.
func (g *Gateway) blockOf(m *block.Meta, now time.Time) (*bucketBlock, failed) {
	f := g.broken(m, now)
	if f.err != nil {
		return nil, f
	}
	if g.current != nil {
		if b := g.current.blocks[m.ULID]; b != nil {
			return b, f
		}
	}
	return newBucketBlock(m, f.tenant, g.headers.of(m)), f
}

// swap makes next current, which differs from the last one by changes, and lets go of the blocks that it does not have.
// Blocks that are new in the view are opened ahead.
func (g *Gateway) swap(next *snapshot, changes []change) {
	g.mu.Lock()
	last := g.current
	g.current = next
	if last == nil {
		close(g.synced)
	}
	g.mu.Unlock()
	came := 0
	var arrived []ulid.ULID
	for _, c := range changes {
		if c.is == nil {
			continue
		}
		for _, p := range c.is.blocks {
			id := p.meta.ULID
			if p.b != nil && (last == nil || last.blocks[id] == nil) {
				came++
			}
			if last != nil && last.planned[id] == nil && p.place >= owned && p.serves() && !p.b.WasOpen() {
				arrived = append(arrived, id)
			}
		}
	}
	g.metrics.thanos.swapped(came, g.opts.Now())
	g.opener.want(arrived)
	for _, c := range changes {
		if c.was == nil {
			continue
		}
		for _, p := range c.was.blocks {
			now := next.planned[p.meta.ULID]
			if p.serves() && (now == nil || !now.serves()) {
				g.metrics.dropped.Inc()
			}
			if p.b != nil && next.blocks[p.meta.ULID] != p.b {
				p.b.release()
			}
		}
	}
}
