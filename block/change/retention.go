package change

import (
	"fmt"
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/block"
)

// Retention is how long samples of each resolution are kept, from the end of their block on; 0 = for ever.
type Retention struct{ Raw, FiveMinutes, OneHour time.Duration }

// of is the retention of blocks of a resolution in ms. It is false for one that there is none for.
func (r Retention) of(resolution int64) (time.Duration, bool) {
	switch millis(resolution) {
	case 0:
		return r.Raw, true
	case 5 * time.Minute:
		return r.FiveMinutes, true
	case time.Hour:
		return r.OneHour, true
	}
	return 0, false
}

func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// Retain plans to mark the blocks that are past their retention. A block stays while it has samples of a time for which
// a coarser resolution is kept, and no coarser blocks have that time: without it nothing would have. If only raw
// samples have a retention, nobody downsamples, and there is no such guard.
func Retain(v block.View, now time.Time, r Retention, filters ...block.Filter) Plan {
	p := NewPlan("retention", v, now)
	p.Timed = true
	guard := r.FiveMinutes > 0 || r.OneHour > 0
	metas := v.Select(append(slices.Clone(filters), block.Unmarked)...)
	streams := byStream(metas)
	for _, m := range metas {
		keep, known := r.of(m.Thanos.Downsample.Resolution)
		if !known || keep == 0 || !now.After(time.UnixMilli(m.MaxTime).Add(keep)) {
			continue
		}
		coarser := r.coarser(m, now)
		if guard && len(coarser) > 0 && !covered(m, streams[m.ExternalLabels().String()], coarser) {
			p.Held = append(p.Held, Held{m.ULID, "it is past its retention, and no coarser blocks have its time"})
			continue
		}
		p.Steps = append(p.Steps, Step{Action: Mark, Block: m.ULID, Mark: block.DeletionMarkName, Bytes: m.Bytes(),
			Details: fmt.Sprintf("block exceeding retention of %v", keep)})
	}
	return p
}

// coarser are the coarser resolutions, in ms, for which the time of m is kept.
func (r Retention) coarser(m *block.Meta, now time.Time) (all []int64) {
	for _, resolution := range []int64{(5 * time.Minute).Milliseconds(), time.Hour.Milliseconds()} {
		keep, _ := r.of(resolution)
		if resolution > m.Thanos.Downsample.Resolution && (keep == 0 || !now.After(time.UnixMilli(m.MaxTime).Add(keep))) {
			all = append(all, resolution)
		}
	}
	return all
}

// byStream are metas by their external labels, in their order.
func byStream(metas []*block.Meta) map[string][]*block.Meta {
	all := map[string][]*block.Meta{}
	for _, m := range metas {
		key := m.ExternalLabels().String()
		all[key] = append(all[key], m)
	}
	return all
}

// covered reports whether the blocks of one of the resolutions have all of the time of m. stream is sorted by MinTime.
func covered(m *block.Meta, stream []*block.Meta, resolutions []int64) bool {
	until := map[int64]int64{} // by resolution: the time is covered from m.MinTime up to here
	for _, c := range stream {
		resolution := c.Thanos.Downsample.Resolution
		if !slices.Contains(resolutions, resolution) || c.MinTime >= m.MaxTime {
			continue
		}
		at, seen := until[resolution]
		if !seen {
			at = m.MinTime
		}
		if c.MinTime <= at && c.MaxTime > at {
			at = c.MaxTime
		}
		if until[resolution] = at; at >= m.MaxTime {
			return true
		}
	}
	return false
}
