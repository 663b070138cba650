package plan

import "slices"

// Step is how far the blocks of a stream and range are.
type Step string

// The steps, in order.
const (
	Shipped   Step = "shipped"   // replicas of the smallest range are not united
	United    Step = "united"    // larger ranges are to come, or late blocks are to be merged
	Compacted Step = "compacted" // nothing is left to be merged
	AtFiveMin Step = "5m"        // and all samples are there at 5 minutes
	AtOneHour Step = "1h"        // and at 1 hour
	RawGone   Step = "raw gone"  // there are no raw blocks any more
)

// State is that of a stream in one window of the largest range.
type State struct {
	Tenant string
	// Stream are the external labels without those of replicas. Nobody may change them.
	Stream map[string]string
	// MinTime and MaxTime are the bounds of the window in ms, MaxTime excluded. A block that reaches over a border
	// belongs to the window in which it begins.
	MinTime, MaxTime int64
	Step             Step
	// Blocks and Bytes are those of each resolution, the finest first.
	Blocks [3]int
	Bytes  [3]uint64
	// Waits is what the first of its blocks that waits waits for, "" if none does.
	Waits string
}

// states are those of streams, which are sorted by key, then by resolution.
func (p *planner) states(all []*stream) (out []State) {
	if len(p.Ranges) == 0 {
		return nil
	}
	length := p.Ranges[len(p.Ranges)-1]
	for i := 0; i < len(all); {
		first := i
		byTime := map[int64]*State{}
		var begins []int64
		for ; i < len(all) && all[i].key == all[first].key; i++ {
			for _, u := range all[i].units {
				at := floor(u.mint, length)
				s := byTime[at]
				if s == nil {
					s = &State{Tenant: all[i].tenant, Stream: all[i].labels, MinTime: at, MaxTime: at + length, Step: RawGone}
					byTime[at] = s
					begins = append(begins, at)
				}
				p.note(s, all[i], u)
			}
		}
		slices.Sort(begins)
		for _, at := range begins {
			out = append(out, *byTime[at])
		}
	}
	return out
}

// note takes a unit into a state. A state is that of its raw unit that is least far.
func (p *planner) note(s *State, st *stream, u *unit) {
	if s.Waits == "" {
		s.Waits = u.waits
	}
	for i, r := range resolutions {
		if r == st.resolution {
			s.Blocks[i] += len(u.blocks)
			for _, m := range u.blocks {
				s.Bytes[i] += size(m)
			}
		}
	}
	if st.resolution == Raw {
		if step := p.step(st, u); before(step, s.Step) {
			s.Step = step
		}
	}
}

func (p *planner) step(st *stream, u *unit) Step {
	several := false
	for _, same := range classes(u.blocks) {
		several = several || len(same) > 1
	}
	switch {
	case several && distinct(u.blocks, p.removes()) > 1 && u.maxt-u.mint <= p.Ranges[0]:
		return Shipped
	case several || u.busy || u.waits != "":
		return United
	}
	if begin := floor(u.mint, p.Ranges[len(p.Ranges)-1]); p.now < begin+p.Ranges[len(p.Ranges)-1] {
		return United
	}
	step := Compacted
	for _, r := range []struct {
		resolution int64
		step       Step
	}{{FiveMin, AtFiveMin}, {OneHour, AtOneHour}} {
		for _, m := range u.blocks {
			if !p.cover.has(st.key, r.resolution, m) {
				return step
			}
		}
		step = r.step
	}
	return step
}

var steps = []Step{Shipped, United, Compacted, AtFiveMin, AtOneHour, RawGone}

// before reports whether a is less far than b.
func before(a, b Step) bool { return slices.Index(steps, a) < slices.Index(steps, b) }
