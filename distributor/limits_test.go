package distributor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

func limited(l tenant.Limits) Options {
	opts := DefaultOptions()
	opts.Limits = tenant.Fixed(l)
	return opts
}

// Every limit of a series takes out that series, names itself, its value and its bound, and leaves the rest.
func TestSeriesLimits(t *testing.T) {
	f := func(l tenant.Limits, bad func(*wire.Batch), want string) {
		t.Helper()
		c := newCluster(t, newFakeRing(1, "a"), limited(l))
		var batches []*wire.Batch
		defer func() {
			c.close() // the member is done with them
			for _, b := range batches {
				freed(t, b)
			}
		}()
		for range 2 { // what is remembered of the first time must not change the second
			b := batch(1)
			batches = append(batches, b)
			bad(b)
			good := b.Add(labels.FromStrings("__name__", "good"))
			good.Samples = []wire.Sample{{T: 1}, {T: 2}}
			r := c.push(b)
			if want == "" {
				if r.Err() != nil || len(r.Failures) != 0 {
					t.Fatalf("%v: %v", l, r.Err())
				}
				continue
			}
			if r.Kind() != errs.Invalid || len(r.Failures) != 1 || r.Failures[0].Series != 1 || r.Samples != 3 || r.Series != 3 {
				t.Fatalf("%v: %+v", l, r)
			}
			for _, text := range []string{"tenant acme", want, "--runtime-config.file", `x="`} {
				if !strings.Contains(r.Err().Error(), text) {
					t.Fatalf("%v: %q does not say %q", l, r.Err(), text)
				}
			}
		}
	}
	series := func(pairs ...string) func(*wire.Batch) {
		return func(b *wire.Batch) {
			b.Add(labels.FromStrings(append(pairs, "__name__", "m")...)).Samples = []wire.Sample{{T: 1}}
		}
	}
	long := strings.Repeat("v", 100)
	f(tenant.Limits{LabelsPerSeries: 2}, series("x", "1", "y", "2"), "3 labels, more than labels_per_series 2")
	f(tenant.Limits{LabelsPerSeries: 2}, series("x", long), "") // long, but few
	f(tenant.Limits{LabelsPerSeries: 3}, series("x", "1", "y", "2"), "")
	f(tenant.Limits{LabelValueBytes: 99}, series("x", long),
		`value of label "x" of 100 bytes, more than label_value_bytes 99`)
	f(tenant.Limits{LabelValueBytes: 100}, series("x", long), "")
	f(tenant.Limits{LabelNameBytes: 8}, series("x", "1", "name_of_9", "2"),
		`label name "name_of_9" of 9 bytes, more than label_name_bytes 8`)
	f(tenant.Limits{LabelNameBytes: 9}, series("x", "1", "name_of_9", "2"), "")
	f(tenant.Limits{LabelNameBytes: 8, LabelValueBytes: 100, LabelsPerSeries: 2}, series("x", long), "")
	hist := func(b *wire.Batch) {
		b.Add(labels.FromStrings("__name__", "h", "x", "1")).Histograms = []wire.Histogram{
			{H: &histogram.Histogram{PositiveBuckets: []int64{1}}},
			{FH: &histogram.FloatHistogram{PositiveBuckets: []float64{1, 2}, NegativeBuckets: []float64{1}}},
		}
	}
	f(tenant.Limits{HistogramBuckets: 2}, hist, "a histogram of 3 buckets, more than histogram_buckets 2")
	f(tenant.Limits{HistogramBuckets: 3, LabelsPerSeries: 2}, hist, "")
	f(tenant.Limits{LabelsPerSeries: 2, HistogramBuckets: 1}, hist,
		"a histogram of 3 buckets, more than histogram_buckets 1")
	// What a histogram has beside its buckets is stored too.
	wide := func(h wire.Histogram) func(*wire.Batch) {
		return func(b *wire.Batch) {
			b.Add(labels.FromStrings("__name__", "h", "x", "1")).Histograms = []wire.Histogram{h}
		}
	}
	spans, bounds := make([]histogram.Span, 5), make([]float64, 5)
	for _, h := range []wire.Histogram{
		{H: &histogram.Histogram{PositiveSpans: spans}},
		{H: &histogram.Histogram{PositiveSpans: spans[:3], NegativeSpans: spans[:2]}},
		{H: &histogram.Histogram{CustomValues: bounds}},
		{FH: &histogram.FloatHistogram{NegativeSpans: spans}},
		{FH: &histogram.FloatHistogram{CustomValues: bounds}},
	} {
		f(tenant.Limits{HistogramBuckets: 4}, wide(h), "a histogram of 5 buckets, more than histogram_buckets 4")
		f(tenant.Limits{HistogramBuckets: 5}, wide(h), "")
	}
}

