package plan

import (
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// coverage says which sources the blocks of each stream and resolution have.
type coverage struct {
	keys    keyCache
	removed []string
	of      map[place]*timeline
}

// place is a stream at one resolution.
type place struct {
	key        string
	resolution int64
}

// timeline has blocks in order of their MinTime.
type timeline struct {
	blocks []*block.Meta
	until  []int64 // the largest MaxTime of the blocks up to the same place
}

// newCoverage takes in all blocks of the bucket that are there to stay: not marked for deletion, nor set aside.
func newCoverage(b Bucket, s *Settings) coverage {
	c := coverage{keys: keyCache{}, removed: s.removes(), of: map[place]*timeline{}}
	for id, m := range b.View.Metas {
		if _, marked := b.View.Deletions[id]; marked || b.SetAside[id] {
			continue
		}
		at := place{c.keys.of(m.Thanos.Labels, c.removed), m.Thanos.Downsample.Resolution}
		if c.of[at] == nil {
			c.of[at] = &timeline{}
		}
		c.of[at].blocks = append(c.of[at].blocks, m)
	}
	for _, line := range c.of {
		slices.SortFunc(line.blocks, block.ByTime)
		for i, m := range line.blocks {
			until := m.MaxTime
			if i > 0 {
				until = max(until, line.until[i-1])
			}
			line.until = append(line.until, until)
		}
	}
	return c
}

// within yields the blocks that overlap [mint, maxt].
func (t *timeline) within(mint, maxt int64) func(yield func(*block.Meta) bool) {
	return func(yield func(*block.Meta) bool) {
		if t == nil {
			return
		}
		from, _ := slices.BinarySearch(t.until, mint)
		for _, m := range t.blocks[from:] {
			if m.MinTime > maxt || m.MaxTime >= mint && !yield(m) {
				return
			}
		}
	}
}

// has reports whether blocks of a stream have all samples of m at a resolution: those of its sources in its part, or
// those of the blocks that its meta.json names as sources to everybody.
func (c *coverage) has(key string, resolution int64, m *block.Meta) bool {
	own, told := block.InOrder(m.Sources()), m.Compaction.Sources
	var some []*block.Meta
	for b := range c.of[place{key, resolution}].within(m.MinTime, m.MaxTime) {
		if b.Part().Contains(m.Part()) && len(own) > 0 && block.Subset(own, block.InOrder(b.Sources())) {
			return true
		}
		some = append(some, b)
	}
	if len(some) == 0 || len(own) == 0 {
		return false
	}
	whole, parts := map[ulid.ULID]bool{}, map[ulid.ULID][]block.Part{}
	for _, b := range some {
		for _, id := range b.Sources() {
			if b.Part().Of == 1 {
				whole[id] = true
			} else {
				parts[id] = append(parts[id], b.Vouches()...)
			}
		}
	}
	lacks := func(id ulid.ULID) bool { return !whole[id] && !m.Part().CoveredBy(parts[id]) }
	lacksWhole := func(id ulid.ULID) bool { return !whole[id] }
	return !slices.ContainsFunc(own, lacks) ||
		m.Part().Of > 1 && len(told) > 0 && !slices.ContainsFunc(told, lacksWhole)
}

// all reports whether blocks of a stream have all samples of some blocks at a resolution.
func (c *coverage) all(key string, resolution int64, blocks []*block.Meta) bool {
	return !slices.ContainsFunc(blocks, func(m *block.Meta) bool { return !c.has(key, resolution, m) })
}

// writes are the resolutions of the outputs of j, the finest first. j has all but outputs. Samples that were
// downsampled before are not read again for it: what is coarser is made of the blocks that have them.
func (p *planner) writes(st *stream, j *Job) (out []int64) {
	if j.Kind != Downsample {
		out = append(out, j.Resolution)
	}
	span := j.MaxTime - j.MinTime
	for _, r := range p.coarser(j.Resolution, j.Inputs) {
		if span < spanOf(r) && !(j.Kind == Downsample && p.last(j.Inputs[0])) || p.over(j.Inputs[0], r, j.MaxTime) {
			continue
		}
		if p.cover.all(st.key, r, j.Inputs) {
			break
		}
		out = append(out, r)
	}
	return out
}

// coarser are the resolutions above one at which blocks are kept, too.
func (p *planner) coarser(resolution int64, in []*block.Meta) (out []int64) {
	if !p.Downsample || slices.ContainsFunc(in, func(m *block.Meta) bool {
		_, marked := p.bucket.View.NoDownsample[m.ULID]
		return marked
	}) {
		return nil
	}
	for _, r := range resolutions {
		if r > resolution {
			out = append(out, r)
		}
	}
	return out
}

// last reports whether m is about to go, since its retention is over, and will not become part of a larger block
// before. Its samples have to be kept at coarser resolutions then, whatever time it spans.
func (p *planner) last(m *block.Meta) bool {
	if !p.over(m, m.Thanos.Downsample.Resolution, m.MaxTime) || len(p.Ranges) == 0 {
		return false
	}
	length := p.Ranges[max(len(p.Ranges)-2, 0)]
	closed := floor(m.MinTime, length) + length + (p.LateWait + p.ProducerWait).Milliseconds()
	return p.now >= closed
}

// downsample plans the blocks whose samples are not kept yet at the next coarser resolution.
func (p *planner) downsample(all []*stream) {
	for _, st := range all {
		for _, u := range st.units {
			for _, m := range u.blocks {
				if !u.busy && !u.erase && p.lacks(st, m) {
					j := p.job(st, Downsample, []*block.Meta{m}, m.Part(), m.MaxTime-m.MinTime, "not downsampled yet")
					if len(j.Outputs) > 0 {
						p.jobs = append(p.jobs, j)
					}
				}
			}
		}
	}
}

// lacks reports whether m is to be downsampled, and was not.
func (p *planner) lacks(st *stream, m *block.Meta) bool {
	last := p.last(m)
	for _, r := range p.coarser(st.resolution, []*block.Meta{m}) {
		if m.MaxTime-m.MinTime < spanOf(r) && !last || p.over(m, r, m.MaxTime) {
			continue
		}
		return !p.cover.has(st.key, r, m)
	}
	return false
}
