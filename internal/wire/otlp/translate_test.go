package otlp

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// TestRejected puts bad data points beside a good metric of one point: they are counted, named, and cost nothing else.
func TestRejected(t *testing.T) {
	f := func(points, rejected, series int, reason string, spoil func(ms pmetric.MetricSlice)) {
		t.Helper()
		md := pmetric.NewMetrics()
		ms := resourceOf(md, map[string]any{"service.name": "shop"})
		gaugeOf(ms, "before", 1)
		spoil(ms)
		gaugeOf(ms, "after", 1)
		for _, form := range []Form{Protobuf, JSON} {
			got := translate(t, form, encode(form, md), DefaultOptions())
			if n := got.Rejected(nil); got.Points != points+2 || n != rejected || len(got.Batch.Series) != series+2 {
				t.Fatalf("%d points, %d rejected, %d series; want %d, %d, %d: %v", got.Points, n, len(got.Batch.Series), points+2,
					rejected, series+2, got.Batch.Rejected)
			}
			if text := fmt.Sprint(got.Batch.Rejected); !strings.Contains(text, reason) ||
				(rejected > 0) != (len(got.Batch.Rejected) > 0) {
				t.Fatalf("%s does not tell %q", text, reason)
			}
			for _, r := range got.Batch.Rejected {
				if r.Kind != errs.Invalid || r.Series != -1 {
					t.Fatalf("rejected %+v", r)
				}
			}
			got.Batch.Release()
		}
	}
	f(0, 0, 0, "", func(ms pmetric.MetricSlice) {})
	f(2, 2, 0, `metric "delta", 2 data points: delta temporality is not supported`, func(ms pmetric.MetricSlice) {
		sumOf(ms, "delta", pmetric.AggregationTemporalityDelta, 1, 2)
	})
	f(1, 1, 0, `its aggregation temporality is not given`, func(ms pmetric.MetricSlice) {
		sumOf(ms, "x", pmetric.AggregationTemporalityUnspecified, 1)
	})
	f(2, 2, 0, "delta temporality", func(ms pmetric.MetricSlice) {
		histogramOf(ms, "h", 1)
		ms.At(ms.Len() - 1).Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		exponentialOf(ms, "e", 1)
		ms.At(ms.Len() - 1).ExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	})
	f(3, 2, 1, "2 data points: data points have no time", func(ms pmetric.MetricSlice) {
		points := sumOf(ms, "x", pmetric.AggregationTemporalityCumulative, 1, 2, 3)
		points.At(0).SetTimestamp(0)
		points.At(2).SetTimestamp(1 << 63)
	})
	f(3, 1, 2, "Scale must be >= -4, was -5", func(ms pmetric.MetricSlice) { exponentialOf(ms, "e", 0, -5, 1) })
	f(3, 1, 2, "label name is empty", func(ms pmetric.MetricSlice) {
		sumOf(ms, "x", pmetric.AggregationTemporalityCumulative, 1, 2, 3).At(1).Attributes().PutStr("", "v")
	})
	f(2, 1, 6, "unsupported exemplar value type", func(ms pmetric.MetricSlice) {
		histogramOf(ms, "h", 2).At(0).Exemplars().AppendEmpty().SetTimestamp(stamp(0))
	})
	f(2, 2, 0, `normalization for metric "!" resulted in`, func(ms pmetric.MetricSlice) {
		points := named(ms, "!", "").SetEmptyGauge().DataPoints()
		points.AppendEmpty().SetTimestamp(stamp(0))
		points.AppendEmpty().SetTimestamp(stamp(0))
	})
	f(1, 1, 0, "histogram: ", func(ms pmetric.MetricSlice) {
		exponentialOf(ms, "e", 1)
		ms.At(ms.Len() - 1).ExponentialHistogram().DataPoints().At(0).SetCount(1)
	})
}

// TestRejectedResource has a resource, and a scope, that cannot be converted, beside a good one.
func TestRejectedResource(t *testing.T) {
	opts := DefaultOptions()
	opts.PromoteAllResourceAttributes, opts.PromoteScopeMetadata = true, true
	opts.Strategy = "NoTranslation"
	md := pmetric.NewMetrics()
	gaugeOf(resourceOf(md, map[string]any{"service.name": "good"}), "x", 1)
	histogramOf(resourceOf(md, map[string]any{"": "nameless"}), "y", 3)
	got := translate(t, Protobuf, encode(Protobuf, md), opts)
	defer got.Batch.Release()
	if got.Rejected(nil) != 3 || len(got.Batch.Series) != 1 ||
		!strings.Contains(got.Batch.Rejected[0].Reason, "resource with 3 data points: label name is empty") {
		t.Fatalf("%d rejected, %d series, %v", got.Rejected(nil), len(got.Batch.Series), got.Batch.Rejected)
	}
}

