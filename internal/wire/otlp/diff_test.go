package otlp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// oracle is what Prometheus's own handler stores.
type oracle struct {
	samples  []string
	metadata map[string]string
}

func (o *oracle) AppenderV2(context.Context) storage.AppenderV2 { return o }
func (o *oracle) Commit() error                                 { return nil }
func (o *oracle) Rollback() error                               { o.samples, o.metadata = nil, nil; return nil }

func (o *oracle) Append(
	_ storage.SeriesRef,
	ls labels.Labels,
	st, t int64,
	v float64,
	h *histogram.Histogram,
	_ *histogram.FloatHistogram,
	opts storage.AOptions,
) (storage.SeriesRef, error) {
	ls = ls.WithoutEmpty()
	for _, e := range opts.Exemplars {
		o.samples = add(o.samples, exemplarText(ls, e.Ts, e.Value, e.Labels))
	}
	o.samples = append(o.samples, sampleText(ls, st, t, v, h))
	m := opts.Metadata
	if _, ok := o.metadata[opts.MetricFamilyName]; !ok {
		o.metadata[opts.MetricFamilyName] = fmt.Sprintf("%s|%s|%s", m.Type, m.Unit, m.Help)
	}
	return 1, nil
}

func sampleText(ls labels.Labels, st, t int64, v float64, h *histogram.Histogram) string {
	if h != nil {
		return fmt.Sprintf("%s st=%d t=%d %s schema=%d custom=%v hint=%v", ls, st, t, h, h.Schema, h.CustomValues,
			h.CounterResetHint)
	}
	return fmt.Sprintf("%s st=%d t=%d %x", ls, st, t, math.Float64bits(v))
}

// exemplarText is of an exemplar of the series of, which may have several samples in a request.
func exemplarText(of labels.Labels, t int64, v float64, ls labels.Labels) string {
	return fmt.Sprint(of, exemplar.Exemplar{Labels: ls, Value: v, Ts: t})
}

// add adds what is not there yet: a request that has a series twice may have its exemplars twice, and stores keep them
// once.
func add(all []string, text string) []string {
	if slices.Contains(all, text) {
		return all
	}
	return append(all, text)
}

// stored is what a batch says, in the oracle's words.
func stored(b *wire.Batch) (samples []string, metadata map[string]string) {
	var builder labels.ScratchBuilder
	for i := range b.Series {
		s := &b.Series[i]
		ls := wire.LabelsOf(&builder, s.Labels())
		for _, e := range s.Exemplars {
			samples = add(samples, exemplarText(ls, e.T, e.V, wire.LabelsOf(&builder, e.Labels)))
		}
		for _, x := range s.Samples {
			samples = append(samples, sampleText(ls, x.ST, x.T, x.V, nil))
		}
		for _, x := range s.Histograms {
			samples = append(samples, sampleText(ls, x.ST, x.T, 0, x.H))
		}
	}
	metadata = map[string]string{}
	for _, m := range b.Metadata {
		metadata[m.Family] = fmt.Sprintf("%s|%s|%s", m.Type, m.Unit, m.Help)
	}
	return samples, metadata
}

// prometheus gives msg to Prometheus's handler.
func prometheus(t *testing.T, form Form, msg []byte, opts Options) *oracle {
	t.Helper()
	conf := config.DefaultConfig
	conf.OTLPConfig.TranslationStrategy = otlptranslator.TranslationStrategyOption(opts.Strategy)
	conf.OTLPConfig.PromoteResourceAttributes = opts.PromoteResourceAttributes
	conf.OTLPConfig.PromoteAllResourceAttributes = opts.PromoteAllResourceAttributes
	conf.OTLPConfig.IgnoreResourceAttributes = opts.IgnoreResourceAttributes
	conf.OTLPConfig.KeepIdentifyingResourceAttributes = opts.KeepIdentifyingResourceAttributes
	conf.OTLPConfig.PromoteScopeMetadata = opts.PromoteScopeMetadata
	conf.OTLPConfig.ConvertHistogramsToNHCB = opts.ConvertHistogramsToNHCB
	o := &oracle{metadata: map[string]string{}}
	h := remote.NewOTLPWriteHandler(slog.New(slog.DiscardHandler), nil, o, func() config.Config { return conf },
		remote.OTLPOptions{})
	req := httptest.NewRequest(http.MethodPost, "/api/v1/otlp/v1/metrics", bytes.NewReader(msg))
	req.Header.Set("Content-Type", form.ContentType())
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		t.Fatalf("Prometheus answers %d %s", w.Code, w.Body)
	}
	return o
}

