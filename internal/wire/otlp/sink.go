package otlp

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// sink is the appender that the converter writes to. It remembers the metric of each series, because a histogram or
// summary of one data point is many series: so it can say how many data points the failures of series are.
type sink struct {
	batch    *wire.Batch
	families []family
	of       []int32 // by series of the batch: index in families
	lost     points  // of series that were rejected
	full     error   // why the batch takes nothing more
}

// family is a metric under the name it is stored by.
type family struct {
	name string
	typ  model.MetricType
	form familyForm
}

type familyForm uint8

const (
	single familyForm = iota // a series is a data point
	parts                    // a data point is several series
	info                     // target_info: no data point at all
)

const targetInfo = "target_info"

// Append adds a series to the batch. A series that is rejected is no error: the rest of its metric goes on.
func (s *sink) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram,
	fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	f, ok := s.family(&opts, h == nil && fh == nil)
	if !ok {
		if err := s.batch.Refused(); err != nil {
			return 0, s.stop(err)
		}
		return 0, s.stop(errs.E(errs.TooLarge, "the request has more metadata than fits into memory"))
	}
	var err error
	if h == nil && fh == nil {
		err = s.batch.AddSample(ls, wire.Sample{T: t, ST: st, V: v}, opts.Exemplars)
	} else {
		err = s.batch.AddHistogram(ls, wire.Histogram{T: t, ST: st, H: h, FH: fh}, opts.Exemplars)
	}
	switch errs.KindOf(err) {
	case errs.OK:
		s.of = append(s.of, f)
	case errs.Invalid:
		s.lose(&s.families[f], ls)
	default:
		return 0, s.stop(err)
	}
	return 0, nil
}

// stop makes the converter give up. It gives up at once when it learns that the request has ended.
func (s *sink) stop(err error) error {
	s.full = err
	return fmt.Errorf("%w: %w", context.Canceled, err)
}

// family is the index of the metric at hand. Its first series brings its metadata.
func (s *sink) family(opts *storage.AOptions, float bool) (int32, bool) {
	if n := len(s.families) - 1; n >= 0 {
		if last := &s.families[n]; last.name == opts.MetricFamilyName && last.typ == opts.Metadata.Type {
			return int32(n), true
		}
	}
	f := family{name: opts.MetricFamilyName, typ: opts.Metadata.Type}
	switch {
	case float && (f.typ == model.MetricTypeHistogram || f.typ == model.MetricTypeSummary):
		f.form = parts
	case f.name == targetInfo && opts.Metadata.Help == targetInfoHelp:
		f.form = info
	}
	s.families = append(s.families, f)
	return int32(len(s.families) - 1), s.batch.AddMetadata(wire.Metadata{
		Family: f.name, Type: string(f.typ), Help: opts.Metadata.Help, Unit: opts.Metadata.Unit,
	})
}

// targetInfoHelp tells the converter's own target_info from a metric that has this name.
const targetInfoHelp = "Target metadata"

func (s *sink) lose(f *family, ls labels.Labels) {
	s.lost.begin(f)
	ls.Range(func(l labels.Label) { s.lost.label(l.Name, l.Value) })
	s.lost.add(1)
}

// mergeDuplicates makes one series of those that the converter made several of: data points of other times, or of
// scopes and metrics that become one by name.
func (s *sink) mergeDuplicates() error {
	kept, err := s.batch.MergeDuplicates()
	for to, from := range kept {
		s.of[to] = s.of[from]
	}
	return err
}

// rejected is how many data points the lost series and those of failures belong to.
func (s *sink) rejected(failures []wire.Failure) int {
	lost, counted := s.lost.clone(), map[int]bool{}
	for i := range failures {
		at := failures[i].Series
		n := failures[i].Samples + failures[i].Histograms
		if at < 0 || n == 0 || counted[at] { // exemplars alone are no data point
			continue
		}
		counted[at] = true
		lost.begin(&s.families[s.of[at]])
		for rest := s.batch.Series[at].Labels(); len(rest) > 0; {
			var name, value string
			name, value, rest = wire.NextLabel(rest)
			lost.label(name, value)
		}
		lost.add(n)
	}
	return lost.total
}

// points counts the data points that are lost with samples of series. A data point of a histogram or summary is one
// sample in each of several series. The number of lost points is the number of lost samples in the series that lost the
// most.
type points struct {
	total   int
	samples map[uint64]int // lost, by series
	most    map[uint64]int // of these, by what the series of one data point have in common

	family *family
	common []byte // the labels that they have in common
	own    []byte // the others
}

// seed makes the keys of points differ from process to process.
var seed = maphash.MakeSeed()

func (p *points) clone() *points {
	return &points{total: p.total, samples: maps.Clone(p.samples), most: maps.Clone(p.most)}
}

// begin starts a series of f; label is called with each of its labels, then add.
func (p *points) begin(f *family) {
	p.family = f
	p.common = append(append(p.common[:0], f.name...), wire.Sep)
	p.own = p.own[:0]
}

func (p *points) label(name, value string) {
	to := &p.common
	ofPart := p.family.form == parts && (name == model.BucketLabel || name == model.QuantileLabel)
	if name == model.MetricNameLabel || ofPart {
		to = &p.own
	}
	*to = append(append(*to, name...), wire.Sep)
	*to = append(append(*to, value...), wire.Sep)
}

// add counts n samples of the series as lost.
func (p *points) add(n int) {
	if p.family.form == info {
		return
	}
	if p.samples == nil {
		p.samples, p.most = map[uint64]int{}, map[uint64]int{}
	}
	common := maphash.Bytes(seed, p.common)
	series := maphash.Bytes(seed, append(p.common, p.own...))
	p.samples[series] += n
	if lost := p.samples[series]; lost > p.most[common] {
		p.total += lost - p.most[common]
		p.most[common] = lost
	}
}

// Commit does nothing: the batch is the outcome.
func (s *sink) Commit() error { return nil }

// Rollback does nothing: a batch that is not wanted is released.
func (s *sink) Rollback() error { return nil }

var _ storage.AppenderV2 = (*sink)(nil)
