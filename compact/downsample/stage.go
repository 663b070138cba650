package downsample

import (
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block/merge"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// Stats count what a Stage has passed on.
type Stats struct {
	Series, Chunks uint64
	// FloatSamples and HistogramSamples are windows: a sample of the count aggregate each.
	FloatSamples, HistogramSamples uint64
}

// Stage is a merge.Sink that downsamples series and hands them to another Sink. One goroutine uses it.
type Stage struct {
	next    merge.Sink
	coarser *Stage // gets the windows, too; nil = there is none
	symbols merge.Symbols

	floats     floatBatch
	histograms histogramBatch
	lastT      int64 // the time of the last sample of the series
	input      input
	out        output
}

// New returns a Stage that makes windows of resolution ms: FiveMinutes or Hour. It takes raw chunks, and an hour's also
// downsampled ones of five minutes. Begin fails for another resolution.
func New(resolution int64, next merge.Sink) *Stage {
	s := &Stage{next: next}
	s.floats.resolution, s.histograms.resolution = resolution, resolution
	return s
}

// NewWith is New with a coarser Stage, which makes its windows of those of this one: what it would make of the chunks
// that next gets, without reading them. Only this Stage uses it from then on.
func NewWith(resolution int64, next merge.Sink, coarser *Stage) *Stage {
	s := New(resolution, next)
	s.coarser = coarser
	return s
}

// Stats are those of all series so far.
func (s *Stage) Stats() Stats { return s.out.stats }

// Begin implements merge.Sink.
func (s *Stage) Begin(symbols merge.Symbols) error {
	if r := s.floats.resolution; r != FiveMinutes && r != Hour {
		return errs.E(errs.Unsupported, "downsample to windows of %d ms: there are those of %d and %d", r, FiveMinutes, Hour)
	}
	s.symbols = symbols
	if s.coarser != nil {
		if err := s.coarser.Begin(symbols); err != nil {
			return err
		}
	}
	return s.next.Begin(symbols)
}

// End implements merge.Sink.
func (s *Stage) End() error {
	if s.coarser != nil {
		if err := s.coarser.End(); err != nil {
			return err
		}
	}
	return s.next.End()
}

// Add implements merge.Sink. A series that has nothing to be downsampled is not handed on. What is wrong with a
// series is an error of the kind Invalid, which names it.
func (s *Stage) Add(in *merge.Series) error {
	s.fresh()
	for i := range in.Chunks {
		c := &in.Chunks[i]
		if err := s.chunk(c); err != nil {
			return errs.E(errs.Invalid, "downsample %s, the chunk from %d to %d: %w", s.name(in), c.MinTime, c.MaxTime, err)
		}
	}
	return s.pass(in)
}

// fresh begins a series.
func (s *Stage) fresh() {
	s.out.reset()
	s.floats.drop()
	s.histograms.drop()
	s.lastT = none
	if s.coarser != nil {
		s.coarser.fresh()
	}
}

// pass ends a series and hands it on.
func (s *Stage) pass(in *merge.Series) error {
	if err := s.close(none); err != nil {
		return errs.E(errs.Invalid, "downsample %s: %w", s.name(in), err)
	}
	if s.coarser != nil {
		if err := s.coarser.pass(in); err != nil {
			return err
		}
	}
	if len(s.out.chunks) == 0 {
		return nil
	}
	return s.next.Add(s.out.series(in.Symbols))
}

// chunk adds all of c.
func (s *Stage) chunk(c *merge.Chunk) error {
	if c.MinTime < -farthest || c.MaxTime > farthest {
		return fmt.Errorf("times beyond %d", int64(farthest))
	}
	switch enc := chunkenc.Encoding(c.Encoding); {
	case enc == chunkenc.EncXOR:
		return s.rawFloats(c)
	case enc == chunkenc.EncHistogram || enc == chunkenc.EncFloatHistogram:
		return s.rawHistograms(c)
	case enc == series.EncAggregates && s.floats.resolution == Hour:
		return s.aggregates(c)
	default:
		return fmt.Errorf("encoding %d cannot be downsampled to %d ms", enc, s.floats.resolution)
	}
}

// close ends the chunk that is open. next is the time of the next sample of the series, or none.
func (s *Stage) close(next int64) error {
	if err := s.closeFloats(next); err != nil {
		return err
	}
	return s.closeHistograms(next)
}

// closeFloats is close for a chunk of floats.
func (s *Stage) closeFloats(next int64) (err error) {
	if !s.floats.isOpen() {
		return nil
	}
	s.floats.close(next, &s.out)
	if s.coarser != nil {
		err = s.coarser.floatWindows(&s.floats)
	}
	s.floats.drop()
	return err
}

// closeHistograms is close for a chunk of histograms.
func (s *Stage) closeHistograms(next int64) error {
	b := &s.histograms
	if !b.isOpen() {
		return nil
	}
	err := b.close(next, &s.out)
	switch {
	case err != nil || s.coarser == nil:
	case b.closed.alike:
		err = s.coarser.histogramWindows(b)
	default:
		err = s.coarser.chunk(s.out.last())
	}
	b.end()
	return err
}

// name is the series as errors show it.
func (s *Stage) name(in *merge.Series) string {
	var b strings.Builder
	for i := 0; i+1 < len(in.Symbols); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s=%q", s.symbols.At(in.Symbols[i]), s.symbols.At(in.Symbols[i+1]))
	}
	return "{" + b.String() + "}"
}

// output collects the chunks of one series.
type output struct {
	chunks []merge.Chunk
	ends   []int  // where the data of each chunk end in data
	data   []byte // of all chunks
	result merge.Series
	stats  Stats
}

func (o *output) reset() { o.chunks, o.ends, o.data = o.chunks[:0], o.ends[:0], o.data[:0] }

// add appends a chunk. It keeps nothing of parts.
func (o *output) add(mint, maxt int64, parts *series.AggrChunks) {
	o.data = series.AppendAggregates(o.data, parts)
	o.chunks = append(o.chunks, merge.Chunk{MinTime: mint, MaxTime: maxt, Encoding: byte(series.EncAggregates)})
	o.ends = append(o.ends, len(o.data))
}

// last is the last chunk that was added, valid until the next one is.
func (o *output) last() *merge.Chunk {
	n := len(o.ends) - 1
	from := 0
	if n > 0 {
		from = o.ends[n-1]
	}
	c := o.chunks[n]
	c.Data = o.data[from:]
	return &c
}

// series is the whole, valid until reset.
func (o *output) series(symbols []uint32) *merge.Series {
	from := 0
	for i, end := range o.ends {
		o.chunks[i].Data = o.data[from:end:end]
		from = end
	}
	o.stats.Series++
	o.stats.Chunks += uint64(len(o.chunks))
	o.result = merge.Series{Symbols: symbols, Chunks: o.chunks}
	return &o.result
}