// The short cuts and the memory of what fits never change what is found.
func TestChecksAgreeWithTheRules(t *testing.T) {
	known := new(fitCache)
	for range 3000 {
		l := &tenant.Limits{LabelsPerSeries: rand.IntN(8), LabelNameBytes: rand.IntN(12), LabelValueBytes: rand.IntN(12)}
		c := newChecks(l)
		for range 5 {
			names := map[string]string{"__name__": "m"}
			for range rand.IntN(8) {
				names[strings.Repeat("n", 1+rand.IntN(12))] = strings.Repeat("v", 1+rand.IntN(12))
			}
			s := wire.NewBatch("acme").Add(labels.FromMap(names))
			want := l.LabelsPerSeries == 0 || len(names) <= l.LabelsPerSeries
			for n, v := range names {
				want = want && (l.LabelNameBytes == 0 || len(n) <= l.LabelNameBytes) &&
					(l.LabelValueBytes == 0 || len(v) <= l.LabelValueBytes)
			}
			for range 2 {
				if got := s.LabelsSize() <= c.short || c.labelsFit(known, s); got != want {
					t.Fatalf("%+v %v: fits %v, want %v", *l, names, got, want)
				}
			}
			if !want {
				if limit, text := c.fault(s); limit == "histogram_buckets" || text == "" {
					t.Fatalf("%+v %v: fault %s %q", *l, names, limit, text)
				}
			}
		}
	}
}

// A limit that is lowered counts at once, also for series that were found good before.
func TestLimitsChange(t *testing.T) {
	l := &tenant.Limits{LabelValueBytes: 10}
	opts := DefaultOptions()
	opts.Limits = func(tenant.ID) *tenant.Limits { return l }
	c := newCluster(t, newFakeRing(1, "a"), opts)
	defer c.close()
	b := wire.NewBatch("acme")
	b.Add(labels.FromStrings("__name__", "m", "x", "12345678")).Samples = []wire.Sample{{T: 1}}
	f := func(bound int, want errs.Kind) {
		t.Helper()
		l = &tenant.Limits{LabelValueBytes: bound}
		if r := c.push(b); r.Kind() != want {
			t.Fatalf("bound %d: %v, want %v", bound, r.Kind(), want)
		}
	}
	f(10, errs.OK)
	f(7, errs.Invalid)
	f(8, errs.OK)
	f(7, errs.Invalid)
}

