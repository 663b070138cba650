package downsample

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/xor"
)

// maxRun bounds the samples of a run. With the bounds of numbers, no sum of a run overflows, and those of a window of
// 1,024 samples can be float64.
const (
	maxRun    = 256
	maxNumber = 1 << 43
	maxStep   = 1 << 36
)

// integers reads a chunk of integer histograms by runs: consecutive samples, of which only the sum and the last value
// are wanted.
//
// A chunk has of each count how much its growth changed since the sample before, and most of these numbers are 0: a
// bucket that gets nothing does not change, nor does one that grows evenly. So a histogram is not made for each sample.
// A change d that comes after the first q of the n samples of a run adds (n-q)d to the last value, and
// (n-q)(n-q+1)/2 d to the sum. Both follow from the sums of d, dq and dq² over the run.
//
// Numbers that are too large for that, and stale markers, end it. The library reads the rest of the chunk then.
type integers struct {
	layout layout
	gauge  bool
	bits   xor.BitReader
	left   int // samples that were not read yet
	t      int64
	tStep  int64
	first  bool // no sample was read yet

	sum       xor.Float // the last value of Sum that was read
	added     float64   // that of the last sample of the run
	counts    []count   // of all observations, of the zero bucket, of each bucket less that of the one before it
	values    []int64   // of counts, for a moment
	positives int       // how many of the buckets are positive ones
	n         int64     // samples of the run
	wide      int64     // has a high bit for each one that a change of the run has

	known *lowest // of the layout that was looked at last; nil = none was
	fits  bool    // what was found
	last  histogram.FloatHistogram
	total histogram.FloatHistogram
}

// count is a count of histograms.
type count struct {
	last, step int64 // its value before the run, and how much it had grown since the sample before
	sum        int64 // over the last run
	d, dq, dqq int64
}

// lowest is what tells whether all buckets of a layout are above its zero bucket.
type lowest struct {
	threshold          float64
	schema             int32
	positive, negative int64 // the numbers of the first buckets; none = there is no bucket
}

// begin reports whether the chunk can be read. Then the layout and the time of its first sample were read.
func (r *integers) begin(data []byte) bool {
	var err error
	if r.bits, err = r.layout.read(data); err != nil {
		return false
	}
	l := &r.layout
	if r.left = int(binary.BigEndian.Uint16(data)); r.left == 0 || !histogram.IsExponentialSchema(l.schema) ||
		l.schema > histogram.ExponentialSchemaMax || !r.fit() {
		return false
	}
	flags := data[series.ResetFlags] & chunkenc.CounterResetHeaderMask
	r.gauge = chunkenc.CounterResetHeader(flags) == chunkenc.GaugeType
	r.positives = lengthOf(l.positive)
	n := 2 + r.positives + lengthOf(l.negative)
	if cap(r.counts) < n {
		r.counts = make([]count, n)
	}
	r.counts = r.counts[:n]
	clear(r.counts)
	r.n, r.wide, r.tStep = 0, 0, 0
	r.first, r.t = true, r.bits.SignedVarbit()
	return true
}

// lengthOf is how many buckets spans have.
func lengthOf(spans []histogram.Span) (n int) {
	for _, s := range spans {
		n += int(s.Length)
	}
	return n
}

// fit reports whether all buckets lie above the zero bucket. The library does not add others up.
func (r *integers) fit() bool {
	l := &r.layout
	k := lowest{l.threshold, l.schema, none, none}
	h := histogram.FloatHistogram{Schema: l.schema, ZeroThreshold: l.threshold}
	if len(l.positive) > 0 {
		k.positive = int64(l.positive[0].Offset)
	}
	if len(l.negative) > 0 {
		k.negative = int64(l.negative[0].Offset)
	}
	if r.known != nil && *r.known == k {
		return r.fits
	}
	r.known, r.fits = &k, true
	one := []float64{1}
	if k.positive != none {
		h.PositiveSpans, h.PositiveBuckets = []histogram.Span{{Offset: int32(k.positive), Length: 1}}, one
		it := h.PositiveBucketIterator()
		r.fits = it.Next() && it.At().Upper > l.threshold
	}
	if k.negative != none {
		h.NegativeSpans, h.NegativeBuckets = []histogram.Span{{Offset: int32(k.negative), Length: 1}}, one
		it := h.NegativeBucketIterator()
		r.fits = r.fits && it.Next() && it.At().Lower < -l.threshold
	}
	return r.fits
}

// take adds the next sample, whose time is t, to the run. It reports false for a stale marker, which is not added.
func (r *integers) take() bool {
	if r.first {
		return r.takeFirst()
	}
	c, z := r.bits.SignedVarbit(), r.bits.SignedVarbit()
	if v := r.bits.Float(&r.sum); value.IsStaleNaN(v) {
		return false
	} else {
		r.added = v
	}
	r.change(0, c)
	r.change(1, z)
	for i := 2; i < len(r.counts); i++ {
		if i += r.bits.Zeros(len(r.counts) - i); i < len(r.counts) {
			r.change(i, r.bits.SignedVarbit())
		}
	}
	r.n++
	return true
}

