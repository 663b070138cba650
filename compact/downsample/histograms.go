package downsample

import (
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/xor"
)

// histogramWindow is what a window has of histograms.
type histogramWindow struct {
	t       int64 // the timestamp, set when the window ends
	count   float64
	sum     *histogram.FloatHistogram
	counter *histogram.FloatHistogram // the last value in the window
}

// histogramPoint is a histogram and its time in ms.
type histogramPoint struct {
	t int64
	h *histogram.FloatHistogram
}

// pointsOf yields the times and histograms of points.
func pointsOf(points []histogramPoint) iter.Seq2[int64, *histogram.FloatHistogram] {
	return func(yield func(int64, *histogram.FloatHistogram) bool) {
		for _, p := range points {
			if !yield(p.t, p.h) {
				return
			}
		}
	}
}

// histogramBatch is a chunk of histograms in the making: at most windowsPerChunk windows, of which the last one is
// open.
//
// The counter of a chunk is never reset: a chunk ends before a reset, and the next one says that there was one. So
// totals are raw values, and a reader of the counter that knows nothing of totals, such as Thanos, sees the resets
// where they were.
type histogramBatch struct {
	span
	windows []histogramWindow
	memory  []*histogram.FloatHistogram // for windows that come
	lastT   int64                       // the time of the last sample
	header  chunkenc.CounterResetHeader // of the chunk
	firstT  int64                       // the time of the first raw value; none = it is not known
	first   histogram.FloatHistogram
	value   *histogram.FloatHistogram // the last value of the counter, also of the chunk before; nil = none
	last    histogram.FloatHistogram  // the memory of value
	count   xor.Writer
	closed  closedHistograms // the last chunk
}

// isOpen reports whether there is something in b.
func (b *histogramBatch) isOpen() bool { return len(b.windows) > 0 }

// continues reports whether h can be in the chunk that is open, and whether the counter was reset before h. h is the
// first of an input chunk.
//
// A chunk of histograms has one schema, one zero bucket and one set of custom bounds. To bring others to them would
// change what readers compare to find resets: a zero bucket that becomes wider may have to become wider than all that
// came.
func (b *histogramBatch) continues(h *histogram.FloatHistogram) (same, reset bool) {
	if !b.isOpen() || b.value == nil {
		return false, false
	}
	before := b.value
	gauge := h.CounterResetHint == histogram.GaugeType
	same = gauge == (b.header == chunkenc.GaugeType) && h.Schema == before.Schema &&
		h.ZeroThreshold == before.ZeroThreshold && histogram.CustomBucketBoundsMatch(h.CustomValues, before.CustomValues)
	// By values: the library gives the first histogram of a chunk no hint.
	return same, !gauge && b.header != chunkenc.GaugeType && h.DetectReset(before)
}

// next opens the window of t. A chunk that begins with it has the kind of h: that of gauges, or header.
func (b *histogramBatch) next(t int64, h *histogram.FloatHistogram, header chunkenc.CounterResetHeader) {
	fresh := !b.isOpen()
	if !fresh {
		b.settle(b.windowEnd)
	}
	b.open(t, fresh)
	if fresh {
		b.firstT, b.header = none, header
		if h.CounterResetHint == histogram.GaugeType {
			b.header = chunkenc.GaugeType
		}
	}
	b.windows = append(b.windows, histogramWindow{})
}

// settle ends the open window, whose timestamp is t.
func (b *histogramBatch) settle(t int64) {
	w := &b.windows[len(b.windows)-1]
	w.t = t
	if b.value != nil {
		w.counter = b.keep(b.value)
	}
}

// keep is a copy of h in memory of b.
func (b *histogramBatch) keep(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	n := len(b.memory)
	if n == 0 {
		return h.Copy()
	}
	to := b.memory[n-1]
	b.memory = b.memory[:n-1]
	h.CopyTo(to)
	return to
}

// add adds a sample to the open window, or a finer window: count samples up to t, whose sum is h.
func (b *histogramBatch) add(t int64, count float64, h *histogram.FloatHistogram) error {
	w := &b.windows[len(b.windows)-1]
	b.lastT = t
	w.count += count
	if w.sum == nil {
		w.sum = b.keep(h)
		w.sum.CounterResetHint = histogram.GaugeType
		return nil
	}
	hint := h.CounterResetHint
	h.CounterResetHint = histogram.GaugeType
	_, _, _, err := w.sum.Add(h)
	h.CounterResetHint = hint
	return err
}

