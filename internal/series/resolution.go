package series

import (
	"encoding/binary"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// The lengths in ms of the windows of downsampled chunks. Thanos writes no others. A chunk does not say which of them
// it has (level).
const (
	FiveMinutes = 5 * 60 * 1000
	Hour        = 60 * 60 * 1000
)

// levels are the resolutions in ms, the finest first. 0 is raw.
var levels = [...]int64{0, FiveMinutes, Hour}

// windowEnd is the last ms of the window of res ms that t falls into. The sample of a window has this time. Only the
// last sample of a chunk may have the time of the last raw sample instead.
func windowEnd(t, res int64) int64 { return windowStart(t, res) + res - 1 }

// windowStart is the first ms of the window of res ms that t falls into.
func windowStart(t, res int64) int64 {
	if within := t % res; within < 0 {
		return t - within - res
	} else {
		return t - within
	}
}

// window is the time range in ms that a sample at t stands for, both ends included.
func window(t, res int64) (from, to int64) {
	if res == 0 {
		return t, t
	}
	return windowStart(t, res), windowEnd(t, res)
}

// resolutionSamples is how many timestamps of a chunk level reads to find its resolution.
const resolutionSamples = 8

// level is the position in levels of c's resolution. known is false when c has too few samples to decide. All
// timestamps of a chunk except the last are ends of windows. In a chunk of five minutes, only one in twelve is the
// end of an hour. Where one is all that there is, it may be the end of five minutes as well, unless another timestamp
// of the chunk is farther away.
func (d *decoder) level(c *Chunk) (level int, known bool) {
	if c.Aggr == nil {
		return 0, true
	}
	at := slices.IndexFunc(c.Aggr[:], func(e Encoded) bool { return e.Encoding != chunkenc.EncNone })
	if at < 0 {
		return 0, false
	}
	e := c.Aggr[at]
	it, err := d.encoded(e)
	if err != nil {
		return 0, false // reading the chunk later gives the same error to the caller
	}
	from, to := 0, int(binary.BigEndian.Uint16(e.Data))-1
	if Aggregate(at) == Counter && e.Encoding != chunkenc.EncFloatHistogram {
		from, to = 1, to-1 // the first raw value; the last one comes after the last total
	}
	var first, hour int64
	hours := 0
	for i := range min(to, resolutionSamples) {
		if it.Next() == chunkenc.ValNone {
			break
		}
		end := it.AtT()
		if i == 0 {
			first = end
		}
		switch {
		case i < from:
		case end == windowEnd(end, Hour):
			hour = end
			hours++
		case end == windowEnd(end, FiveMinutes):
			return 1, true
		}
	}
	if hours > 1 || hours == 1 && (hour-first >= FiveMinutes || c.MaxTime-hour > FiveMinutes) {
		return 2, true
	}
	return 0, false
}

// Resolution is the coarsest resolution in ms among chunks; 0 = all are raw. coarsest is that of chunks too short to
// show their own (byLevel).
func Resolution(chunks []Chunk, coarsest int64) int64 {
	if !isDownsampled(chunks) {
		return 0
	}
	parts := byLevel(chunks, coarsest)
	for i := len(parts) - 1; i > 0; i-- {
		if len(parts[i]) > 0 {
			return levels[i]
		}
	}
	return 0
}

// byLevel divides chunks by resolution. A chunk may be too short to show its own. It then gets the resolution of
//
//  1. the chunk whose last window ends where its window begins,
//  2. or else the downsampled chunk before it,
//  3. or else the first chunk after it that shows its own,
//  4. or else coarsest, the coarsest resolution in ms that was asked for.
func byLevel(chunks []Chunk, coarsest int64) (parts [len(levels)][]Chunk) {
	var d decoder
	of := make([]int, len(chunks))
	var ends [len(levels)]int64 // the last MaxTime of each level; 0 = none so far
	known, first := 0, 0
	for i := range chunks {
		c := &chunks[i]
		if c.Aggr == nil {
			continue
		}
		level, ok := d.level(c)
		for next := 1; !ok && next < len(levels); next++ {
			if ends[next] != 0 && windowStart(c.MinTime, levels[next]) == windowEnd(ends[next], levels[next])+1 {
				level, ok = next, true
			}
		}
		if ok {
			if known == 0 {
				first = level
			}
			known, ends[level] = level, max(ends[level], c.MaxTime)
		}
		of[i] = known
	}
	if known == 0 {
		first = 1
		if coarsest >= Hour {
			first = 2
		}
	}
	for i := range chunks {
		level := of[i]
		if level == 0 && chunks[i].Aggr != nil {
			level = first
		}
		parts[level] = append(parts[level], chunks[i])
	}
	return parts
}

// isDownsampled reports whether at least one of chunks is downsampled.
func isDownsampled(chunks []Chunk) bool {
	return slices.ContainsFunc(chunks, func(c Chunk) bool { return c.Aggr != nil })
}
