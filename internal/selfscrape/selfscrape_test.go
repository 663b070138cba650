package selfscrape

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/hearth-metrics/hearth/internal/wire"
)

var quiet = slog.New(slog.DiscardHandler)

func testOptions() Options {
	o := DefaultOptions()
	o.Instance = "me"
	return o
}

// registry has every kind of metric, with names, labels and values that are easy to get wrong.
func registry(t *testing.T) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."},
		[]string{"code", "job"})
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "temperature", Help: "A \"quoted\"\nhelp."},
		[]string{"instance", "exported_instance", "empty"})
	summary := prometheus.NewSummary(
		prometheus.SummaryOpts{Name: "rpc_seconds", Objectives: map[float64]float64{0.5: 0.05, 1: 0.001}})
	classic := prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Name: "latency_seconds", Buckets: []float64{0.005, 1, 10, 1e6}}, []string{"path"})
	native := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "native_seconds", NativeHistogramBucketFactor: 1.1})
	both := prometheus.NewHistogram(
		prometheus.HistogramOpts{Name: "both_seconds", NativeHistogramBucketFactor: 1.5, Buckets: []float64{1, 2}})
	unused := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "unused_seconds", NativeHistogramBucketFactor: 1.1})
	untyped := prometheus.NewUntypedFunc(prometheus.UntypedOpts{Name: "mystery"}, func() float64 { return math.Inf(-1) })
	reg.MustRegister(counter, gauge, summary, classic, native, both, unused, untyped, timed{})
	counter.WithLabelValues("200", "own").(prometheus.ExemplarAdder).AddWithExemplar(7,
		prometheus.Labels{"trace_id": "abc", "a": "ü"})
	counter.WithLabelValues("500", "").Add(1)
	gauge.WithLabelValues("there", "taken", "").Set(math.NaN())
	gauge.WithLabelValues("", "", "").Set(-0.25)
	for i := range 50 {
		v := float64(i) * 0.3
		summary.Observe(v)
		classic.WithLabelValues("/").(prometheus.ExemplarObserver).ObserveWithExemplar(v,
			prometheus.Labels{"trace_id": fmt.Sprint(i)})
		native.(prometheus.ExemplarObserver).ObserveWithExemplar(v-5, prometheus.Labels{"trace_id": fmt.Sprint(i)})
		both.(prometheus.ExemplarObserver).ObserveWithExemplar(v, prometheus.Labels{"trace_id": fmt.Sprint(i)})
	}
	return reg
}

// timed is a collector whose sample brings a timestamp.
type timed struct{}

var timedDesc = prometheus.NewDesc("timed", "Has a timestamp.", nil, nil)

func (timed) Describe(ch chan<- *prometheus.Desc) { ch <- timedDesc }
func (timed) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewMetricWithTimestamp(time.UnixMilli(1234), prometheus.MustNewConstMetric(timedDesc,
		prometheus.GaugeValue, 3))
}

// describe writes a batch's or a parse's samples as comparable lines, by series.
type description map[string][]string

func (d description) add(ls labels.Labels, what string, args ...any) {
	d[ls.String()] = append(d[ls.String()], fmt.Sprintf(what, args...))
}

func describeBatch(b *wire.Batch) description {
	d, builder := description{}, labels.NewScratchBuilder(8)
	for _, s := range b.Series {
		ls := wire.LabelsOf(&builder, s.Labels())
		for _, x := range s.Samples {
			d.add(ls, "%d %x", x.T, math.Float64bits(x.V))
		}
		for _, h := range s.Histograms {
			d.add(ls, "%d %v %v", h.T, h.H, h.FH)
		}
		for _, e := range s.Exemplars {
			d.add(ls, "exemplar %d %g %s", e.T, e.V, wire.LabelsOf(&builder, e.Labels))
		}
	}
	return d
}

// describeParse reads an exposition as a scrape of a target with the options' labels would.
func describeParse(t *testing.T, p textparse.Parser, opts Options, now int64) description {
	t.Helper()
	d := description{}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return d
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry != textparse.EntrySeries && entry != textparse.EntryHistogram {
			continue
		}
		var ls labels.Labels
		p.Labels(&ls)
		ls = targetLabels(ls, opts)
		at := now
		if entry == textparse.EntrySeries {
			_, ts, v := p.Series()
			if ts != nil {
				at = *ts
			}
			d.add(ls, "%d %x", at, math.Float64bits(v))
		} else {
			_, ts, h, fh := p.Histogram()
			if ts != nil {
				at = *ts
			}
			d.add(ls, "%d %v %v", at, h, fh)
		}
		var found []exemplar.Exemplar
		for e := (exemplar.Exemplar{}); p.Exemplar(&e); e = (exemplar.Exemplar{}) {
			found = append(found, e)
		}
		slices.SortFunc(found, exemplar.Compare)
		for _, e := range found {
			d.add(ls, "exemplar %d %g %s", e.Ts, e.Value, e.Labels)
		}
	}
}