// TestRejectedLabels has labels that the converter lets through.
func TestRejectedLabels(t *testing.T) {
	opts := DefaultOptions()
	opts.Strategy = "NoTranslation"
	f := func(reason string, key1, key2, value string) {
		t.Helper()
		md := pmetric.NewMetrics()
		ms := resourceOf(md, map[string]any{"service.name": "shop"})
		points := histogramOf(ms, "h", 2)
		a := points.At(0).Attributes()
		a.PutStr(key1, value)
		a.PutStr("#", value)   // made key2 below: a map has no key twice
		const key = "\x0a\x01" // of one byte; a time may have the byte of # too
		msg := []byte(strings.Replace(string(encode(Protobuf, md)), key+"#", key+key2, 1))
		got := translate(t, Protobuf, msg, opts)
		defer got.Batch.Release()
		if got.Rejected(nil) != 1 || len(got.Batch.Series) != 6 || !strings.Contains(got.Batch.Rejected[0].Reason, reason) {
			t.Fatalf("%d rejected, %d series, %v", got.Rejected(nil), len(got.Batch.Series), got.Batch.Rejected)
		}
	}
	f(`label "d" occurs twice`, "d", "d", "v")
	f(`label "e" is not UTF-8`, "e", "f", "\xff")
	f(`label "\xff" is not UTF-8`, "e", "\xff", "v")
}

// TestRejectedByFailures counts data points by the series that members refused.
func TestRejectedByFailures(t *testing.T) {
	md := pmetric.NewMetrics()
	ms := resourceOf(md, service)
	gaugeOf(ms, "g", 1, 2)
	histogramOf(ms, "h", 2)
	summaryOf(ms, "s", 2)
	exponentialOf(ms, "e", 1)
	got := translate(t, Protobuf, encode(Protobuf, md), DefaultOptions())
	defer got.Batch.Release()
	f := func(want int, match ...string) {
		t.Helper()
		var failures []wire.Failure
		for i := range got.Batch.Series {
			s := &got.Batch.Series[i]
			text := strings.ReplaceAll(string(s.Labels()), "\xff", " ")
			for _, m := range match {
				if strings.Contains(text, m) {
					failures = append(failures,
						wire.Failure{Series: i, Kind: errs.Conflict, Samples: len(s.Samples), Histograms: len(s.Histograms)})
				}
			}
		}
		if n := got.Rejected(failures); n != want || want > 0 && len(failures) < want {
			t.Fatalf("%v: %d data points of %d series, want %d", match, n, len(failures), want)
		}
	}
	f(0)
	f(2, "g_seconds")
	f(1, "route /0")
	f(2, "h_milliseconds_bucket")
	f(2, "route /0", "route /1", "h_milliseconds_sum", "target_info")
	f(2, "s_seconds_sum", "s_seconds_count", "quantile 0.5")
	f(1, "e_seconds")
	f(0, "target_info")
	f(7, "__name__")
	if n := got.Rejected([]wire.Failure{{Series: 0, Exemplars: 1}, {Series: -1, Samples: 5}}); n != 0 {
		t.Fatalf("%d data points for what is none", n)
	}
}

// TestBadClock bounds the target_info samples that one bad time makes, and the time they take.
func TestBadClock(t *testing.T) {
	f := func(first, second pcommon.Timestamp) {
		t.Helper()
		md := pmetric.NewMetrics()
		points := sumOf(resourceOf(md, service), "x", pmetric.AggregationTemporalityCumulative, 1, 2)
		points.At(0).SetTimestamp(first)
		points.At(1).SetTimestamp(second)
		got := translate(t, Protobuf, encode(Protobuf, md), DefaultOptions())
		defer got.Batch.Release()
		infos := got.Batch.Series[len(got.Batch.Series)-1].Samples
		if n := len(infos); n < 2 || n > 3+int(targetInfoSamples) {
			t.Fatalf("%d samples of target_info", n)
		}
		if at, want := infos[len(infos)-1].T, int64(max(first, second))/1e6; at != want {
			t.Fatalf("the newest target_info is of %v, not %v", time.UnixMilli(at), time.UnixMilli(want))
		}
	}
	f(1, stamp(0))
	f(stamp(-25*time.Hour), stamp(0))
	f(stamp(0), math.MaxInt64)
	f(1, math.MaxInt64)
}

