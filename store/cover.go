package store

import (
	"slices"
)

// span is what cover knows of a block: which of a group's streams it is a piece of, and [mint, maxt) in ms.
type span struct {
	stream     int
	resolution int64
	mint, maxt int64
}

// window is a time range in ms, end excluded.
type window struct{ mint, maxt int64 }

// cover chooses which blocks answer for which time, when downsampled ones may: at each moment the coarsest resolution not
// above limit that every stream with data has, else each stream's own coarsest. So no moment is left out, none is
// answered by a stream twice, and replicas, which are united afterwards, do not mix resolutions where it can be helped.
// The streams of one call are the replicas of one ring. The result has the windows of each span, none if it is not used.
func cover(spans []span, limit int64) [][]window {
	out := make([][]window, len(spans))
	var bounds []int64
	for _, s := range spans {
		if s.resolution <= limit {
			bounds = append(bounds, s.mint, s.maxt)
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	for i := 1; i < len(bounds); i++ {
		w := window{bounds[i-1], bounds[i]}
		chosen := resolutions(spans, w, limit)
		for k, s := range spans {
			if r, ok := chosen[s.stream]; !ok || r != s.resolution || !s.covers(w) {
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

func (s span) covers(w window) bool { return s.mint <= w.mint && s.maxt >= w.maxt }

// resolutions chooses the resolution of each stream that has data in w.
func resolutions(spans []span, w window, limit int64) map[int]int64 {
	coarsest := map[int]int64{}  // by stream
	streams := map[int64][]int{} // that have a resolution, each once
	for _, s := range spans {
		if s.resolution > limit || !s.covers(w) {
			continue
		}
		if !slices.Contains(streams[s.resolution], s.stream) {
			streams[s.resolution] = append(streams[s.resolution], s.stream)
		}
		if r, ok := coarsest[s.stream]; !ok || s.resolution > r {
			coarsest[s.stream] = s.resolution
		}
	}
	best := int64(-1)
	for r, in := range streams {
		if len(in) == len(coarsest) {
			best = max(best, r)
		}
	}
	if best >= 0 {
		for s := range coarsest {
			coarsest[s] = best
		}
	}
	return coarsest
}

// overlaps reports whether a chunk of [mint, maxt], both included, has to do with any of the windows.
func overlaps(ws []window, mint, maxt int64) bool {
	for _, w := range ws {
		if mint < w.maxt && maxt >= w.mint {
			return true
		}
	}
	return false
}
