package plan

import (
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// erased are the blocks of a stream of which samples are to be deleted. A downsampled block is not among them while the
// finer one is there that it was made of: that is made anew, and then this one of it. With both made anew there would
// be two of it.
func (p *planner) erased(st *stream) map[ulid.ULID]ulid.ULID {
	if len(p.bucket.Erase) == 0 {
		return nil
	}
	out := map[ulid.ULID]ulid.ULID{}
	for _, m := range st.blocks {
		if into, asked := p.bucket.Erase[m.ULID]; asked && !p.hasFiner(st, m) {
			out[m.ULID] = into
		}
	}
	return out
}

// erase plans to make these blocks anew, each alone.
func (p *planner) erase(all []*stream) {
	if len(p.bucket.Erase) == 0 {
		return
	}
	for _, st := range all {
		erased := p.erased(st)
		for _, m := range st.blocks {
			into, asked := erased[m.ULID]
			if !asked {
				continue
			}
			p.jobs = append(p.jobs, Job{Kind: Erase, Tenant: st.tenant, Stream: m.Thanos.Labels,
				Resolution: st.resolution, MinTime: m.MinTime, MaxTime: m.MaxTime, Inputs: []*block.Meta{m}, Part: m.Part(),
				Parts: m.Part().Of, Outputs: []Output{{into, st.resolution, m.Part()}}, window: m.MaxTime - m.MinTime,
				Reason: "operators asked to delete samples that it may have"})
		}
	}
}

// hasFiner reports whether finer blocks have all samples of m, and m will be made anew of these.
func (p *planner) hasFiner(st *stream, m *block.Meta) bool {
	return slices.ContainsFunc(st.finer, func(f *stream) bool {
		return p.cover.has(st.key, f.resolution, m) && !slices.ContainsFunc(f.blocks, func(o *block.Meta) bool {
			return overlap(m, o) && !slices.Contains(p.coarser(f.resolution, []*block.Meta{o}), st.resolution)
		})
	})
}
