package otlp

import (
	"context"
	"fmt"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	converter "github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// weeding finds what the converter cannot convert: it stops a metric at its first bad data point, a scope or a resource at
// its first bad attribute, and does not say which one it was. So each is converted by itself, to nowhere, and taken out when
// that fails. It is as slow as it sounds and happens only to requests with such a thing in them.
type weeding struct {
	*screening
	ctx      context.Context
	conv     *converter.PrometheusConverter
	settings converter.Settings
}

func (w *weeding) request(md pmetric.Metrics) {
	md.ResourceMetrics().RemoveIf(func(r pmetric.ResourceMetrics) bool {
		probe := pmetric.NewMetrics()
		r.Resource().CopyTo(probe.ResourceMetrics().AppendEmpty().Resource())
		if err := w.try(probe); err != nil {
			w.refuseAll("resource", r.ScopeMetrics(), err)
			return true
		}
		r.ScopeMetrics().RemoveIf(func(s pmetric.ScopeMetrics) bool {
			probe := pmetric.NewMetrics()
			s.Scope().CopyTo(probe.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Scope())
			if err := w.try(probe); err != nil {
				only := pmetric.NewScopeMetricsSlice()
				s.CopyTo(only.AppendEmpty())
				w.refuseAll("scope", only, err)
				return true
			}
			s.Metrics().RemoveIf(w.metric)
			return false
		})
		return false
	})
}

// metric weeds one metric and reports whether it is to be dropped as a whole.
func (w *weeding) metric(m pmetric.Metric) (drop bool) {
	probe := pmetric.NewMetrics()
	one := probe.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.CopyTo(one)
	if w.try(probe) == nil {
		return false
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return weedPoints(w, m, probe, m.Gauge().DataPoints(), one.Gauge().DataPoints())
	case pmetric.MetricTypeSum:
		return weedPoints(w, m, probe, m.Sum().DataPoints(), one.Sum().DataPoints())
	case pmetric.MetricTypeHistogram:
		return weedPoints(w, m, probe, m.Histogram().DataPoints(), one.Histogram().DataPoints())
	case pmetric.MetricTypeExponentialHistogram:
		return weedPoints(w, m, probe, m.ExponentialHistogram().DataPoints(), one.ExponentialHistogram().DataPoints())
	case pmetric.MetricTypeSummary:
		return weedPoints(w, m, probe, m.Summary().DataPoints(), one.Summary().DataPoints())
	}
	panic("BUG: screening lets no metric of another type through")
}

// copyable is a data point that can be copied.
type copyable[P any] interface {
	dataPoint
	CopyTo(P)
}

// weedPoints drops the points of m that cannot be converted. one is the list of points of the metric in probe.
func weedPoints[P copyable[P], L dataPoints[P]](w *weeding, m pmetric.Metric, probe pmetric.Metrics, points, one L) (drop bool) {
	var first error
	bad := 0
	points.RemoveIf(func(p P) bool {
		one.RemoveIf(func(P) bool { return true })
		p.CopyTo(one.AppendEmpty())
		err := w.try(probe)
		if err == nil {
			return false
		}
		if bad++; first == nil {
			first = err
		}
		return true
	})
	if first != nil {
		w.refuse(m, bad, first.Error())
	}
	return points.Len() == 0
}

// refuseAll counts all data points of scopes, which belong to a resource or scope that cannot be converted.
func (w *weeding) refuseAll(what string, scopes pmetric.ScopeMetricsSlice, err error) {
	n := 0
	for i := range scopes.Len() {
		metrics := scopes.At(i).Metrics()
		for j := range metrics.Len() {
			n += pointsOf(metrics.At(j))
		}
	}
	w.refused += n
	w.batch.Reject(wire.Failure{Samples: n, Reason: fmt.Sprintf("%s with %d data points: %s", what, n, err)})
}

func pointsOf(m pmetric.Metric) int {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return m.Gauge().DataPoints().Len()
	case pmetric.MetricTypeSum:
		return m.Sum().DataPoints().Len()
	case pmetric.MetricTypeHistogram:
		return m.Histogram().DataPoints().Len()
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().DataPoints().Len()
	case pmetric.MetricTypeSummary:
		return m.Summary().DataPoints().Len()
	}
	return 0
}

// try converts md to nowhere. Once the request has ended everything passes: nobody waits for the outcome.
func (w *weeding) try(md pmetric.Metrics) error {
	if w.ctx.Err() != nil {
		return nil
	}
	w.conv.Reset(nowhere{})
	_, err := w.conv.FromMetrics(w.ctx, md, w.settings)
	return err
}

// nowhere is an appender that forgets.
type nowhere struct{}

// Append forgets.
func (nowhere) Append(storage.SeriesRef, labels.Labels, int64, int64, float64, *histogram.Histogram, *histogram.FloatHistogram, storage.AOptions) (storage.SeriesRef, error) {
	return 0, nil
}

// Commit does nothing.
func (nowhere) Commit() error { return nil }

// Rollback does nothing.
func (nowhere) Rollback() error { return nil }