// targetLabels is Prometheus's rule for a target without honor_labels, written down a second time.
func targetLabels(ls labels.Labels, opts Options) labels.Labels {
	b := labels.NewBuilder(ls)
	b.Set("job", opts.Job).Set("instance", opts.Instance)
	for _, own := range []string{"job", "instance"} {
		if v := ls.Get(own); v != "" {
			name := "exported_" + own
			for b.Get(name) != "" {
				name = "exported_" + name
			}
			b.Set(name, v)
		}
	}
	return b.Labels()
}

func compare(t *testing.T, got, want description) {
	t.Helper()
	for ls, samples := range want {
		if !slices.Equal(got[ls], samples) {
			t.Errorf("%s\n got %q\nwant %q", ls, got[ls], samples)
		}
	}
	for ls := range got {
		if want[ls] == nil {
			t.Errorf("unexpected series %s: %q", ls, got[ls])
		}
	}
}

func convert(t *testing.T, families []*dto.MetricFamily, now int64) description {
	t.Helper()
	c := newConversion(testOptions(), now)
	for _, f := range families {
		c.family(f)
	}
	return describeBatch(c.batch)
}

func TestSameAsProtobufScrape(t *testing.T) {
	families, err := registry(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	for _, f := range families {
		if _, err := protodelim.MarshalTo(&body, f); err != nil {
			t.Fatal(err)
		}
	}
	p := textparse.NewProtobufParser(body.Bytes(), false, true, false, false, labels.NewSymbolTable())
	compare(t, convert(t, families, 5000), describeParse(t, p, testOptions(), 5000))
}

func TestSameAsTextScrape(t *testing.T) {
	families, err := registry(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	// Text knows no native histograms, and shows one without buckets as an empty classic one; nor exemplars.
	families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool {
		n := f.GetName()
		return n == "native_seconds" || n == "both_seconds" || n == "unused_seconds"
	})
	var body bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&body, f); err != nil {
			t.Fatal(err)
		}
	}
	got := convert(t, families, 5000)
	for ls, lines := range got {
		got[ls] = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "exemplar") })
	}
	p := textparse.NewPromParser(body.Bytes(), labels.NewSymbolTable(), false)
	compare(t, got, describeParse(t, p, testOptions(), 5000))
}

func TestMetadata(t *testing.T) {
	families, err := registry(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	c := newConversion(testOptions(), 1)
	for _, f := range families {
		c.family(f)
	}
	got := map[string]string{}
	for _, m := range c.batch.Metadata {
		got[m.Family] = m.Type
	}
	want := map[string]string{"requests_total": "counter", "temperature": "gauge", "rpc_seconds": "summary",
		"latency_seconds": "histogram", "native_seconds": "histogram", "both_seconds": "histogram",
		"unused_seconds": "histogram", "mystery": "unknown", "timed": "gauge"}
	if !maps.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// A collector's bug must not become a panic in here.
func TestInconsistentNativeHistogramIsLeftOut(t *testing.T) {
	one := uint32(3)
	f := &dto.MetricFamily{Name: new("bad"), Type: dto.MetricType_HISTOGRAM.Enum(), Metric: []*dto.Metric{
		{Histogram: &dto.Histogram{SampleCount: new(uint64), PositiveSpan: []*dto.BucketSpan{{Length: &one}},
			PositiveDelta: []int64{1}}}}}
	if got := convert(t, []*dto.MetricFamily{f}, 1); len(got) != 0 {
		t.Fatalf("got %v", got)
	}
}

// gauges is a gatherer whose series and failures a test sets.
type gauges struct {
	mu     sync.Mutex // guards all: the race detector does not see that synctest's sleep orders test and loop
	values map[string]float64
	err    error
}

func (g *gauges) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

func (g *gauges) Gather() ([]*dto.MetricFamily, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*dto.MetricFamily
	for _, name := range slices.Sorted(maps.Keys(g.values)) {
		v := g.values[name]
		out = append(out, &dto.MetricFamily{Name: &name, Type: dto.MetricType_GAUGE.Enum(),
			Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &v}}}})
	}
	return out, g.err
}

type pushed struct {
	values   map[string]float64 // by metric name
	metadata int
}

// recorder is a Push that notes what it got.
type recorder struct {
	mu  sync.Mutex // guards all, as in gauges
	got []pushed
	err error
}

func (r *recorder) push(_ context.Context, b *wire.Batch) error {
	p := pushed{values: map[string]float64{}, metadata: len(b.Metadata)}
	builder := labels.NewScratchBuilder(4)
	for _, s := range b.Series {
		full := append(wire.AppendTenant(nil, b.Tenant), s.Labels()...)
		if key, hash := wire.Identify(full); key != s.Key || hash != s.Hash {
			panic("wrong identity")
		}
		p.values[wire.LabelsOf(&builder, s.Labels()).Get(model.MetricNameLabel)] = s.Samples[0].V
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, p)
	return r.err
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

func (r *recorder) last() pushed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[len(r.got)-1]
}

