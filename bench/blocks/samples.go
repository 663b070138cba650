package blocks

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/internal/series"
)

const (
	prototypes      = 16  // how many sequences of samples there are of each kind
	samplesPerChunk = 120 // as the TSDB cuts
)

// prototype is the samples of a series, encoded. Chunks of several series share its memory.
type prototype struct {
	chunks  []chunks.Meta
	samples uint64
}

// sequence makes the samples of one prototype.
type sequence struct {
	seed     uint64
	native   bool
	when     span
	interval int64 // ms
	edit     edit
}

func (q sequence) times() []int64 {
	var out []int64
	for t := q.when.mint; t < q.when.maxt; t += q.interval {
		out = append(out, t)
	}
	return out
}

// floats is a counter that never falls.
func (q sequence) floats() []float64 {
	r := rand.New(rand.NewPCG(q.seed, 1))
	v := float64(r.IntN(100_000))
	step := 1 + r.IntN(500)
	out := make([]float64, len(q.times()))
	for i := range out {
		if r.IntN(5) > 0 {
			v += float64(step + r.IntN(1+step/4))
		}
		out[i] = v
	}
	return out
}

// histograms are native histograms whose buckets only grow.
func (q sequence) histograms() []*histogram.Histogram {
	r := rand.New(rand.NewPCG(q.seed, 2))
	counts := make([]int64, 18)
	for i := range counts {
		counts[i] = int64(1 + r.IntN(40))
	}
	out := make([]*histogram.Histogram, len(q.times()))
	for i := range out {
		counts[r.IntN(len(counts))] += int64(1 + r.IntN(20))
		h := &histogram.Histogram{Schema: 3, ZeroThreshold: 1e-128,
			PositiveSpans:   []histogram.Span{{Offset: -20, Length: 12}, {Offset: 3, Length: 6}},
			PositiveBuckets: make([]int64, len(counts))}
		last := int64(0)
		for b, n := range counts {
			h.PositiveBuckets[b], last = n-last, n
			h.Count += uint64(n)
			h.Sum += float64(n) * 0.25
		}
		out[i] = h
	}
	return out
}

// chunkWriter cuts samples into chunks.
type chunkWriter struct {
	out prototype
	app chunkenc.Appender
	n   int
	cut int // samples of the first chunk; 0 = a full one
}

// add appends a sample at t by add, to a chunk that empty made.
func (w *chunkWriter) add(t int64, empty func() chunkenc.Chunk, add func(chunkenc.Appender) error) (err error) {
	if w.n == 0 {
		c := empty()
		if w.app, err = c.Appender(); err != nil {
			return err
		}
		w.out.chunks = append(w.out.chunks, chunks.Meta{MinTime: t, Chunk: c})
	}
	w.out.chunks[len(w.out.chunks)-1].MaxTime = t
	w.out.samples++
	if w.n++; w.n == samplesPerChunk || int(w.out.samples) == w.cut {
		w.n = 0
	}
	return add(w.app)
}

func xor() chunkenc.Chunk { return chunkenc.NewXORChunk() }

// raw encodes the samples as a TSDB does.
func (q sequence) raw() (prototype, error) {
	w := chunkWriter{cut: q.edit.cut}
	times, kept := q.edit.apply(q.seed, q.times())
	if !q.native {
		for i, v := range pick(q.floats(), kept) {
			err := w.add(times[i], xor, func(a chunkenc.Appender) error { a.Append(0, times[i], v); return nil })
			if err != nil {
				return w.out, err
			}
		}
		return w.out, nil
	}
	for i, h := range pick(q.histograms(), kept) {
		err := w.add(times[i], func() chunkenc.Chunk { return chunkenc.NewHistogramChunk() },
			func(a chunkenc.Appender) error {
				cut, _, _, err := a.AppendHistogram(nil, 0, times[i], h, true)
				return errors.Join(err, unexpected(cut))
			})
		if err != nil {
			return w.out, err
		}
	}
	return w.out, nil
}

// unexpected is an error for a chunk that was cut where none should be: buckets only grow here.
func unexpected(cut chunkenc.Chunk) error {
	if cut != nil {
		return fmt.Errorf("a histogram does not fit into its chunk")
	}
	return nil
}

// aggregated is a downsampled chunk in the form that the library's writer takes.
type aggregated struct {
	chunkenc.Chunk        // nil: only Bytes and Encoding are called
	data           []byte // as series.AppendAggregates writes it
}

func (a aggregated) Bytes() []byte               { return a.data }
func (a aggregated) Encoding() chunkenc.Encoding { return series.EncAggregates }

