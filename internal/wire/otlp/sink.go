package otlp

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// sink is the appender that the converter writes to. It remembers of what metric each series is, to be able to tell how
// many data points the failures of series are: a histogram or summary of one data point is many series.
type sink struct {
	batch    *wire.Batch
	families []family
	of       []int32             // by series of the batch: index in families
	lost     map[uint64]struct{} // data points with a rejected series, by pointKey
	full     error               // why the batch takes nothing more
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
func (s *sink) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
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
		s.lose(&s.families[f], ls, t)
	default:
		return 0, s.stop(err)
	}
	return 0, nil
}

// stop makes the converter give up: it does at once when it is told that the request has ended.
func (s *sink) stop(err error) error {
	s.full = err
	return fmt.Errorf("%w: %w", context.Canceled, err)
}

// family is the index of the metric at hand. Its first series brings its metadata.
func (s *sink) family(opts *storage.AOptions, float bool) (int32, bool) {
	if n := len(s.families) - 1; n >= 0 && s.families[n].name == opts.MetricFamilyName && s.families[n].typ == opts.Metadata.Type {
		return int32(n), true
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

func (s *sink) lose(f *family, ls labels.Labels, t int64) {
	if f.form == info {
		return
	}
	if s.lost == nil {
		s.lost = map[uint64]struct{}{}
	}
	var key pointKey
	key.begin(f, t)
	ls.Range(func(l labels.Label) { key.label(f, l.Name, l.Value) })
	s.lost[key.sum()] = struct{}{}
}

// rejected is how many data points the lost series and those of failures belong to.
func (s *sink) rejected(failures []wire.Failure) int {
	points := make(map[uint64]struct{}, len(s.lost)+len(failures))
	for k := range s.lost {
		points[k] = struct{}{}
	}
	var key pointKey
	for i := range failures {
		at := failures[i].Series
		if at < 0 || failures[i].Samples+failures[i].Histograms == 0 { // exemplars alone are no data point
			continue
		}
		f, series := &s.families[s.of[at]], &s.batch.Series[at]
		if f.form == info {
			continue
		}
		key.begin(f, timeOf(series))
		for rest := series.Labels(); len(rest) > 0; {
			var name, value string
			name, value, rest = wire.NextLabel(rest)
			key.label(f, name, value)
		}
		points[key.sum()] = struct{}{}
	}
	return len(points)
}

func timeOf(s *wire.Series) int64 {
	if len(s.Histograms) > 0 {
		return s.Histograms[0].T
	}
	return s.Samples[0].T
}

// pointKey identifies a data point: its metric, attributes and time.
type pointKey struct{ buf []byte }

func (k *pointKey) begin(f *family, t int64) {
	k.buf = binary.BigEndian.AppendUint64(k.buf[:0], uint64(t))
	k.buf = append(append(k.buf, f.name...), wire.Sep)
}

// label adds a label, but for those in which the series of one data point differ.
func (k *pointKey) label(f *family, name, value string) {
	if name == model.MetricNameLabel || f.form == parts && (name == model.BucketLabel || name == model.QuantileLabel) {
		return
	}
	k.buf = append(append(k.buf, name...), wire.Sep)
	k.buf = append(append(k.buf, value...), wire.Sep)
}

func (k *pointKey) sum() uint64 { return xxhash.Sum64(k.buf) }

// Commit does nothing: the batch is the outcome.
func (s *sink) Commit() error { return nil }

// Rollback does nothing: a batch that is not wanted is released.
func (s *sink) Rollback() error { return nil }

var _ storage.AppenderV2 = (*sink)(nil)
