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

// unconvertible finds what the converter cannot convert. The converter stops a metric at its first bad data point, and
// a scope or a resource at its first bad attribute, and does not say which it was. So each is converted alone, its
// output is thrown away, and it is taken out when that fails. This is slow, and happens only for requests with such a
// thing in them.
type unconvertible struct {
	*filter
	ctx      context.Context
	conv     *converter.PrometheusConverter
	settings converter.Settings
}

// request takes out of md what cannot be converted.
func (w *unconvertible) request(md pmetric.Metrics) {
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

// metric filters one metric and reports whether all of it is to be dropped.
func (w *unconvertible) metric(m pmetric.Metric) (drop bool) {
	probe := pmetric.NewMetrics()
	one := probe.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.CopyTo(one)
	if w.try(probe) == nil {
		return false
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return dropUnconvertible(w, m, probe, m.Gauge().DataPoints(), one.Gauge().DataPoints())
	case pmetric.MetricTypeSum:
		return dropUnconvertible(w, m, probe, m.Sum().DataPoints(), one.Sum().DataPoints())
	case pmetric.MetricTypeHistogram:
		return dropUnconvertible(w, m, probe, m.Histogram().DataPoints(), one.Histogram().DataPoints())
	case pmetric.MetricTypeExponentialHistogram:
		return dropUnconvertible(w, m, probe, m.ExponentialHistogram().DataPoints(), one.ExponentialHistogram().DataPoints())
	case pmetric.MetricTypeSummary:
		return dropUnconvertible(w, m, probe, m.Summary().DataPoints(), one.Summary().DataPoints())
	}
	panic("BUG: filter lets no metric of another type through")
}

// copyable is a data point that can be copied.
type copyable[P any] interface {
	dataPoint
	CopyTo(P)
}

// dropUnconvertible drops the points of m that cannot be converted. one is the list of points of the metric in probe.
func dropUnconvertible[P copyable[P], L dataPoints[P]](w *unconvertible, m pmetric.Metric, probe pmetric.Metrics,
	points, one L) (drop bool) {
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
func (w *unconvertible) refuseAll(what string, scopes pmetric.ScopeMetricsSlice, err error) {
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

// pointsOf is how many data points m has.
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

// try converts md and throws the output away. Once the request has ended everything passes: nobody waits for the
// outcome.
func (w *unconvertible) try(md pmetric.Metrics) error {
	if w.ctx.Err() != nil {
		return nil
	}
	w.conv.Reset(nowhere{})
	_, err := w.conv.FromMetrics(w.ctx, md, w.settings)
	return err
}

// nowhere is an appender that keeps nothing.
type nowhere struct{}

// Append does nothing.
func (nowhere) Append(storage.SeriesRef, labels.Labels, int64, int64, float64, *histogram.Histogram,
	*histogram.FloatHistogram, storage.AOptions) (storage.SeriesRef, error) {
	return 0, nil
}

// Commit does nothing.
func (nowhere) Commit() error { return nil }

// Rollback does nothing.
func (nowhere) Rollback() error { return nil }
