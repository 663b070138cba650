package otlp

import (
	"fmt"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// now is the time of what tests send: Prometheus's handler refuses what is far in the future.
var now = time.Now().Truncate(time.Millisecond)

func stamp(d time.Duration) pcommon.Timestamp { return pcommon.NewTimestampFromTime(now.Add(d)) }

// encode is md as a request body.
func encode(form Form, md pmetric.Metrics) []byte {
	req := pmetricotlp.NewExportRequestFromMetrics(md)
	marshal := req.MarshalProto
	if form == JSON {
		marshal = req.MarshalJSON
	}
	msg, err := marshal()
	if err != nil {
		panic(err)
	}
	return msg
}

// resourceOf adds a resource with a scope to md.
func resourceOf(md pmetric.Metrics, attributes map[string]any) pmetric.MetricSlice {
	r := md.ResourceMetrics().AppendEmpty()
	set(r.Resource().Attributes(), attributes)
	s := r.ScopeMetrics().AppendEmpty()
	s.SetSchemaUrl("https://example.test/schema")
	s.Scope().SetName("lib")
	s.Scope().SetVersion("1.2")
	s.Scope().Attributes().PutStr("scope.kind", "test")
	return s.Metrics()
}

func set(m pcommon.Map, attributes map[string]any) {
	if err := m.FromRaw(attributes); err != nil {
		panic(err)
	}
}

func named(ms pmetric.MetricSlice, name, unit string) pmetric.Metric {
	m := ms.AppendEmpty()
	m.SetName(name)
	m.SetUnit(unit)
	m.SetDescription("Help of " + name + ".")
	return m
}

func gaugeOf(ms pmetric.MetricSlice, name string, values ...float64) {
	points := named(ms, name, "s").SetEmptyGauge().DataPoints()
	for i, v := range values {
		p := points.AppendEmpty()
		p.SetTimestamp(stamp(0))
		p.SetDoubleValue(v)
		p.Attributes().PutInt("i", int64(i))
	}
}

func sumOf(
	ms pmetric.MetricSlice,
	name string,
	temporality pmetric.AggregationTemporality,
	values ...int64,
) pmetric.NumberDataPointSlice {
	sum := named(ms, name, "By").SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(temporality)
	for i, v := range values {
		p := sum.DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(0))
		p.SetStartTimestamp(stamp(-time.Minute))
		p.SetIntValue(v)
		p.Attributes().PutStr("http.method", fmt.Sprint("m", i))
	}
	return sum.DataPoints()
}

func addExemplar(es pmetric.ExemplarSlice, v float64, at time.Duration) {
	e := es.AppendEmpty()
	e.SetDoubleValue(v)
	e.SetTimestamp(stamp(at))
	e.SetTraceID([16]byte{1, 2, byte(v)})
	e.SetSpanID([8]byte{3})
	e.FilteredAttributes().PutStr("user.id", "u")
}

func histogramOf(ms pmetric.MetricSlice, name string, points int) pmetric.HistogramDataPointSlice {
	h := named(ms, name, "ms").SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for i := range points {
		p := h.DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(0))
		p.SetStartTimestamp(stamp(-time.Hour))
		p.Attributes().PutStr("route", fmt.Sprint("/", i))
		p.ExplicitBounds().FromRaw([]float64{0.5, 1, 10})
		p.BucketCounts().FromRaw([]uint64{1, 0, 3, uint64(i)})
		p.SetCount(4 + uint64(i))
		p.SetSum(12.5)
		addExemplar(p.Exemplars(), 0.7, -time.Second)
		addExemplar(p.Exemplars(), 70, -2*time.Second)
	}
	return h.DataPoints()
}

func exponentialOf(ms pmetric.MetricSlice, name string, scales ...int32) {
	h := named(ms, name, "s").SetEmptyExponentialHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for i, scale := range scales {
		p := h.DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(0))
		p.SetStartTimestamp(stamp(-time.Hour))
		p.Attributes().PutInt("i", int64(i))
		p.SetScale(scale)
		p.SetZeroCount(2)
		p.Positive().SetOffset(-3)
		p.Positive().BucketCounts().FromRaw([]uint64{1, 0, 0, 0, 0, 5, 2})
		p.Negative().SetOffset(1)
		p.Negative().BucketCounts().FromRaw([]uint64{4})
		p.SetCount(14)
		p.SetSum(3.5)
		addExemplar(p.Exemplars(), 1.5, 0)
	}
}

func summaryOf(ms pmetric.MetricSlice, name string, points int) {
	s := named(ms, name, "s").SetEmptySummary()
	for i := range points {
		p := s.DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(0))
		p.Attributes().PutInt("i", int64(i))
		p.SetCount(10)
		p.SetSum(20)
		for _, q := range []float64{0.5, 0.99} {
			v := p.QuantileValues().AppendEmpty()
			v.SetQuantile(q)
			v.SetValue(q * 10)
		}
	}
}

// service is a resource as senders have it.
var service = map[string]any{"service.name": "shop", "service.namespace": "prod", "service.instance.id": "i-1",
	"host.name": "h1", "k8s.pod": "p"}

// everything has each type of metric.
func everything() pmetric.Metrics {
	md := pmetric.NewMetrics()
	ms := resourceOf(md, service)
	gaugeOf(ms, "room.temperature", 20.5, 21)
	points := sumOf(ms, "http.sent", pmetric.AggregationTemporalityCumulative, 1, 2, 3)
	addExemplar(points.At(0).Exemplars(), 3, -time.Second)
	histogramOf(ms, "latency", 2)
	exponentialOf(ms, "size", -4, 0, 3, 8, 20)
	summaryOf(ms, "rpc", 2)
	gaugeOf(resourceOf(md, map[string]any{"service.name": "other", "host.name": "h2"}), "room.temperature", 5)
	gaugeOf(resourceOf(md, nil), "1st weird name!", 7)
	return md
}

// random is a request of random valid metrics.
func random(r *rand.Rand) pmetric.Metrics {
	md := pmetric.NewMetrics()
	name := func() string { return fmt.Sprintf("metric.%d", r.IntN(1000)) }
	for i := range 1 + r.IntN(3) {
		ms := resourceOf(md,
			map[string]any{"service.name": fmt.Sprint("s", i), "host.name": fmt.Sprint("h", r.IntN(2)), "n": r.IntN(3)})
		for range r.IntN(6) {
			switch r.IntN(6) {
			case 0:
				gaugeOf(ms, name(), make([]float64, r.IntN(4))...)
			case 1:
				sumOf(ms, name(), pmetric.AggregationTemporalityCumulative, make([]int64, r.IntN(4))...)
			case 2:
				histogramOf(ms, name(), r.IntN(3))
			case 3:
				exponentialOf(ms, name(), r.Int32N(30)-4, r.Int32N(12)-4)
			case 4:
				summaryOf(ms, name(), r.IntN(3))
			case 5:
				points := sumOf(ms, name(), pmetric.AggregationTemporalityCumulative, 1, 2)
				points.At(0).SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
				points.At(1).SetTimestamp(stamp(-time.Duration(r.IntN(3600)) * time.Second))
				set(points.At(1).Attributes(),
					map[string]any{"a.b": "1", "a_b": "2", "list": []any{1, "x"}, "map": map[string]any{"k": 1.5}, "empty": ""})
			}
		}
	}
	return md
}