// addRun adds n samples up to t to the open window, whose sum is h. h.Sum is the sum of the whole window, since floats
// have to be added in order.
func (b *histogramBatch) addRun(t int64, n float64, h *histogram.FloatHistogram) error {
	sum := h.Sum
	err := b.add(t, n, h)
	b.windows[len(b.windows)-1].sum.Sum = sum
	return err
}

// sumBefore is the sum of Sum that the open window has. It is what changes nothing if it has none: -0.
func (b *histogramBatch) sumBefore() float64 {
	if sum := b.windows[len(b.windows)-1].sum; sum != nil {
		return sum.Sum
	}
	return math.Copysign(0, -1)
}

// counter puts the value h of the counter at t. raw = it is a raw value, which a chunk may begin with.
func (b *histogramBatch) counter(t int64, h *histogram.FloatHistogram, raw bool) {
	if raw && b.firstT == none && len(b.windows) == 1 && b.windows[0].count == 0 && b.header != chunkenc.GaugeType {
		b.firstT = t
		h.CopyTo(&b.first)
	}
	h.CopyTo(&b.last)
	b.value = &b.last
}

// close ends the chunk and appends it to out. next is the time of the next sample of the series, or none. b has the
// windows of the chunk until end, and b.closed what was written of them.
//
// The first raw value shows readers that the counter has raw values. It is left out where it would look like a window's
// (series: level).
func (b *histogramBatch) close(next int64, out *output) error {
	t := b.stamp(b.lastT, next)
	b.settle(t)
	sums, counters := b.closed.sums[:0], b.closed.counters[:0]
	if b.firstT != none && b.firstT < b.windows[0].t && b.firstT != start(b.firstT, FiveMinutes)+FiveMinutes-1 {
		counters = append(counters, histogramPoint{b.firstT, b.keep(&b.first)})
	}
	b.count.Reset()
	for i := range b.windows {
		w := &b.windows[i]
		b.count.Append(w.t, w.count)
		sums = append(sums, histogramPoint{w.t, w.sum})
		if w.counter != nil {
			counters = append(counters, histogramPoint{w.t, w.counter})
		}
	}
	b.closed = closedHistograms{sums, counters, alike(sums) && alike(counters)} // encoding may change them if they are not
	var parts series.AggrChunks
	var err error
	parts[series.Count] = series.Encoded{Encoding: chunkenc.EncXOR, Data: b.count.Bytes()}
	if parts[series.Sum], err = series.EncodeHistograms(pointsOf(sums), chunkenc.GaugeType); err != nil {
		return fmt.Errorf("the sums: %w", err)
	}
	if parts[series.Counter], err = series.EncodeHistograms(pointsOf(counters), b.header); err != nil {
		return fmt.Errorf("the counter: %w", err)
	}
	out.add(b.windows[0].t, t, &parts)
	out.stats.HistogramSamples += uint64(len(b.windows))
	return nil
}

// end empties b after close. The last value stays, to be compared with the next one.
func (b *histogramBatch) end() {
	for _, points := range [...][]histogramPoint{b.closed.sums, b.closed.counters} {
		for _, p := range points {
			b.memory = append(b.memory, p.h)
		}
	}
	b.windows, b.windowEnd = b.windows[:0], none
}

// closedHistograms are the aggregates of a chunk that was closed.
type closedHistograms struct {
	sums, counters []histogramPoint
	alike          bool // both are read as they are here
}

// alike reports whether histograms have the same buckets, so that a chunk gives them back as they are.
func alike(points []histogramPoint) bool {
	first := points[0].h
	return histogram.IsExponentialSchema(first.Schema) && !slices.ContainsFunc(points, func(p histogramPoint) bool {
		h := p.h
		return value.IsStaleNaN(h.Sum) || h.Schema != first.Schema || h.ZeroThreshold != first.ZeroThreshold ||
			!slices.Equal(h.PositiveSpans, first.PositiveSpans) || !slices.Equal(h.NegativeSpans, first.NegativeSpans)
	})
}

// drop empties b.
func (b *histogramBatch) drop() {
	b.windows, b.windowEnd, b.value = b.windows[:0], none, nil
}