// window is the samples [from, to) of a sequence that become one, at time t.
type window struct {
	t        int64
	from, to int
}

// windows groups times by a resolution in ms. A window's time is its end, or the last sample's if that is earlier.
func windows(times []int64, resolution int64) []window {
	var out []window
	for i, t := range times {
		end := min(t-t%resolution+resolution-1, times[len(times)-1])
		if len(out) == 0 || end > out[len(out)-1].t {
			out = append(out, window{t: end, from: i})
		}
		out[len(out)-1].to = i + 1
	}
	return out
}

// downsampled encodes the samples at a resolution in ms, as docs/format/bucket.md says.
func (q sequence) downsampled(resolution int64) (out prototype, err error) {
	times := q.times()
	all := windows(times, resolution)
	encode := q.floatAggregates
	if q.native {
		encode = q.histogramAggregates
	}
	for len(all) > 0 {
		part := all[:min(len(all), samplesPerChunk)]
		all = all[len(part):]
		c, err := encode(times, part)
		if err != nil {
			return out, err
		}
		out.samples += uint64(len(part))
		out.chunks = append(out.chunks, chunks.Meta{MinTime: times[part[0].from], MaxTime: part[len(part)-1].t,
			Chunk: aggregated{data: series.AppendAggregates(nil, c)}})
	}
	return out, nil
}

func (q sequence) floatAggregates(times []int64, part []window) (*series.AggrChunks, error) {
	values := q.floats()
	var into [series.NumAggregates]*chunkenc.XORChunk
	var apps [series.NumAggregates]chunkenc.Appender
	for a := range into {
		into[a] = chunkenc.NewXORChunk()
		app, err := into[a].Appender()
		if err != nil {
			return nil, err
		}
		apps[a] = app
	}
	first, last := part[0].from, part[len(part)-1]
	if times[first] < part[0].t { // the counter begins with the first raw sample
		apps[series.Counter].Append(0, times[first], values[first])
	}
	for _, w := range part {
		sum := 0.0
		for _, v := range values[w.from:w.to] {
			sum += v
		}
		apps[series.Count].Append(0, w.t, float64(w.to-w.from))
		apps[series.Sum].Append(0, w.t, sum)
		apps[series.Min].Append(0, w.t, values[w.from])
		apps[series.Max].Append(0, w.t, values[w.to-1])
		apps[series.Counter].Append(0, w.t, values[w.to-1])
	}
	apps[series.Counter].Append(0, last.t, values[last.to-1]) // and ends with the last raw value, its time repeated
	out := new(series.AggrChunks)
	for a, c := range into {
		out[a] = series.Encoded{Encoding: c.Encoding(), Data: c.Bytes()}
	}
	return out, nil
}

func (q sequence) histogramAggregates(times []int64, part []window) (*series.AggrChunks, error) {
	values := q.histograms()
	count, sums, counter := chunkenc.NewXORChunk(), chunkenc.NewFloatHistogramChunk(), chunkenc.NewFloatHistogramChunk()
	countApp, err := count.Appender()
	if err != nil {
		return nil, err
	}
	put := func(c *chunkenc.FloatHistogramChunk, t int64, h *histogram.FloatHistogram) error {
		app, err := c.Appender()
		if err != nil {
			return err
		}
		cut, _, _, err := app.AppendFloatHistogram(nil, 0, t, h, true)
		return errors.Join(err, unexpected(cut))
	}
	if first := part[0]; times[first.from] < first.t {
		err = put(counter, times[first.from], values[first.from].ToFloat(nil))
	}
	for _, w := range part {
		sum := values[w.from].ToFloat(nil)
		for _, h := range values[w.from+1 : w.to] {
			if sum, _, _, err = sum.Add(h.ToFloat(nil)); err != nil {
				return nil, err
			}
		}
		sum.CounterResetHint = histogram.GaugeType // sums of windows rise and fall
		countApp.Append(0, w.t, float64(w.to-w.from))
		err = errors.Join(err, put(sums, w.t, sum), put(counter, w.t, values[w.to-1].ToFloat(nil)))
	}
	last := part[len(part)-1]
	err = errors.Join(err, put(counter, last.t, values[last.to-1].ToFloat(nil)))
	out := new(series.AggrChunks)
	out[series.Count] = series.Encoded{Encoding: count.Encoding(), Data: count.Bytes()}
	out[series.Sum] = series.Encoded{Encoding: sums.Encoding(), Data: sums.Bytes()}
	out[series.Counter] = series.Encoded{Encoding: counter.Encoding(), Data: counter.Bytes()}
	return out, err
}
