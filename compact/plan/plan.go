package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

// Plan is what is to be done with a bucket.
type Plan struct {
	// Jobs can be done at the same time, in any order. They are sorted: the smallest ranges first, the oldest first, and
	// tenants in turn.
	Jobs []Job
	// Replaced are the blocks that others replaced, and that no deletion mark has: they are to be marked.
	Replaced []Done
	// States are those of each stream and range, in order of stream, then of time.
	States []State
}

// Done is a block that others replaced.
type Done struct {
	Meta *block.Meta
	By   []ulid.ULID
}

// Make plans with the state of the bucket at now.
func Make(b Bucket, s *Settings, now time.Time) Plan {
	p := newPlanner(b, s, now)
	all := streams(p.inputs, s)
	for i, st := range all {
		for i > 0 && all[i-1].key == st.key {
			i--
			st.finer = append(st.finer, all[i])
		}
		st.split(b.View.NoCompact, p.erased(st))
		p.stream(st)
	}
	p.downsample(all)
	p.erase(all)
	p.drop()
	order(p.jobs)
	return Plan{Jobs: p.jobs, Replaced: p.replaced, States: p.states(all)}
}

// planner is a plan that is being made.
type planner struct {
	*Settings
	bucket   Bucket
	now      int64         // ms
	inputs   []*block.Meta // blocks that may be inputs
	replaced []Done
	cover    coverage
	jobs     []Job
}

func newPlanner(b Bucket, s *Settings, now time.Time) *planner {
	p := &planner{Settings: s, bucket: b, now: now.UnixMilli()}
	live := slices.DeleteFunc(slices.Clone(b.Metas), func(m *block.Meta) bool {
		_, marked := b.View.Deletions[m.ULID]
		return marked
	})
	live, replaced := finished(live)
	for _, m := range live {
		if r, ok := replaced[m.ULID]; ok {
			d := Done{Meta: m}
			for _, by := range r.By {
				d.By = append(d.By, by.ULID)
			}
			p.replaced = append(p.replaced, d)
		} else if slices.Contains(resolutions, m.Thanos.Downsample.Resolution) && !b.SetAside[m.ULID] {
			p.inputs = append(p.inputs, m)
		}
	}
	p.cover = newCoverage(b, s)
	return p
}

// finished takes out the blocks of outputs of which parts are missing, and returns what is replaced without these.
// Such an output is one that was made of a block that nothing replaced. Its job is planned again, with all of its
// inputs, also those that the parts which are there would replace: so it has the same outputs.
func finished(live []*block.Meta) ([]*block.Meta, map[ulid.ULID]block.Replacement) {
	for {
		replaced := block.Replaced(live)
		left := make(map[ulid.ULID]int64, len(live)) // the resolutions of what is not replaced
		for _, m := range live {
			if _, gone := replaced[m.ULID]; !gone {
				left[m.ULID] = m.Thanos.Downsample.Resolution
			}
		}
		n := len(live)
		live = slices.DeleteFunc(live, func(m *block.Meta) bool {
			return m.Origin != nil && slices.ContainsFunc(m.Origin.Replaces, func(id ulid.ULID) bool {
				resolution, there := left[id]
				return there && resolution == m.Thanos.Downsample.Resolution
			})
		})
		if len(live) == n {
			return live, replaced
		}
	}
}

// stream plans the compactions of one stream.
func (p *planner) stream(st *stream) {
	if st.resolution == Raw {
		for i, u := range st.units {
			p.overlap(st, u, st.units[:i])
		}
	} else {
		for _, u := range st.units {
			for _, same := range classes(u.blocks) {
				if len(same) > 1 {
					u.waits = "downsampled blocks overlap: they are made anew from finer ones, and never merged"
				}
			}
		}
	}
	p.horizontal(st)
}

// overlap plans what makes the blocks of one unit one: replicas are united as soon as all have come, and late
// blocks are merged when it pays.
func (p *planner) overlap(st *stream, u *unit, before []*unit) {
	if u.noCompact || u.failed || u.erase || len(p.Ranges) == 0 {
		return
	}
	length := p.fits(u)
	if length == 0 {
		u.waits = "it reaches over the border of every range"
		return
	}
	fresh := !slices.ContainsFunc(u.blocks, func(m *block.Meta) bool { return m.Compaction.Level > 1 })
	if fresh && length == p.Ranges[0] {
		if missing := p.awaited(u, before); missing != "" {
			u.waits = missing
			return
		}
		if distinct(u.blocks, p.removes()) > 1 {
			p.add(st, Unite, []*unit{u}, length, "replicas of one range")
			return
		}
	}
	if due, why := p.late(u); due {
		p.add(st, Compact, []*unit{u}, length, why)
	} else {
		u.waits = "" // horizontal jobs take late blocks along
	}
}

