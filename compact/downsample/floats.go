package downsample

import (
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/xor"
)

// floatWindow is what a window has of floats.
type floatWindow struct {
	t                    int64 // the timestamp, set when the window ends
	count, sum, min, max float64
	counter              float64 // the counter's total at the end of the window
}

// floatBatch is a chunk of floats in the making: at most windowsPerChunk windows, of which the last one is open.
type floatBatch struct {
	span
	windows []floatWindow
	lastT   int64 // the time of the last sample
	counter floatCounter
	writers [series.NumAggregates]xor.Writer
}

// floatCounter adds up a counter and leaves out its resets.
type floatCounter struct {
	counted bool // there was a value since the chunk began
	firstT  int64
	first   float64 // the first raw value
	lastT   int64
	last    float64 // the last raw value
	total   float64 // goes on from first
}

// put takes the value v at t. A second value of one time is the last raw one, after a total.
func (c *floatCounter) put(t int64, v float64) {
	switch {
	case math.IsNaN(v):
		return
	case !c.counted:
		c.counted, c.firstT, c.first, c.total = true, t, v, v
	case t < c.lastT:
		return
	case t == c.lastT:
	case v < c.last:
		c.total += v
	default:
		c.total += v - c.last
	}
	if math.IsNaN(c.total) { // infinite values have no difference
		c.total = v
	}
	c.lastT, c.last = t, v
}

// isOpen reports whether there is something in f.
func (f *floatBatch) isOpen() bool { return len(f.windows) > 0 }

// next opens the window of t, of the same chunk.
func (f *floatBatch) next(t int64) {
	if f.isOpen() {
		f.windows[len(f.windows)-1].t = f.windowEnd
	}
	f.open(t, !f.isOpen())
	f.windows = append(f.windows, floatWindow{counter: f.counter.total})
}

// add adds the sample (t, v) to the open window. Its time must lie there.
func (f *floatBatch) add(t int64, v float64) {
	w := &f.windows[len(f.windows)-1]
	if w.count == 0 {
		w.min, w.max = v, v
	}
	w.count++
	w.sum += v
	if v < w.min {
		w.min = v
	}
	if v > w.max {
		w.max = v
	}
	f.counter.put(t, v)
	w.counter = f.counter.total
	f.lastT = t
}

// addAll adds samples, at least one, to the open window. Their times must lie there, in order, and the first value is a
// number.
func (f *floatBatch) addAll(ts []int64, vs []float64) {
	w, c := &f.windows[len(f.windows)-1], &f.counter
	if w.count == 0 || !c.counted {
		f.add(ts[0], vs[0])
		ts, vs = ts[1:], vs[1:]
	}
	sum, least, most, total, last := w.sum, w.min, w.max, c.total, c.last
	n := 0
	for _, v := range vs {
		if v != v {
			break
		}
		sum += v
		if v < least {
			least = v
		}
		if v > most {
			most = v
		}
		if v < last {
			total += v
		} else {
			total += v - last
		}
		if total != total { // infinite values have no difference
			total = v
		}
		last = v
		n++
	}
	if n > 0 {
		w.count += float64(n)
		w.sum, w.min, w.max, w.counter = sum, least, most, total
		f.lastT, c.lastT = ts[n-1], ts[n-1]
		c.total, c.last = total, last
	}
	for i := n; i < len(vs); i++ {
		if v := vs[i]; v == v {
			f.add(ts[i], v)
		}
	}
}

// addWindow adds a finer window, with the timestamp t, to the open one.
func (f *floatBatch) addWindow(t int64, in *floatWindow) {
	w := &f.windows[len(f.windows)-1]
	if w.count == 0 {
		w.min, w.max = in.min, in.max
	}
	w.count += in.count
	w.sum += in.sum
	if in.min < w.min {
		w.min = in.min
	}
	if in.max > w.max {
		w.max = in.max
	}
	f.lastT = t
}

// count adds a value of the counter to the open window.
func (f *floatBatch) count(t int64, v float64) {
	f.counter.put(t, v)
	f.windows[len(f.windows)-1].counter = f.counter.total
}

// close ends the chunk and appends it to out. next is the time of the next sample of the series, or none. f has the
// windows of the chunk until it is dropped.
func (f *floatBatch) close(next int64, out *output) {
	last := len(f.windows) - 1
	f.windows[last].t = f.stamp(f.lastT, next)
	w := &f.writers
	for a := range w {
		w[a].Reset()
	}
	c := &f.counter
	if c.counted {
		w[series.Counter].Append(c.firstT, c.first)
	}
	for i := range f.windows {
		in := &f.windows[i]
		w[series.Count].Append(in.t, in.count)
		w[series.Sum].Append(in.t, in.sum)
		w[series.Min].Append(in.t, in.min)
		w[series.Max].Append(in.t, in.max)
		if c.counted {
			w[series.Counter].Append(in.t, in.counter)
		}
	}
	if c.counted {
		w[series.Counter].Append(f.windows[last].t, c.last)
	}
	var parts series.AggrChunks
	for a := range w {
		if w[a].Len() > 0 {
			parts[a] = series.Encoded{Encoding: chunkenc.EncXOR, Data: w[a].Bytes()}
		}
	}
	out.add(f.windows[0].t, f.windows[last].t, &parts)
	out.stats.FloatSamples += uint64(len(f.windows))
}

// drop empties f.
func (f *floatBatch) drop() {
	f.windows, f.windowEnd, f.counter = f.windows[:0], none, floatCounter{}
}
