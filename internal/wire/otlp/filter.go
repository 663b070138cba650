package otlp

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// filter takes out of a request what can never be stored, and learns what the converter must know of the rest.
type filter struct {
	batch *wire.Batch // takes the reasons

	points  int // in the request
	refused int // of them, taken out

	earliest, latest uint64        // of the resource at hand
	spread           time.Duration // the widest between the two of any resource
}

// dataPoint is what data points of all types have.
type dataPoint interface {
	Timestamp() pcommon.Timestamp
}

// dataPoints is what their lists have.
type dataPoints[P any] interface {
	Len() int
	At(int) P
	AppendEmpty() P
	RemoveIf(func(P) bool)
}

// request filters all of md.
func (s *filter) request(md pmetric.Metrics) {
	resources := md.ResourceMetrics()
	for i := range resources.Len() {
		s.earliest, s.latest = math.MaxUint64, 0
		scopes := resources.At(i).ScopeMetrics()
		for j := range scopes.Len() {
			scopes.At(j).Metrics().RemoveIf(s.metric)
		}
		if s.earliest < s.latest {
			s.spread = max(s.spread, time.Duration(s.latest-s.earliest))
		}
	}
}

// metric filters one metric and reports whether all of it is to be dropped.
func (s *filter) metric(m pmetric.Metric) (drop bool) {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return dropUnstorable(s, m, pmetric.AggregationTemporalityCumulative, m.Gauge().DataPoints())
	case pmetric.MetricTypeSum:
		return dropUnstorable(s, m, m.Sum().AggregationTemporality(), m.Sum().DataPoints())
	case pmetric.MetricTypeHistogram:
		return dropUnstorable(s, m, m.Histogram().AggregationTemporality(), m.Histogram().DataPoints())
	case pmetric.MetricTypeExponentialHistogram:
		return dropUnstorable(s, m, m.ExponentialHistogram().AggregationTemporality(), m.ExponentialHistogram().DataPoints())
	case pmetric.MetricTypeSummary:
		return dropUnstorable(s, m, pmetric.AggregationTemporalityCumulative, m.Summary().DataPoints())
	}
	s.refuse(m, 0, "it has no data")
	return true
}

// dropUnstorable drops all data points of a metric that is not cumulative, else those without a time.
func dropUnstorable[P dataPoint, L dataPoints[P]](s *filter, m pmetric.Metric,
	temporality pmetric.AggregationTemporality, points L) (drop bool) {
	n := points.Len()
	s.points += n
	switch temporality {
	case pmetric.AggregationTemporalityCumulative:
	case pmetric.AggregationTemporalityDelta:
		s.refuse(m, n, "delta temporality is not supported: let the SDK prefer cumulative temporality, or the collector "+
			"convert it (deltatocumulative)")
		return true
	default:
		s.refuse(m, n, "its aggregation temporality is not given")
		return true
	}
	timeless := 0
	for i := range n {
		t := uint64(points.At(i).Timestamp())
		if noTime(t) {
			timeless++
			continue
		}
		s.earliest, s.latest = min(s.earliest, t), max(s.latest, t)
	}
	if timeless == 0 {
		return false
	}
	points.RemoveIf(func(p P) bool { return noTime(uint64(p.Timestamp())) })
	s.refuse(m, timeless, "data points have no time, or one that is not in nanoseconds since 1970")
	return timeless == n
}

// noTime reports whether t is no time that can be stored.
func noTime(t uint64) bool { return t == 0 || t > math.MaxInt64 }

// refuse counts n data points of m as refused.
func (s *filter) refuse(m pmetric.Metric, n int, why string) {
	s.refused += n
	text := fmt.Sprintf("metric %s, %d data points: %s", shortQuote(m.Name()), n, why)
	s.batch.Reject(wire.Failure{Samples: n, Reason: text})
}

// shortQuote quotes s for people, cut where it gets long.
func shortQuote(s string) string {
	const long = 200
	if len(s) > long {
		return strconv.Quote(s[:long]) + "..."
	}
	return strconv.Quote(s)
}
