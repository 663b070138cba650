package selfscrape

import (
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// histogram adds the native series of m when it has native parts, and the classic series when it has classic buckets or
// nothing else.
func (c *conversion) histogram(name string, m *dto.Metric, gauge bool) {
	h := m.GetHistogram()
	native := isNative(h)
	if native {
		c.native(name, m, gauge)
	}
	if native && len(h.GetBucket()) == 0 {
		return
	}
	count := orInt(h.GetSampleCountFloat(), h.GetSampleCount())
	c.float(name+"_count", m, noLabel, count)
	c.float(name+"_sum", m, noLabel, h.GetSampleSum())
	infinite := false
	for _, b := range h.GetBucket() {
		infinite = infinite || math.IsInf(b.GetUpperBound(), 1)
		s := c.bucket(name, m, b.GetUpperBound(), orInt(b.GetCumulativeCountFloat(), b.GetCumulativeCount()))
		c.exemplar(s, m, b.GetExemplar())
	}
	if !infinite {
		c.bucket(name, m, math.Inf(1), count)
	}
}

func (c *conversion) bucket(name string, m *dto.Metric, le, count float64) *wire.Series {
	return c.float(name+"_bucket", m, labels.Label{Name: "le", Value: labels.FormatOpenMetricsFloat(le)}, count)
}

func (c *conversion) native(name string, m *dto.Metric, gauge bool) {
	h := m.GetHistogram()
	if !consistent(h) {
		return // a custom collector's bug; Prometheus refuses it too
	}
	s := c.series(name, m, noLabel)
	if s == nil {
		return
	}
	sample := wire.Histogram{T: c.time(m)}
	if isFloat(h) {
		sample.FH = floatHistogram(h, gauge)
	} else {
		sample.H = intHistogram(h, gauge)
	}
	s.Histograms = []wire.Histogram{sample}
	exemplars := h.GetExemplars()
	if len(exemplars) == 0 {
		for _, b := range h.GetBucket() {
			exemplars = append(exemplars, b.GetExemplar())
		}
	}
	for _, e := range exemplars {
		if e.GetTimestamp() != nil { // without a timestamp a repeated exemplar looks like a new one
			c.exemplar(s, m, e)
		}
	}
	slices.SortStableFunc(s.Exemplars, func(a, b wire.Exemplar) int { return int(a.T - b.T) })
}

// exemplar adds e to s; either may be nil.
func (c *conversion) exemplar(s *wire.Series, m *dto.Metric, e *dto.Exemplar) {
	if s == nil || e == nil {
		return
	}
	c.builder.Reset()
	for _, l := range e.GetLabel() {
		c.builder.Add(l.GetName(), l.GetValue())
	}
	c.builder.Sort()
	t := c.time(m)
	if ts := e.GetTimestamp(); ts != nil {
		t = ts.AsTime().UnixMilli()
	}
	s.Exemplars = append(s.Exemplars, wire.Exemplar{T: t, V: e.GetValue(), Labels: wire.AppendLabels(nil,
		c.builder.Labels())})
}

// isNative reports whether h is a native histogram. One without observations has an empty span, which says so.
func isNative(h *dto.Histogram) bool {
	return len(h.GetPositiveSpan()) > 0 || len(h.GetNegativeSpan()) > 0 || h.GetZeroThreshold() > 0 || h.GetZeroCount() > 0
}

func isFloat(h *dto.Histogram) bool {
	return h.GetSampleCountFloat() > 0 || h.GetZeroCountFloat() > 0 || len(h.GetPositiveCount()) > 0 ||
		len(h.GetNegativeCount()) > 0
}

// consistent reports whether the spans have as many buckets as there are counts. Otherwise compaction would panic.
func consistent(h *dto.Histogram) bool {
	positive, negative := len(h.GetPositiveDelta()), len(h.GetNegativeDelta())
	if isFloat(h) {
		positive, negative = len(h.GetPositiveCount()), len(h.GetNegativeCount())
	}
	return buckets(h.GetPositiveSpan()) == positive && buckets(h.GetNegativeSpan()) == negative
}

func buckets(spans []*dto.BucketSpan) (n int) {
	for _, s := range spans {
		n += int(s.GetLength())
	}
	return n
}

func intHistogram(h *dto.Histogram, gauge bool) *histogram.Histogram {
	out := &histogram.Histogram{
		Count: h.GetSampleCount(), Sum: h.GetSampleSum(), Schema: h.GetSchema(),
		ZeroThreshold: h.GetZeroThreshold(), ZeroCount: h.GetZeroCount(),
		PositiveSpans: spans(h.GetPositiveSpan()), PositiveBuckets: slices.Clone(h.GetPositiveDelta()),
		NegativeSpans: spans(h.GetNegativeSpan()), NegativeBuckets: slices.Clone(h.GetNegativeDelta()),
	}
	if gauge {
		out.CounterResetHint = histogram.GaugeType
	}
	return out.Compact(0)
}

func floatHistogram(h *dto.Histogram, gauge bool) *histogram.FloatHistogram {
	out := &histogram.FloatHistogram{
		Count: h.GetSampleCountFloat(), Sum: h.GetSampleSum(), Schema: h.GetSchema(),
		ZeroThreshold: h.GetZeroThreshold(), ZeroCount: h.GetZeroCountFloat(),
		PositiveSpans: spans(h.GetPositiveSpan()), PositiveBuckets: slices.Clone(h.GetPositiveCount()),
		NegativeSpans: spans(h.GetNegativeSpan()), NegativeBuckets: slices.Clone(h.GetNegativeCount()),
	}
	if gauge {
		out.CounterResetHint = histogram.GaugeType
	}
	return out.Compact(0)
}

func spans(in []*dto.BucketSpan) []histogram.Span {
	out := make([]histogram.Span, len(in))
	for i, s := range in {
		out[i] = histogram.Span{Offset: s.GetOffset(), Length: s.GetLength()}
	}
	return out
}

func orInt(f float64, n uint64) float64 {
	if f == 0 {
		return float64(n)
	}
	return f
}