// Requests over a limit are refused as a whole, with the right status in every protocol.
func TestRequestLimits(t *testing.T) {
	good := []string{"__name__", "up", "job", "a"}
	v1, v2 := bodyV1(sample1(good...),
		sample1("__name__", "up", "job", "b")), bodyV2(good, []string{"__name__", "up", "job", "b"})
	f := func(l tenant.Limits, content string, body []byte, status int, stored int, text string) {
		t.Helper()
		c := newCluster(t, newFakeRing(1, "a"), limited(l))
		defer c.close()
		send := c.do
		if content == contentJSON {
			send = c.otlp
		}
		w := send(httpRequest{content: content, body: body})
		if w.Code != status || !strings.Contains(w.Body.String(), text) {
			t.Fatalf("%+v: %d %q, want %d %q", l, w.Code, w.Body, status, text)
		}
		if retry := w.Header().Get("Retry-After"); (retry != "") != (status == 429) {
			t.Fatalf("%+v: Retry-After %q with %d", l, retry, status)
		}
		if n, _ := c.member("a").count(); n != stored {
			t.Fatalf("%+v: %d series stored, want %d", l, n, stored)
		}
	}
	const raise = "--runtime-config.file"
	f(tenant.Limits{RequestBytes: 10}, contentV1, v1, 413, 0, "more than request_bytes 10")
	f(tenant.Limits{RequestBytes: 10}, contentV2, v2, 413, 0, "default-tenant")
	f(tenant.Limits{RequestBytes: 10}, contentJSON, otlpBody(contentJSON, "a", "b"), 413, 0, raise)
	f(tenant.Limits{RequestBytes: int64(len(v1))}, contentV1, v1, 204, 2, "")
	f(tenant.Limits{RequestSeries: 1}, contentV1, v1, 413, 0, "request has 2 series, more than request_series 1")
	f(tenant.Limits{RequestSeries: 1}, contentV2, v2, 413, 0, raise)
	f(tenant.Limits{RequestSeries: 2}, contentV2, v2, 204, 2, "")
	f(tenant.Limits{RequestSeries: 1}, contentJSON, otlpBody(contentJSON, "a", "b"), 413, 0, raise)
	f(tenant.Limits{RequestSamples: 1}, contentV1, v1, 413, 0, "request has 2 samples, more than request_samples 1")
	f(tenant.Limits{RequestSamples: 3}, contentV2, v2, 413, 0, "request has 4 samples") // histograms are samples
	f(tenant.Limits{RequestSamples: 4}, contentV2, v2, 204, 2, "")
	f(tenant.Limits{SamplesPerSecond: 1, SamplesBurst: 1}, contentV1, v1, 413, 0, "larger than samples_burst 1")
	f(tenant.Limits{SamplesPerSecond: 1, SamplesBurst: 3}, contentV2, v2, 413, 0,
		"tenant default-tenant: request of 4 samples is larger than samples_burst 3")
	f(tenant.Limits{SamplesPerSecond: 1, SamplesBurst: 1}, contentJSON, otlpBody(contentJSON, "a", "b"), 413, 0, raise)
	f(tenant.Limits{SamplesPerSecond: 1, SamplesBurst: 4}, contentV2, v2, 204, 2, "")
	// Series over a limit: the rest is stored.
	over := bodyV1(sample1(good...), sample1("__name__", "up", "job", "a", "x", "y"))
	f(tenant.Limits{LabelsPerSeries: 2}, contentV1, over, 400, 1, "labels_per_series")
	f(tenant.Limits{LabelsPerSeries: 2}, contentV2, bodyV2(good, []string{"__name__", "up", "job", "a", "x", "y"}), 400, 1,
		"labels_per_series")
	f(tenant.Limits{LabelNameBytes: 8}, contentJSON, otlpBody(contentJSON, "a", "b"), 200, 2, "")
	f(tenant.Limits{LabelValueBytes: 3}, contentJSON, otlpBody(contentJSON, "a", "name"), 200, 1, "label_value_bytes 3")
}

// RW2 tells what was written though some was refused.
func TestLimitedCounts(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), limited(tenant.Limits{LabelsPerSeries: 2}))
	defer c.close()
	w := c.do(httpRequest{content: contentV2,
		body: bodyV2([]string{"__name__", "a"}, []string{"__name__", "b", "x", "y", "z", "z"})})
	for name, want := range map[string]string{"Samples": "1", "Histograms": "1", "Exemplars": "1"} {
		if got := w.Header().Get("X-Prometheus-Remote-Write-" + name + "-Written"); got != want {
			t.Errorf("%s: %s written, want %s", name, got, want)
		}
	}
}

