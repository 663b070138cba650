package otlp

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// maxAttributes bounds the attributes of one resource, scope or data point together, in bytes, and a metric's name.
// Labels hold 16 MiB and break beyond. A value may be several attributes joined, and escaping makes it up to six times
// as long.
const maxAttributes = 2 << 20

// checkAttributes finds attributes that labels cannot hold. A message of less than maxAttributes bytes has none.
func checkAttributes(md pmetric.Metrics) error {
	for i := range md.ResourceMetrics().Len() {
		r := md.ResourceMetrics().At(i)
		largest := sizeOfMap(r.Resource().Attributes())
		for j := range r.ScopeMetrics().Len() {
			s := r.ScopeMetrics().At(j)
			names := len(s.SchemaUrl()) + len(s.Scope().Name()) + len(s.Scope().Version())
			largest = max(largest, names+sizeOfMap(s.Scope().Attributes()))
			for k := range s.Metrics().Len() {
				m := s.Metrics().At(k)
				largest = max(largest, len(m.Name())+len(m.Unit()), largestOfMetric(m))
			}
		}
		if largest > maxAttributes {
			return errs.E(errs.TooLarge, "attributes, or a name, of %d bytes are more than %d", largest, maxAttributes)
		}
	}
	return nil
}

func largestOfMetric(m pmetric.Metric) int {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return largestOf(m.Gauge().DataPoints())
	case pmetric.MetricTypeSum:
		return largestOf(m.Sum().DataPoints())
	case pmetric.MetricTypeHistogram:
		return largestOf(m.Histogram().DataPoints())
	case pmetric.MetricTypeExponentialHistogram:
		return largestOf(m.ExponentialHistogram().DataPoints())
	case pmetric.MetricTypeSummary:
		return largestOf(m.Summary().DataPoints())
	}
	return 0
}

func largestOf[P interface{ Attributes() pcommon.Map }, L dataPoints[P]](points L) (largest int) {
	for i := range points.Len() {
		largest = max(largest, sizeOfMap(points.At(i).Attributes()))
	}
	return largest
}

func sizeOfMap(m pcommon.Map) (n int) {
	for k, v := range m.All() {
		n += len(k) + sizeOf(v)
	}
	return n
}

// sizeOf is how long v is as text, before it is escaped. The depth of it is bounded by Size.
func sizeOf(v pcommon.Value) (n int) {
	switch v.Type() {
	case pcommon.ValueTypeStr:
		return len(v.Str())
	case pcommon.ValueTypeBytes:
		return v.Bytes().Len()
	case pcommon.ValueTypeMap:
		return sizeOfMap(v.Map()) + 6*v.Map().Len()
	case pcommon.ValueTypeSlice:
		for _, e := range v.Slice().All() {
			n += sizeOf(e) + 3
		}
		return n
	}
	return 24 // numbers, true, null
}
