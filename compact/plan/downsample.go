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
	of      map[place]*covered
}

// place is a stream at one resolution.
type place struct {
	key        string
	resolution int64
}

type covered struct {
	blocks  []*block.Meta
	sources map[ulid.ULID]parts
}

// parts are parts of all series. whole stands for all of them.
type parts struct {
	whole bool
	some  []block.Part
}

// newCoverage takes in all blocks of the bucket that are there to stay: not marked for deletion, nor set aside.
func newCoverage(b Bucket, s *Settings) coverage {
	c := coverage{keys: keyCache{}, removed: s.removes(), of: map[place]*covered{}}
	for id, m := range b.View.Metas {
		if _, marked := b.View.Deletions[id]; !marked && !b.SetAside[id] {
			c.add(m)
		}
	}
	return c
}

func (c *coverage) add(m *block.Meta) {
	at := place{c.keys.of(m.Thanos.Labels, c.removed), m.Thanos.Downsample.Resolution}
	in := c.of[at]
	if in == nil {
		in = &covered{sources: map[ulid.ULID]parts{}}
		c.of[at] = in
	}
	in.blocks = append(in.blocks, m)
	whole := m.Part().Of == 1
	for _, id := range m.Sources() {
		p := in.sources[id]
		if p.whole = p.whole || whole; !whole {
			p.some = append(p.some, m.Vouches()...)
		}
		in.sources[id] = p
	}
	if m.Origin == nil {
		return
	}
	for _, id := range m.Compaction.Sources {
		if p := in.sources[id]; id != m.ULID && whole {
			p.whole = true
			in.sources[id] = p
		}
	}
}

// has reports whether blocks of a stream have all samples of m at a resolution: those of its sources in its part, or
// those of the blocks that its meta.json names as sources to everybody.
func (c *coverage) has(key string, resolution int64, m *block.Meta) bool {
	in := c.of[place{key, resolution}]
	if in == nil {
		return false
	}
	lacks := func(part block.Part) func(ulid.ULID) bool {
		return func(id ulid.ULID) bool {
			p := in.sources[id]
			return !p.whole && !part.CoveredBy(p.some)
		}
	}
	told := m.Compaction.Sources
	return len(m.Sources()) > 0 && !slices.ContainsFunc(m.Sources(), lacks(m.Part())) ||
		m.Part().Of > 1 && len(told) > 0 && !slices.ContainsFunc(told, lacks(block.Part{Shard: 0, Of: 1}))
}

// one reports whether a single block of a stream has all samples of a job at a resolution.
func (c *coverage) one(key string, resolution int64, j *Job) bool {
	in := c.of[place{key, resolution}]
	if in == nil {
		return false
	}
	var need []ulid.ULID
	return slices.ContainsFunc(in.blocks, func(m *block.Meta) bool {
		if m.MinTime > j.MinTime || m.MaxTime < j.MaxTime || !m.Part().Contains(j.Part) {
			return false
		}
		if need == nil {
			need = j.sources()
		}
		have := make(map[ulid.ULID]bool, len(m.Sources()))
		for _, id := range m.Sources() {
			have[id] = true
		}
		return !slices.ContainsFunc(need, func(id ulid.ULID) bool { return !have[id] })
	})
}

// writes are the resolutions of the outputs of j, the finest first. j has all but outputs.
func (p *planner) writes(st *stream, j *Job) (out []int64) {
	if j.Kind != Downsample {
		out = append(out, j.Resolution)
	}
	span := j.MaxTime - j.MinTime
	for _, r := range p.coarser(j.Resolution, j.Inputs) {
		long := span >= spanFiveMin
		if r == OneHour {
			long = span >= spanOneHour
		}
		if (long || j.Kind == Downsample && p.last(j.Inputs[0])) && !p.over(j.Inputs[0], r, j.MaxTime) &&
			!p.cover.one(st.key, r, j) {
			out = append(out, r)
		}
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
				if !u.busy && p.lacks(st, m) {
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
		long := m.MaxTime-m.MinTime >= spanFiveMin
		if r == OneHour {
			long = m.MaxTime-m.MinTime >= spanOneHour
		}
		if !long && !last || p.over(m, r, m.MaxTime) {
			continue
		}
		return !p.cover.has(st.key, r, m)
	}
	return false
}