// What a quorum of receivers refuses for a limit is 429, with the series named; the rest is stored and nothing is
// retried.
func TestReceiversLimit(t *testing.T) {
	c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
	defer c.close()
	for _, m := range []string{"a", "b"} {
		c.member(m).become(refusing(errs.Limited, 1))
	}
	w := c.do(httpRequest{content: contentV1,
		body: bodyV1(sample1("__name__", "a"), sample1("__name__", "b"), sample1("__name__", "c"))})
	if w.Code != 429 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `{__name__="b"}`) ||
		!strings.Contains(w.Body.String(), "1 of 3 series") {
		t.Fatalf("%d %q", w.Code, w.Body)
	}
	if n := testutil.ToFloat64(c.metrics.limitedSamples.WithLabelValues("default-tenant", "other")); n != 1 {
		t.Errorf("%v samples counted, want 1", n)
	}
	if n := testutil.ToFloat64(c.metrics.tenantSamples.WithLabelValues("default-tenant")); n != 2 {
		t.Errorf("%v samples counted, want 2", n)
	}
	// One receiver over its share does not matter, and is not asked again.
	c.member("b").become(nil)
	w = c.do(httpRequest{content: contentV1, body: bodyV1(sample1("__name__", "a"), sample1("__name__", "b"))})
	if w.Code != 204 {
		t.Fatalf("%d %q", w.Code, w.Body)
	}
	c.close()
	if _, writes := c.member("a").count(); writes != 2 {
		t.Errorf("%d writes to the member over its limit, want 2", writes)
	}
}

// The metrics of a tenant go when it is idle.
func TestIdleTenantsAreForgotten(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), limited(tenant.Limits{LabelsPerSeries: 1}))
	defer c.close()
	c.push(batch(3))
	count := func() int {
		return testutil.CollectAndCount(c.metrics.limitedSamples) + testutil.CollectAndCount(c.metrics.tenantSamples)
	}
	c.push(wire.NewBatch("acme")) // nothing stored, nothing counted
	if count() != 1 {
		t.Fatalf("%d metrics of tenants, want 1", count())
	}
	as := &c.tenants
	as.mu.Lock()
	as.byID["acme"].used = as.byID["acme"].used.Add(-2 * stateIdle)
	as.swept = as.swept.Add(-2 * sweepEvery)
	as.mu.Unlock()
	as.of("other")
	if count() != 0 || len(as.byID) != 1 {
		t.Fatalf("%d metrics of tenants, %d tenants, want none and 1", count(), len(as.byID))
	}
}

// BenchmarkLimits is what limits cost per series that is known.
func BenchmarkLimits(b *testing.B) {
	request := wire.NewBatch("acme")
	for i := range 2000 {
		ls := []string{"__name__", "http_requests_total"}
		for j := range 11 {
			ls = append(ls, fmt.Sprintf("label_%02d", j), fmt.Sprintf("value_%d_%d", j, i))
		}
		request.Add(labels.FromStrings(ls...)).Samples = []wire.Sample{{T: 1}}
	}
	f := func(name string, l tenant.Limits) {
		b.Run(name, func(b *testing.B) {
			opts := limited(l)
			c := newCluster(b, newFakeRing(1, "a"), opts)
			defer c.close()
			c.Distributor.ring.placement = func() ring.Placement { return &ring.Single{} }
			b.ReportAllocs()
			for b.Loop() {
				r := c.newRequest(context.Background(), request)
				c.admit(r)
				if p := r.parts[0]; p.err != nil || p.skipped > 0 {
					b.Fatal(p.err)
				}
				c.release(r)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/series")
		})
	}
	f("none", tenant.Limits{})
	f("usual", tenant.Limits{LabelsPerSeries: 40, LabelNameBytes: 1024, LabelValueBytes: 2048, HistogramBuckets: 160})
	f("many", tenant.Limits{LabelsPerSeries: 1000, LabelNameBytes: 1024, LabelValueBytes: 2048})
	f("tight", tenant.Limits{LabelsPerSeries: 40, LabelNameBytes: 64, LabelValueBytes: 128})
	f("rate", tenant.Limits{SamplesPerSecond: 1e12, SamplesBurst: 1e12, RequestSamples: 1e6})
}
