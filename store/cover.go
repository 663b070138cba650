package store

import (
	"cmp"
	"slices"

	"github.com/hearth-metrics/hearth/internal/series"
)

// extent is what cover knows of a block: which of a group's streams it is a piece of, and [mint, maxt) in ms.
type extent struct {
	stream     int
	resolution int64
	mint, maxt int64
}

// window is a time range in ms, end excluded.
type window struct{ mint, maxt int64 }

// cover chooses which blocks answer for which time, when downsampled ones up to resolution limit may answer: at each
// moment the best resolution that every stream with data has, else the best of each stream. The best is the coarsest
// that is not above fit, since coarser ones are of no use to the request; if there is none, it is the finest above
// fit. So every moment is answered, a stream answers it once, and replicas, which are united afterwards, have one
// resolution where possible. The streams of one call are the replicas of one ring. The result has the windows of each
// extent, none if it is not used. It takes n log n for n extents of which few overlap: each is looked at once for each
// bound within it.
func cover(extents []extent, limit, fit int64) [][]window {
	out := make([][]window, len(extents))
	var bounds []int64
	var later []int // extents that do not begin before the window, in order of mint
	for k, s := range extents {
		if s.resolution <= limit {
			bounds, later = append(bounds, s.mint, s.maxt), append(later, k)
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	slices.SortFunc(later, func(a, b int) int { return cmp.Compare(extents[a].mint, extents[b].mint) })
	var current []int // the extents that cover the window
	for i := 1; i < len(bounds); i++ {
		w := window{bounds[i-1], bounds[i]}
		for len(later) > 0 && extents[later[0]].mint <= w.mint {
			current, later = append(current, later[0]), later[1:]
		}
		current = slices.DeleteFunc(current, func(k int) bool { return extents[k].maxt < w.maxt })
		chosen := resolutions(extents, current, fit)
		for _, k := range current {
			if chosen[extents[k].stream] != extents[k].resolution {
				continue
			}
			if n := len(out[k]); n > 0 && out[k][n-1].maxt == w.mint {
				out[k][n-1].maxt = w.maxt
			} else {
				out[k] = append(out[k], w)
			}
		}
	}
	return out
}

// resolutions chooses the resolution of each stream that current, which are places in extents, are pieces of.
func resolutions(extents []extent, current []int, fit int64) map[int]int64 {
	own := map[int]int64{}       // the best by stream
	streams := map[int64][]int{} // the streams that have a resolution, each once
	for _, k := range current {
		s := extents[k]
		if !slices.Contains(streams[s.resolution], s.stream) {
			streams[s.resolution] = append(streams[s.resolution], s.stream)
		}
		if r, ok := own[s.stream]; !ok || better(s.resolution, r, fit) {
			own[s.stream] = s.resolution
		}
	}
	best := int64(-1)
	for r, in := range streams {
		if len(in) == len(own) && (best < 0 || better(r, best, fit)) {
			best = r
		}
	}
	if best >= 0 {
		for s := range own {
			own[s] = best
		}
	}
	return own
}

// better reports whether resolution a is to be read rather than b.
func better(a, b, fit int64) bool {
	switch {
	case (a <= fit) != (b <= fit):
		return a <= fit
	case a <= fit:
		return a > b
	}
	return a < b
}

// fitting is the coarsest resolution, in ms, that is of use to r. A rate takes two samples, so windows longer than
// half of the range would leave times without a value.
func fitting(r *series.Request) int64 {
	if r.Hints.Range > 0 {
		return min(r.MaxResolution, r.Hints.Range/2)
	}
	return r.MaxResolution
}

// overlaps reports whether a chunk of [mint, maxt], both included, overlaps any of the windows.
func overlaps(ws []window, mint, maxt int64) bool {
	for _, w := range ws {
		if mint < w.maxt && maxt >= w.mint {
			return true
		}
	}
	return false
}
