package sourcetest

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
)

// Downsample makes downsampled chunks with windows of res ms, as a Thanos compactor writes them. Each chunk is made of
// about size samples. The samples must be all numbers or all float histograms.
func Downsample(samples []Sample, res int64, size int) []series.Chunk {
	var out []series.Chunk
	end := func(t int64) int64 { return t - t%res + res - 1 }
	for from := 0; from < len(samples); {
		to := min(from+size, len(samples))
		for to < len(samples) && samples[to].T <= end(samples[to-1].T) {
			to++
		}
		var batch []Sample
		for _, s := range samples[from:to] {
			if !value.IsStaleNaN(s.V) && (s.FH == nil || !value.IsStaleNaN(s.FH.Sum)) {
				batch = append(batch, s)
			}
		}
		from = to
		if len(batch) > 0 {
			out = append(out, downsample(batch, end))
		}
	}
	return out
}

// downsample makes one chunk of batch. end is the last ms of the window of a time.
func downsample(batch []Sample, end func(int64) int64) series.Chunk {
	last := batch[len(batch)-1]
	var parts [series.NumAggregates][]Sample
	put := func(a series.Aggregate, t int64, v float64) { parts[a] = append(parts[a], Sample{T: t, V: v}) }
	if last.FH == nil {
		put(series.Counter, batch[0].T, batch[0].V)
	}
	total := total{}
	for i := 0; i < len(batch); {
		t := min(end(batch[i].T), last.T)
		count, sum, least, most := 0.0, Sample{T: t}, math.Inf(1), math.Inf(-1)
		for ; i < len(batch) && batch[i].T <= t; i++ {
			s := batch[i]
			total.add(s)
			count++
			if s.FH == nil {
				sum.V, least, most = sum.V+s.V, min(least, s.V), max(most, s.V)
				continue
			}
			if sum.FH = plus(sum.FH, s.FH); sum.FH != nil {
				sum.FH.CounterResetHint = histogram.GaugeType
			}
		}
		put(series.Count, t, count)
		parts[series.Sum] = append(parts[series.Sum], sum)
		parts[series.Counter] = append(parts[series.Counter], Sample{T: t, V: total.v, FH: total.h})
		if last.FH == nil {
			put(series.Min, t, least)
			put(series.Max, t, most)
		}
	}
	if last.FH == nil {
		put(series.Counter, last.T, last.V)
	}
	c := series.Chunk{MinTime: parts[series.Count][0].T, MaxTime: last.T, Aggr: new(series.AggrChunks)}
	for a, samples := range parts {
		if len(samples) > 0 {
			c.Aggr[a] = whole(samples)
			h := samples[0].FH
			if series.Aggregate(a) == series.Counter && h != nil && h.CounterResetHint != histogram.GaugeType {
				c.Aggr[a].Data[2] = byte(chunkenc.NotCounterReset) // so does Thanos
			}
		}
	}
	return c
}

// whole encodes all samples as one chunk. It panics when they do not fit.
func whole(samples []Sample) series.Encoded {
	all := encode(samples)
	if len(all) != 1 {
		panic("BUG: the samples of a downsampled chunk do not fit into one")
	}
	if all[0].Raw.Encoding == chunkenc.EncNone {
		panic("BUG: nothing was encoded")
	}
	return all[0].Raw
}

// total adds up a counter without its resets.
type total struct {
	begun bool
	v     float64
	h     *histogram.FloatHistogram
	last  Sample
}

func (c *total) add(s Sample) {
	switch {
	case !c.begun:
		c.v, c.h = s.V, s.FH
	case s.FH == nil && s.V < c.last.V:
		c.v += s.V
	case s.FH == nil:
		c.v += s.V - c.last.V
	case s.FH.DetectReset(c.last.FH):
		c.h = plus(c.h, s.FH)
	default:
		c.h = plus(c.h, plus(s.FH, c.last.FH.Copy().Mul(-1)))
	}
	c.begun, c.last = true, s
}

// plus is the sum of a, which may be nil, and b. It has the counter reset hint of a.
func plus(a, b *histogram.FloatHistogram) *histogram.FloatHistogram {
	if a == nil {
		return b.Copy()
	}
	sum := a.Copy()
	if _, _, _, err := sum.Add(b); err != nil {
		panic("BUG: " + err.Error())
	}
	sum.CounterResetHint = a.CounterResetHint
	return sum
}