// TestTooMuch stops a request that becomes more than it may.
func TestTooMuch(t *testing.T) {
	md := pmetric.NewMetrics()
	attributes := map[string]any{"service.name": "x", "big": strings.Repeat("x", 100_000)}
	ms := resourceOf(md, attributes)
	for range 1000 {
		gaugeOf(ms, "g", 1)
	}
	opts := DefaultOptions()
	opts.PromoteAllResourceAttributes = true
	tr, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Translate(context.Background(), "acme", md, 10<<20); errs.KindOf(err) != errs.TooLarge {
		t.Fatalf("100 MB of labels: %v", err)
	}
	if got, err := tr.Translate(context.Background(), "acme", md, 200<<20); err != nil || len(got.Batch.Series) != 2 ||
		len(got.Batch.Series[0].Samples) != 1000 {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	for range 1000 { // the converter looks now and then
		gaugeOf(ms, "g", 1)
	}
	if _, err := tr.Translate(ended, "acme", md, 400<<20); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("the request ended: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	md := pmetric.NewMetrics()
	ms := resourceOf(md, map[string]any{"service.name": "shop", "": "nameless"})
	named(ms, "empty", "").SetEmptyGauge()
	set(sumOf(ms, "x", pmetric.AggregationTemporalityCumulative, 1).At(0).Attributes(),
		map[string]any{"a.b": "1", "a_b": "2"})
	got := translate(t, Protobuf, encode(Protobuf, md), DefaultOptions())
	defer got.Batch.Release()
	text := strings.Join(got.Warnings, "\n")
	if len(got.Warnings) != 2 || !strings.Contains(text, `collide as label "a_b"`) ||
		!strings.Contains(text, "no target_info was made: label name is empty") {
		t.Fatalf("warnings %q", text)
	}
	if len(got.Batch.Series) != 1 || got.Rejected(nil) != 0 {
		t.Fatalf("%d series, %d rejected", len(got.Batch.Series), got.Rejected(nil))
	}
}

// TestPromotePerTenant: a tenant's own attributes are promoted in place of everybody's.
func TestPromotePerTenant(t *testing.T) {
	md := pmetric.NewMetrics()
	gaugeOf(resourceOf(md, map[string]any{"service.name": "shop", "host.name": "h", "k8s.pod.name": "p"}), "x", 1)
	f := func(opts Options, want, without string) {
		t.Helper()
		got := translate(t, Protobuf, encode(Protobuf, md), opts)
		defer got.Batch.Release()
		text := string(got.Batch.Series[0].Labels())
		if !strings.Contains(text, want) || without != "" && strings.Contains(text, without) {
			t.Errorf("labels %q, want %s without %s", text, want, without)
		}
	}
	opts := DefaultOptions()
	opts.TargetInfo = false
	opts.PromoteResourceAttributes = []string{"host.name"}
	f(opts, "host_name", "k8s_pod_name")
	opts.Promote = func(id tenant.ID) []string { return map[tenant.ID][]string{"acme": {"k8s.pod.name"}}[id] }
	f(opts, "k8s_pod_name", "host_name")
	opts.PromoteResourceAttributes, opts.PromoteAllResourceAttributes = nil, true
	f(opts, "host_name", "")
}

func TestOptions(t *testing.T) {
	f := func(faults int, change func(o *Options)) {
		t.Helper()
		o := DefaultOptions()
		change(&o)
		n := 0
		if err := o.Validate(); err != nil {
			n = strings.Count(err.Error(), "\n") + 1
		}
		if _, err := New(o); n != faults || (err != nil) != (faults > 0) {
			t.Fatalf("%+v: %d faults, want %d; New says %v", o, n, faults, err)
		}
	}
	f(0, func(o *Options) {})
	f(1, func(o *Options) { o.Strategy = "" })
	f(1, func(o *Options) { o.IgnoreResourceAttributes = []string{"a"} })
	f(2, func(o *Options) { o.PromoteAllResourceAttributes, o.PromoteResourceAttributes = true, []string{""} })
}