func (r *integers) takeFirst() bool {
	r.first = false
	c, z := r.bits.Varbit(), r.bits.Varbit()
	r.sum = xor.NewFloat(r.bits.Read(64))
	if r.added = r.sum.Value(); value.IsStaleNaN(r.added) {
		return false
	}
	r.change(0, int64(min(c, math.MaxInt64)))
	r.change(1, int64(min(z, math.MaxInt64)))
	for i := 2; i < len(r.counts); i++ {
		r.change(i, r.bits.SignedVarbit())
	}
	r.n = 1
	return true
}

// change takes in that the growth of a count changed by d.
func (r *integers) change(i int, d int64) {
	if d == 0 {
		return
	}
	c := &r.counts[i]
	c.d += d
	dq := d * r.n
	c.dq += dq
	c.dqq += dq * r.n
	r.wide |= d ^ d>>63
}

// next goes to the time of the next sample. It reports false at the end.
func (r *integers) next() bool {
	if r.left--; r.left <= 0 || r.bits.Short() {
		return false
	}
	r.tStep += r.bits.SignedVarbit()
	r.t += r.tStep
	return true
}

// end ends the run: r.last is the last value, and r.total the sum except its Sum, until the next end. It reports false
// if numbers are too large to know them. start = the run is the first sample of the chunk, which has counts as they
// are, and no growth.
func (r *integers) end(start bool) bool {
	n := r.n
	fits := r.wide < maxStep || start
	for i := range r.counts {
		c := &r.counts[i]
		c.sum = n*c.last + n*(n+1)/2*c.step + ((n*n+n)*c.d-(2*n+1)*c.dq+c.dqq)/2
		c.last += n*(c.step+c.d) - c.dq
		if c.step += c.d; start {
			c.step = 0
		}
		c.d, c.dq, c.dqq = 0, 0, 0
		fits = fits && c.last < maxNumber && c.last > -maxNumber && c.step < maxStep && c.step > -maxStep
	}
	r.n, r.wide = 0, 0
	if !fits {
		return false
	}
	r.fill(&r.last, false)
	r.fill(&r.total, true)
	r.last.Sum = r.added
	r.last.CounterResetHint = histogram.NotCounterReset
	switch {
	case r.gauge:
		r.last.CounterResetHint = histogram.GaugeType
	case start:
		r.last.CounterResetHint = histogram.UnknownCounterReset
	}
	return true
}

// fill makes h of the last values of counts, or of their sums.
func (r *integers) fill(h *histogram.FloatHistogram, sums bool) {
	l := &r.layout
	r.values = r.values[:0]
	for i := range r.counts {
		if c := &r.counts[i]; sums {
			r.values = append(r.values, c.sum)
		} else {
			r.values = append(r.values, c.last)
		}
	}
	h.Schema, h.ZeroThreshold = l.schema, l.threshold
	h.Count, h.ZeroCount = float64(r.values[0]), float64(r.values[1])
	h.PositiveSpans = append(h.PositiveSpans[:0], l.positive...)
	h.NegativeSpans = append(h.NegativeSpans[:0], l.negative...)
	left := r.values[2:]
	h.PositiveBuckets = buckets(h.PositiveBuckets[:0], left[:r.positives])
	h.NegativeBuckets = buckets(h.NegativeBuckets[:0], left[r.positives:])
}

// buckets appends the counts of buckets to dst, of which each but the first is given less the one before it.
func buckets(dst []float64, deltas []int64) []float64 {
	sum := int64(0)
	for _, d := range deltas {
		sum += d
		dst = append(dst, float64(sum))
	}
	return dst
}

// rawIntegers adds the chunk that s.input.integers has begun, or its first samples: then whole is false.
func (s *Stage) rawIntegers(c *merge.Chunk) (whole bool, err error) {
	r, b := &s.input.integers, &s.histograms
	last, sum := s.lastT, 0.0 // of the run: the time of its last sample, and the sum of Sum, as the window has it
	flush := func() (bool, error) {
		n := r.n
		if n == 0 {
			return true, nil
		}
		if !r.end(false) {
			return false, nil
		}
		s.lastT = last
		b.counter(last, &r.last, true)
		r.total.Sum = sum
		return true, b.addRun(last, float64(n), &r.total)
	}
	for more := true; more; more = r.next() {
		if r.bits.Short() {
			return false, errCut
		}
		if r.t <= last || r.t < c.MinTime || r.t > c.MaxTime {
			return false, outOfPlace(r.t, last)
		}
		if r.n == maxRun || r.n > 0 && r.t > b.windowEnd {
			if fits, err := flush(); !fits || err != nil {
				return false, err
			}
		}
		// A chunk of windows begins with the first value, and what was before a chunk of samples may have been reset.
		alone := r.first || !b.isOpen() || r.t > b.chunkEnd
		start := r.first
		if alone && r.n > 0 {
			return false, nil // cannot be: a chunk ends with a window
		}
		if !r.take() {
			_, err := flush()
			return false, err
		}
		last = r.t
		if alone {
			if !r.end(start) {
				return false, nil
			}
			s.lastT = last
			if err := s.turnHistograms(last, &r.last, start, true); err != nil {
				return false, err
			}
			b.counter(last, &r.last, true)
			if err := b.add(last, 1, &r.last); err != nil {
				return false, err
			}
			continue
		}
		if r.n == 1 {
			if r.t > b.windowEnd {
				b.next(r.t, nil, chunkenc.UnknownCounterReset)
			}
			sum = b.sumBefore()
		}
		sum += r.added
	}
	if r.bits.Short() {
		return false, errCut
	}
	return flush()
}