// fits is the smallest range of which one window has all of u, 0 if there is none.
func (p *planner) fits(u *unit) int64 {
	for _, length := range p.Ranges {
		if u.maxt <= floor(u.mint, length)+length {
			return length
		}
	}
	return 0
}

// awaited says for which producers the unit waits: those that shipped blocks of the day before, and none of this
// range.
func (p *planner) awaited(u *unit, before []*unit) string {
	end := floor(u.mint, p.Ranges[0]) + p.Ranges[0]
	if p.ProducerWait <= 0 || p.now >= end+p.ProducerWait.Milliseconds() {
		return ""
	}
	removed, known := p.removes(), map[string]bool{}
	for _, b := range slices.Backward(before) {
		if b.maxt <= u.mint-24*time.Hour.Milliseconds() {
			break
		}
		for _, m := range b.blocks {
			for _, who := range producers(m, removed) {
				known[who] = true
			}
		}
	}
	for _, m := range u.blocks {
		for _, who := range producers(m, removed) {
			delete(known, who)
		}
	}
	if len(known) == 0 {
		return ""
	}
	return fmt.Sprintf("waits for blocks of %q until %s", slices.Sorted(maps.Keys(known)),
		time.UnixMilli(end).Add(p.ProducerWait).UTC().Format(time.RFC3339))
}

// distinct is how many producers made blocks.
func distinct(blocks []*block.Meta, removed []string) int {
	seen := map[string]bool{}
	for _, m := range blocks {
		for _, who := range producers(m, removed) {
			seen[who] = true
		}
	}
	return len(seen)
}

// late reports whether the blocks of u are to be merged, and why: late blocks into those that they overlap, or
// those of one part that are still several where another part is one block. The largest blocks that do not overlap
// each other are not late.
func (p *planner) late(u *unit) (due bool, why string) {
	one, several := false, false
	for _, blocks := range classes(u.blocks) {
		main, rest := lateOf(blocks)
		short := slices.ContainsFunc(main, func(m *block.Meta) bool { return m.MinTime > u.mint || m.MaxTime < u.maxt })
		one, several = one || !short, several || short && len(main) > 1
		if len(rest) == 0 {
			continue
		}
		mains, late, newest := uint64(0), uint64(0), int64(0)
		for _, m := range main {
			mains += size(m)
		}
		for _, m := range rest {
			late += size(m)
			newest = max(newest, m.Uploaded().UnixMilli())
		}
		switch {
		case float64(late) >= p.LateShare*float64(mains):
			return true, fmt.Sprintf("late blocks have %d bytes, and the others %d", late, mains)
		case p.now-newest >= p.LateWait.Milliseconds():
			return true, fmt.Sprintf("no late block came for %s", p.LateWait)
		}
	}
	return one && several, "other parts of the range were compacted"
}

// lateOf divides blocks, the largest first, into those that do not overlap each other, and the rest.
func lateOf(blocks []*block.Meta) (main, late []*block.Meta) {
	if len(blocks) == 1 {
		return blocks, nil
	}
	for _, m := range slices.SortedFunc(slices.Values(blocks), func(a, b *block.Meta) int {
		return cmp.Or(cmp.Compare(size(b), size(a)), a.ULID.Compare(b.ULID))
	}) {
		if slices.ContainsFunc(main, func(o *block.Meta) bool { return overlap(m, o) }) {
			late = append(late, m)
		} else {
			main = append(main, m)
		}
	}
	return main, late
}

// overlap reports whether blocks may have samples of the same series and time.
func overlap(a, b *block.Meta) bool {
	return a.MinTime < b.MaxTime && b.MinTime < a.MaxTime && a.Part().Meets(b.Part())
}

// size is that of m in bytes, at least 1. Without the sizes of files the number of samples stands for it.
func size(m *block.Meta) uint64 {
	if n := m.Bytes(); n > 0 {
		return uint64(n)
	}
	return max(m.Stats.NumSamples, 1)
}

// horizontal plans what makes the units of aligned windows one. A window that may still get blocks waits, as one
// does of which a smaller range is not finished. The newest unit of raw blocks stays as it is.
func (p *planner) horizontal(st *stream) {
	units := st.units
	if st.resolution == Raw {
		units = units[:max(len(units)-1, 0)]
	}
	for _, length := range p.Ranges {
		for _, w := range windows(units, length) {
			switch {
			case len(w) < 2, !st.over(w, length), slices.ContainsFunc(w, (*unit).held):
			case st.resolution != Raw && p.fromFiner(st, w, length):
			default:
				if r := run(w); r != nil {
					p.add(st, Compact, r, length, "the range is over")
				}
			}
		}
	}
}