// translate takes msg the way the distributor does.
func translate(t testing.TB, form Form, msg []byte, opts Options) *Translation {
	t.Helper()
	tr, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Size(form, msg); err != nil {
		t.Fatal(err)
	}
	md, err := Decode(form, msg)
	if err != nil {
		t.Fatal(err)
	}
	out, err := tr.Translate(context.Background(), "acme", md, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// same compares what both make of md, in both encodings.
func same(t *testing.T, md pmetric.Metrics, opts Options) {
	t.Helper()
	for _, form := range []Form{Protobuf, JSON} {
		msg := encode(form, md)
		want := prometheus(t, form, msg, opts)
		got := translate(t, form, msg, opts)
		samples, metadata := stored(got.Batch)
		sort.Strings(samples)
		sort.Strings(want.samples)
		if !slices.Equal(samples, want.samples) {
			t.Fatalf("%s %+v\ngot\n%s\nwant\n%s", form.ContentType(), opts, strings.Join(samples, "\n"),
				strings.Join(want.samples, "\n"))
		}
		if fmt.Sprint(metadata) != fmt.Sprint(want.metadata) {
			t.Fatalf("metadata %v, want %v", metadata, want.metadata)
		}
		if len(got.Batch.Rejected) > 0 || got.Rejected(nil) != 0 || got.Points != md.DataPointCount() {
			t.Fatalf("%d of %d points rejected: %v", got.Rejected(nil), got.Points, got.Batch.Rejected)
		}
		got.Batch.Release()
	}
}

func allOptions() []Options {
	var all []Options
	add := func(change func(o *Options)) {
		o := DefaultOptions()
		change(&o)
		all = append(all, o)
	}
	for _, s := range Strategies {
		add(func(o *Options) { o.Strategy = s })
		add(func(o *Options) {
			o.Strategy, o.PromoteScopeMetadata, o.ConvertHistogramsToNHCB, o.PromoteAllResourceAttributes = s, true, true, true
		})
	}
	add(func(o *Options) { o.PromoteResourceAttributes = []string{"host.name", "absent"} })
	add(func(o *Options) {
		o.PromoteAllResourceAttributes, o.IgnoreResourceAttributes = true, []string{"host.name"}
	})
	add(func(o *Options) { o.KeepIdentifyingResourceAttributes = true })
	return all
}

// TestSameAsPrometheus compares each type of metric under each option with what Prometheus's own handler stores.
func TestSameAsPrometheus(t *testing.T) {
	md := everything()
	for _, opts := range allOptions() {
		same(t, md, opts)
	}
	opts := DefaultOptions()
	opts.TargetInfo = false // Prometheus has no such option
	got := translate(t, Protobuf, encode(Protobuf, md), opts)
	defer got.Batch.Release()
	samples, _ := stored(got.Batch)
	want := prometheus(t, Protobuf, encode(Protobuf, md), opts).samples
	want = slices.DeleteFunc(want, func(s string) bool { return strings.Contains(s, `"target_info"`) })
	if !slices.Equal(samples, want) {
		t.Fatalf("without target_info\n%s\nwant\n%s", strings.Join(samples, "\n"), strings.Join(want, "\n"))
	}
}

// TestSameAsPrometheusRandom is the same with random requests.
func TestSameAsPrometheusRandom(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	all := allOptions()
	for range 100 {
		same(t, random(r), all[r.IntN(len(all))])
	}
}
