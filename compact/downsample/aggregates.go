package downsample

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/xor"
)

var (
	errAligned = errors.New("the aggregates have different timestamps")
	errMissing = errors.New("an aggregate is missing")
)

// input is memory for what is read.
type input struct {
	count, value, min, max, total xor.Samples
	sum, counter                  histogramReader
	integers                      integers
}

// aggregates adds a downsampled chunk.
func (s *Stage) aggregates(c *merge.Chunk) error {
	parts, err := series.DecodeAggregates(c.Data, series.EveryAggregate)
	if err != nil {
		return err
	}
	in := &s.input
	if err := readPart(&in.count, parts[series.Count]); err != nil {
		return fmt.Errorf("count: %w", err)
	}
	for _, t := range in.count.T {
		if t < -farthest || t > farthest {
			return fmt.Errorf("times beyond %d", int64(farthest))
		}
	}
	switch parts[series.Sum].Encoding {
	case chunkenc.EncXOR:
		return s.floatAggregates(parts)
	case chunkenc.EncFloatHistogram, chunkenc.EncHistogram:
		return s.histogramAggregates(parts)
	}
	return errMissing
}

// readPart reads an aggregate that must be there, and be of floats.
func readPart(s *xor.Samples, e series.Encoded) error {
	switch e.Encoding {
	case chunkenc.EncNone:
		return errMissing
	case chunkenc.EncXOR:
		s.Reset()
		return s.Append(e.Data)
	}
	return fmt.Errorf("encoding %d", e.Encoding)
}

// floatAggregates adds a downsampled chunk of floats, whose counts were read.
func (s *Stage) floatAggregates(parts *series.AggrChunks) error {
	in := &s.input
	for _, part := range []struct {
		a  series.Aggregate
		to *xor.Samples
	}{{series.Sum, &in.value}, {series.Min, &in.min}, {series.Max, &in.max}, {series.Counter, &in.total}} {
		err := readPart(part.to, parts[part.a])
		switch {
		case part.a == series.Counter && errors.Is(err, errMissing): // Thanos leaves one out that has NaNs only
			part.to.Reset()
		case err != nil:
			return fmt.Errorf("aggregate %d: %w", part.a, err)
		case part.a != series.Counter && len(part.to.T) != len(in.count.T):
			return errAligned
		}
	}
	f := &s.floats
	next := 0 // in.total
	for i, t := range in.count.T {
		switch {
		case t <= s.lastT:
			return outOfPlace(t, s.lastT)
		case in.value.T[i] != t || in.min.T[i] != t || in.max.T[i] != t:
			return errAligned
		case !(in.count.V[i] > 0):
			return fmt.Errorf("a count of %v", in.count.V[i])
		}
		s.lastT = t
		if t > f.windowEnd {
			if err := s.turnFloats(t); err != nil {
				return err
			}
		}
		for ; next < len(in.total.T) && in.total.T[next] <= t; next++ {
			f.count(in.total.T[next], in.total.V[next])
		}
		f.addWindow(t, &floatWindow{count: in.count.V[i], sum: in.value.V[i], min: in.min.V[i], max: in.max.V[i]})
	}
	return nil
}

// histogramAggregates adds a downsampled chunk of histograms, whose counts were read.
//
// The counter of a chunk of Hearth's has raw values, and no resets. One of Thanos's has totals, which begin with a
// raw value and leave out resets within the chunk, so that the next chunk may begin far below. Nothing tells
// whether the counter was reset there. The output is cut there, and has totals only, too: readers know what to make
// of it.
func (s *Stage) histogramAggregates(parts *series.AggrChunks) error {
	in, b := &s.input, &s.histograms
	counter := parts[series.Counter]
	if counter.Encoding != chunkenc.EncHistogram && counter.Encoding != chunkenc.EncFloatHistogram {
		return errMissing
	}
	if err := in.sum.reset(parts[series.Sum].Encoding, parts[series.Sum].Data); err != nil {
		return fmt.Errorf("sum: %w", err)
	}
	if err := in.counter.reset(counter.Encoding, counter.Data); err != nil {
		return fmt.Errorf("counter: %w", err)
	}
	first, more := true, in.counter.next()
	flags := counter.Data[series.ResetFlags] & chunkenc.CounterResetHeaderMask
	raw := chunkenc.CounterResetHeader(flags) != chunkenc.NotCounterReset
	for i, t := range in.count.T {
		switch {
		case t <= s.lastT:
			return outOfPlace(t, s.lastT)
		case !in.sum.next() || in.sum.t != t || !more || in.counter.t > t:
			return errors.Join(errAligned, in.sum.it.Err(), in.counter.it.Err())
		case !(in.count.V[i] > 0):
			return fmt.Errorf("a count of %v", in.count.V[i])
		}
		s.lastT = t
		if err := s.turnHistograms(t, in.counter.h, first, raw); err != nil {
			return err
		}
		for more && in.counter.t <= t {
			b.counter(in.counter.t, in.counter.h, first && raw)
			first, more = false, in.counter.next()
		}
		if err := b.add(t, in.count.V[i], in.sum.h); err != nil {
			return err
		}
	}
	return errors.Join(in.sum.it.Err(), in.counter.it.Err())
}

// floatWindows adds a chunk of finer windows, which was just closed. It does what floatAggregates does with what was
// written of them.
func (s *Stage) floatWindows(in *floatBatch) error {
	f, c := &s.floats, &in.counter
	for i := range in.windows {
		w := &in.windows[i]
		if err := s.turnWindow(w.t); err != nil {
			return err
		}
		if w.t > f.windowEnd {
			if err := s.turnFloats(w.t); err != nil {
				return err
			}
		}
		if c.counted && i == 0 {
			f.count(c.firstT, c.first)
		}
		if c.counted {
			f.count(w.t, w.counter)
		}
		if c.counted && i == len(in.windows)-1 {
			f.count(w.t, c.last)
		}
		f.addWindow(w.t, w)
	}
	return nil
}

// turnWindow goes to a finer window with the timestamp t.
func (s *Stage) turnWindow(t int64) error {
	if t <= s.lastT {
		return outOfPlace(t, s.lastT)
	}
	if t > farthest {
		return fmt.Errorf("times beyond %d", int64(farthest))
	}
	s.lastT = t
	return nil
}

// histogramWindows adds a chunk of finer windows, which was just closed. It does what histogramAggregates does with
// what was written of them.
func (s *Stage) histogramWindows(in *histogramBatch) error {
	b, counters := &s.histograms, in.closed.counters
	raw := in.header != chunkenc.NotCounterReset
	hint := histogram.UnknownCounterReset
	if in.header == chunkenc.GaugeType {
		hint = histogram.GaugeType
	}
	first := true
	for i, sum := range in.closed.sums {
		if err := s.turnWindow(sum.t); err != nil {
			return err
		}
		if len(counters) == 0 || counters[0].t > sum.t {
			return errAligned
		}
		counters[0].h.CounterResetHint = hint
		if err := s.turnHistograms(sum.t, counters[0].h, first, raw); err != nil {
			return err
		}
		for len(counters) > 0 && counters[0].t <= sum.t {
			counters[0].h.CounterResetHint = hint
			b.counter(counters[0].t, counters[0].h, first && raw)
			first, counters = false, counters[1:]
		}
		if err := b.add(sum.t, in.windows[i].count, sum.h); err != nil {
			return err
		}
	}
	return nil
}