// over reports whether no more blocks are expected in a window of units w: it is full, or time has gone on. Raw blocks
// come in order, so those behind the window tell. Downsampled ones are made of them at any time, so the whole window
// must lie before blocks of any resolution.
func (st *stream) over(w []*unit, length int64) bool {
	end := w[len(w)-1].maxt
	if end-w[0].mint == length {
		return true
	}
	if st.resolution == Raw {
		return end <= st.units[len(st.units)-2].mint
	}
	end = floor(w[0].mint, length) + length
	newest := st.units[len(st.units)-1].mint
	for _, f := range st.finer {
		newest = max(newest, f.units[len(f.units)-1].mint)
	}
	return end <= newest
}

// held reports whether no window with u is compacted.
func (u *unit) held() bool { return u.failed || u.busy || u.erase || u.waits != "" }

// fromFiner reports whether finer blocks have all samples of units, of one window, and will be compacted and
// downsampled themselves, since not all of them were: what is made of them then replaces these.
func (p *planner) fromFiner(st *stream, units []*unit, length int64) bool {
	begin := floor(units[0].mint, length)
	return slices.ContainsFunc(st.finer, func(f *stream) bool {
		n := 0
		var finer []*block.Meta
		for _, u := range f.units {
			if u.mint >= begin && u.maxt <= begin+length {
				if u.noCompact || u.failed {
					return false
				}
				n++
				finer = append(finer, u.blocks...)
			}
		}
		if n < 2 {
			return false
		}
		for _, r := range resolutions {
			if r > f.resolution && r <= st.resolution && p.cover.all(f.key, r, finer) {
				return false
			}
		}
		for _, u := range units {
			if !p.cover.all(f.key, f.resolution, u.blocks) {
				return false
			}
		}
		return true
	})
}

// add adds a job for each part of units of which there are several blocks.
func (p *planner) add(st *stream, kind Kind, units []*unit, window int64, why string) {
	var blocks []*block.Meta
	for _, u := range units {
		blocks = append(blocks, u.blocks...)
	}
	byPart := classes(blocks)
	added := false
	for _, part := range inParts(byPart) {
		if in := byPart[part]; len(in) > 1 {
			p.jobs = append(p.jobs, p.job(st, kind, in, part, window, why))
			added = true
		}
	}
	for _, u := range units {
		u.busy = u.busy || added
	}
}

// job makes a job of inputs that are sorted.
func (p *planner) job(st *stream, kind Kind, in []*block.Meta, part block.Part, window int64, why string) Job {
	j := Job{Kind: kind, Tenant: st.tenant, Stream: st.labels, Resolution: st.resolution, Inputs: in, Part: part,
		Reason: why, window: window, MinTime: in[0].MinTime, MaxTime: in[0].MaxTime}
	for _, m := range in {
		j.MaxTime = max(j.MaxTime, m.MaxTime)
	}
	p.remove(&j)
	j.Parts = p.parts(in, part)
	for _, resolution := range slices.Backward(p.writes(st, &j)) {
		for shard := part.Shard; shard < j.Parts; shard += part.Of {
			j.Outputs = append(j.Outputs, Output{Resolution: resolution, Part: block.Part{Shard: shard, Of: j.Parts}})
		}
	}
	j.identify(p.Settings)
	return j
}

// remove finds which labels of replicas and HA pairs the inputs of j have.
func (p *planner) remove(j *Job) {
	for _, name := range p.removes() {
		values := map[string]bool{}
		for _, m := range j.Inputs {
			if v, ok := m.Thanos.Labels[name]; ok {
				values[v] = true
			} else {
				values[""] = true
			}
		}
		if len(values) == 1 && values[""] {
			continue
		}
		j.Removed = append(j.Removed, name)
		if p.Penalty && len(values) > 1 && slices.Contains(p.DedupLabels, name) {
			j.Dedup = append(j.Dedup, name)
		}
	}
	if len(j.Stream) == 0 && len(j.Removed) > 0 {
		j.Stream = map[string]string{j.Removed[0]: block.Deduped} // a block has to have a label
	}
}

// drop takes out the jobs that must not be done: an output is marked for deletion, or was deleted.
func (p *planner) drop() {
	p.jobs = slices.DeleteFunc(p.jobs, func(j Job) bool {
		return slices.ContainsFunc(j.Outputs, func(o Output) bool {
			_, marked := p.bucket.View.Deletions[o.ID]
			return marked || p.bucket.Done[o.ID]
		})
	})
}