func isStale(v float64) bool { return math.Float64bits(v) == value.StaleNaN }

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, sink := &gauges{values: map[string]float64{"a": 1, "b": 2}}, &recorder{}
		s, err := New(quiet, source, sink.push, testOptions())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Open(t.Context(), func(error) {}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if sink.count() != 1 {
			t.Fatalf("%d pushes at once, want 1", sink.count())
		}
		want := map[string]float64{"a": 1, "b": 2, "up": 1, "scrape_duration_seconds": 0, "scrape_samples_scraped": 2,
			"scrape_samples_post_metric_relabeling": 2, "scrape_series_added": 2}
		if got := sink.last(); !maps.Equal(got.values, want) || got.metadata != 2 {
			t.Fatalf("first push: %+v, want %v and 2 metadata", got, want)
		}

		next := func() pushed {
			t.Helper()
			n := sink.count()
			time.Sleep(15 * time.Second)
			synctest.Wait()
			if sink.count() != n+1 {
				t.Fatalf("%d pushes after an interval, want %d", sink.count(), n+1)
			}
			return sink.last()
		}
		source.set(func() { delete(source.values, "b"); sink.err = errors.New("no quorum") })
		if got := next(); !isStale(got.values["b"]) || got.metadata != 0 {
			t.Fatalf("vanished series: %+v", got)
		}
		source.set(func() { sink.err = nil })
		if got := next(); !isStale(got.values["b"]) || got.values["scrape_series_added"] != 0 {
			t.Fatalf("stale marker after a push that failed: %+v", got)
		}
		if _, still := next().values["b"]; still {
			t.Fatal("stale marker again after it was stored")
		}
		if got := next(); got.metadata != 1 {
			t.Fatalf("metadata a minute later: %d, want 1", got.metadata)
		}
		source.set(func() { source.values, source.err = nil, errors.New("broken") })
		if got := next(); got.values["up"] != 0 || !isStale(got.values["a"]) {
			t.Fatalf("nothing gathered: %+v", got)
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
		n := sink.count()
		time.Sleep(time.Minute)
		if sink.count() != n {
			t.Fatal("pushed after Close")
		}
	})
}

// A process that scrapes itself counts itself too.
// TestNothingIsSaidAtAStart: nothing is scraped before tenants are open, and a failure is logged once it lasts.
func TestNothingIsSaidAtAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var opening atomic.Bool
		opening.Store(true)
		opts := testOptions()
		opts.Ready = func() error {
			if opening.Load() {
				return errors.New("tenants are being opened")
			}
			return nil
		}
		source, sink := &gauges{values: map[string]float64{"a": 1}}, &recorder{err: errors.New("no quorum\nup: 1\nup: 2")}
		s, err := New(slog.New(slog.NewTextHandler(&log, nil)), source, sink.push, opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Open(t.Context(), func(error) {}); err != nil {
			t.Fatal(err)
		}
		f := func(after time.Duration, pushes, lines int, last string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if n := strings.Count(log.String(), "\n"); sink.count() < pushes || n != lines ||
				!strings.Contains(log.String(), last) {
				t.Fatalf("%d pushes, log:\n%swant %d lines with %q", sink.count(), &log, lines, last)
			}
		}
		f(time.Minute, 0, 0, "")
		if sink.count() != 0 {
			t.Fatal("scraped while tenants are opened")
		}
		opening.Store(false)
		f(45*time.Second, 3, 0, "")
		f(30*time.Second, 5, 1, "own metrics are not stored")
		f(time.Minute, 5, 1, "no quorum; up: 1\"")
		source.set(func() { sink.err = nil })
		f(time.Minute, 9, 2, "own metrics are stored again")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestOwnMetrics(t *testing.T) {
	reg, sink := prometheus.NewRegistry(), &recorder{}
	s, err := New(quiet, reg, sink.push, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	s.report(t.Context(), s.scrape(t.Context()))
	s.report(t.Context(), s.scrape(t.Context()))
	if got := sink.last().values["hearth_selfscrape_samples"]; got != 3 {
		t.Fatalf("samples of the first scrape: %g, want 3", got)
	}
}

func TestOptions(t *testing.T) {
	if _, err := New(quiet, &gauges{}, nil, DefaultOptions()); err == nil || !strings.Contains(err.Error(), "instance") {
		t.Fatalf("got %v, want a complaint about the instance", err)
	}
}

func BenchmarkConvert(b *testing.B) {
	var families []*dto.MetricFamily
	for i := range 500 {
		f := &dto.MetricFamily{Name: new(fmt.Sprint("family_", i)), Type: dto.MetricType_GAUGE.Enum()}
		for j := range 4 {
			f.Metric = append(f.Metric, &dto.Metric{Gauge: &dto.Gauge{Value: new(float64)},
				Label: []*dto.LabelPair{{Name: new("handler"), Value: new(fmt.Sprint("/api/", j))}}})
		}
		families = append(families, f)
	}
	b.ReportAllocs()
	for b.Loop() {
		c := newConversion(testOptions(), 1)
		for _, f := range families {
			c.family(f)
		}
	}
}
