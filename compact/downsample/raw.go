package downsample

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block/merge"
)

// rawFloats adds a chunk of floats. Stale markers and other NaNs are left out.
func (s *Stage) rawFloats(c *merge.Chunk) error {
	in := &s.input.value
	in.Reset()
	if err := in.Append(c.Data); err != nil {
		return err
	}
	f := &s.floats
	for i := 0; i < len(in.T); {
		t := in.T[i]
		if t <= s.lastT || t < c.MinTime || t > c.MaxTime {
			return outOfPlace(t, s.lastT)
		}
		if math.IsNaN(in.V[i]) {
			s.lastT = t
			i++
			continue
		}
		if t > f.windowEnd {
			if err := s.turnFloats(t); err != nil {
				return err
			}
		}
		end := min(f.windowEnd, c.MaxTime)
		n := i + 1
		for n < len(in.T) && in.T[n] <= end && in.T[n] > in.T[n-1] {
			n++
		}
		s.lastT = in.T[n-1]
		f.addAll(in.T[i:n], in.V[i:n])
		i = n
	}
	return nil
}

func outOfPlace(t, last int64) error {
	return fmt.Errorf("a sample at %d, which is outside of the chunk or not later than the one before it at %d", t, last)
}

// turnFloats opens the window of a float at t, in the chunk that is open or in another one.
func (s *Stage) turnFloats(t int64) error {
	f := &s.floats
	if s.histograms.isOpen() {
		if err := s.close(t); err != nil {
			return err
		}
		s.histograms.drop()
	}
	if f.isOpen() && t > f.chunkEnd {
		if err := s.closeFloats(t); err != nil {
			return err
		}
	}
	f.next(t)
	return nil
}

// rawHistograms adds a chunk of histograms, integer or float. Stale markers are left out.
func (s *Stage) rawHistograms(c *merge.Chunk) error {
	from := s.lastT
	had := false // samples of the chunk are in already
	if chunkenc.Encoding(c.Encoding) == chunkenc.EncHistogram && s.input.integers.begin(c.Data) {
		whole, err := s.rawIntegers(c)
		if whole || err != nil {
			return err
		}
		from, had = s.lastT, s.lastT != from
	}
	r := &s.input.sum
	if err := r.reset(chunkenc.Encoding(c.Encoding), c.Data); err != nil {
		return err
	}
	first := !had
	for r.next() {
		switch {
		case had && r.t <= from:
			continue
		case r.t <= s.lastT || r.t < c.MinTime || r.t > c.MaxTime:
			return outOfPlace(r.t, s.lastT)
		}
		s.lastT = r.t
		if err := s.turnHistograms(r.t, r.h, first, true); err != nil {
			return err
		}
		s.histograms.counter(r.t, r.h, true)
		if err := s.histograms.add(r.t, 1, r.h); err != nil {
			return err
		}
		first = false
	}
	return r.it.Err()
}

// turnHistograms opens the window of t, in the chunk that is open or in another one. h is the next value of the
// counter. first = it is the first one of an input chunk: within a chunk there are no resets, and one kind of
// buckets. raw = it is a raw value, so there was a reset if it is below the value before it.
func (s *Stage) turnHistograms(t int64, h *histogram.FloatHistogram, first, raw bool) error {
	b := &s.histograms
	if err := s.closeFloats(t); err != nil {
		return err
	}
	header := chunkenc.UnknownCounterReset
	if first {
		same, reset := b.continues(h)
		if reset && raw {
			header = chunkenc.CounterReset
		}
		if b.isOpen() && (!same || reset) {
			if err := s.closeHistograms(t); err != nil {
				return err
			}
		}
	}
	if b.isOpen() && t > b.chunkEnd {
		if err := s.closeHistograms(t); err != nil {
			return err
		}
	}
	if t > b.windowEnd {
		b.next(t, h, header)
	}
	if !raw && b.header != chunkenc.GaugeType {
		b.header = chunkenc.NotCounterReset // as Thanos has it: a mark of totals (series.counterIterator)
	}
	return nil
}

// histogramReader reads a chunk of histograms, without stale markers.
type histogramReader struct {
	layout layout
	chunk  chunkenc.Chunk
	it     chunkenc.Iterator
	t      int64
	h      *histogram.FloatHistogram // valid until next
}

func (r *histogramReader) reset(enc chunkenc.Encoding, data []byte) error {
	if len(data) < histogramHeader {
		return errCut
	}
	if binary.BigEndian.Uint16(data) > 0 {
		if _, err := r.layout.read(data); err != nil {
			return err
		}
	}
	if r.chunk != nil && r.chunk.Encoding() == enc {
		r.chunk.Reset(data)
	} else {
		chunk, err := chunkenc.FromData(enc, data)
		if err != nil {
			return err
		}
		r.chunk, r.it = chunk, nil
	}
	r.it = r.chunk.Iterator(r.it)
	return nil
}

func (r *histogramReader) next() bool {
	for r.it.Next() != chunkenc.ValNone {
		var stale *histogram.FloatHistogram
		if r.h == nil {
			r.h = new(histogram.FloatHistogram)
		}
		if r.t, stale = r.it.AtFloatHistogram(r.h); !value.IsStaleNaN(stale.Sum) {
			return true
		}
	}
	return false
}
