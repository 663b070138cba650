package distributor

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// judge is a member that finds two values for one time within a series, as a receiver does, and not across series.
type judge struct {
	mu    sync.Mutex
	texts []string
}

func (m *judge) write(_ context.Context, s wire.Shard) (failures []wire.Failure, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range s.Series {
		one := &s.Batch.Series[i]
		f := wire.Failure{Series: int(i), Kind: errs.Conflict, Reason: "two values"}
		values := map[int64]float64{}
		for _, p := range one.Samples {
			if v, ok := values[p.T]; !ok {
				values[p.T] = p.V
			} else if math.Float64bits(v) != math.Float64bits(p.V) {
				f.Samples++
			}
		}
		if f.Samples > 0 {
			failures = append(failures, f)
		}
		m.texts = append(m.texts, fmt.Sprintf("%s %s: %d", s.Batch.Tenant, one.Text(), len(one.Samples)))
	}
	return failures, nil
}

// have fails unless the member was asked for these series since the last call.
func (m *judge) have(t *testing.T, want ...string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.texts)
	slices.Sort(want)
	if !slices.Equal(m.texts, want) {
		t.Errorf("stored %q\nwant %q", m.texts, want)
	}
	m.texts = nil
}

func judged(t *testing.T, opts Options) (*cluster, *judge) {
	c := newCluster(t, newFakeRing(1, "a"), opts)
	t.Cleanup(c.close)
	m := &judge{}
	c.member("a").become(m.write)
	return c, m
}

// TestSeriesTwiceInARequest: two values for one time are a conflict, which the sender hears of by remote write 1.0 and
// 2.0, also when the series was known before; the same value twice is none.
func TestSeriesTwiceInARequest(t *testing.T) {
	c, m := judged(t, DefaultOptions())
	f := func(status, written int, values ...float64) {
		t.Helper()
		var v1 []prompb.TimeSeries
		symbols := writev2.NewSymbolTable()
		var v2 writev2.Request
		for _, v := range values {
			s := sample1("__name__", "up")
			s.Samples[0].Value = v
			v1 = append(v1, s)
			v2.Timeseries = append(v2.Timeseries, writev2.TimeSeries{
				LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings("__name__", "up"), nil),
				Samples:    []writev2.Sample{{Timestamp: 1000, Value: v}},
			})
		}
		v1 = append(v1, sample1("__name__", "other"))
		v2.Symbols = symbols.Symbols()
		msg, err := v2.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		up := fmt.Sprintf(`default-tenant {__name__="up"}: %d`, len(values))
		for range 2 {
			w := c.do(httpRequest{body: bodyV1(v1...)})
			if want := map[int]int{204: 204, 400: 409}[status]; w.Code != want {
				t.Errorf("1.0, %v: %d %s, want %d", values, w.Code, w.Body, want)
			}
			m.have(t, up, `default-tenant {__name__="other"}: 1`)
			w = c.do(httpRequest{content: "application/x-protobuf;proto=io.prometheus.write.v2.Request", body: snappy.Encode(nil, msg)})
			if got := w.Header().Get("X-Prometheus-Remote-Write-Samples-Written"); w.Code != status ||
				got != fmt.Sprint(written) {
				t.Errorf("2.0, %v: %d %s, %s written, want %d and %d", values, w.Code, w.Body, got, status, written)
			}
			m.have(t, up)
		}
	}
	f(204, 1, 1)
	f(204, 2, 1, 1)
	f(400, 1, 1, 2)
	f(400, 2, 1, 2, 1)
	f(400, 1, 1, 2, 3)
}

// TestSeriesTwiceInOTLP: scopes, and names that are translated to one, make one series of several; the data points
// as contradict each other are reported as rejected.
func TestSeriesTwiceInOTLP(t *testing.T) {
	c, m := judged(t, DefaultOptions())
	f := func(rejected int64, fill func(md pmetric.Metrics), want ...string) {
		t.Helper()
		md := pmetric.NewMetrics()
		fill(md)
		msg, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
		if err != nil {
			t.Fatal(err)
		}
		w := c.otlp(httpRequest{content: "application/x-protobuf", body: msg})
		n, text := otlpAnswer(t, w)
		if w.Code != http.StatusOK || n != rejected || (rejected > 0) != strings.Contains(text, "two values") {
			t.Errorf("%d: %d rejected, want %d: %s", w.Code, n, rejected, text)
		}
		m.have(t, want...)
	}
	gauge := func(md pmetric.Metrics, name string, values ...float64) {
		scopes := md.ResourceMetrics().AppendEmpty().ScopeMetrics()
		for _, v := range values {
			one := scopes.AppendEmpty().Metrics().AppendEmpty()
			one.SetName(name)
			p := one.SetEmptyGauge().DataPoints().AppendEmpty()
			p.SetTimestamp(1e9)
			p.SetDoubleValue(v)
		}
	}
	histogram := func(md pmetric.Metrics, counts ...uint64) {
		scopes := md.ResourceMetrics().AppendEmpty().ScopeMetrics()
		for _, n := range counts {
			one := scopes.AppendEmpty().Metrics().AppendEmpty()
			one.SetName("h")
			h := one.SetEmptyHistogram()
			h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			p := h.DataPoints().AppendEmpty()
			p.SetTimestamp(1e9)
			p.SetCount(n)
			p.ExplicitBounds().FromRaw([]float64{1})
			p.BucketCounts().FromRaw([]uint64{0, n})
		}
	}
	series := func(text string, n int) string { return fmt.Sprintf("default-tenant %s: %d", text, n) }
	f(0, func(md pmetric.Metrics) { gauge(md, "g", 1, 1) }, series(`{__name__="g"}`, 2))
	f(1, func(md pmetric.Metrics) { gauge(md, "g", 1, 2) }, series(`{__name__="g"}`, 2))
	f(2, func(md pmetric.Metrics) { gauge(md, "g", 1, 2, 1, 3) }, series(`{__name__="g"}`, 4))
	f(1, func(md pmetric.Metrics) { gauge(md, "a.b", 1); gauge(md, "c", 1); gauge(md, "a_b", 2) },
		series(`{__name__="a_b"}`, 2), series(`{__name__="c"}`, 1))
	buckets := []string{
		series(`{__name__="h_count"}`, 2),
		series(`{__name__="h_bucket", le="+Inf"}`, 2),
		series(`{__name__="h_bucket", le="1"}`, 2),
	}
	f(0, func(md pmetric.Metrics) { histogram(md, 5, 5) }, buckets...)
	f(1, func(md pmetric.Metrics) { histogram(md, 5, 6) }, buckets...)
}

// TestSeriesBecomeOne: what relabelling, a tenant's label that is taken off, or the label of HA pairs leaves of
// several series is one series, under the place of the first.
func TestSeriesBecomeOne(t *testing.T) {
	f := func(opts Options, want Result, stored []string, series ...string) {
		t.Helper()
		c, m := newCluster(t, newFakeRing(1, "a"), opts), &judge{}
		c.member("a").become(m.write)
		b := wire.NewBatch("acme")
		for i, text := range series {
			s := b.Add(labels.FromStrings(strings.Fields(text)...))
			s.Samples = []wire.Sample{{T: 1000, V: float64(i)}}
		}
		r := c.push(b)
		c.close() // then no member works on it any more
		if r.Series != len(series) || r.Samples != want.Samples || r.Duplicates != want.Duplicates ||
			r.Dropped != want.Dropped ||
			len(r.Failures) != len(want.Failures) {
			t.Fatalf("%+v, want %+v", r, want)
		}
		for i, f := range want.Failures {
			if got := r.Failures[i]; got.Series != f.Series || got.Samples != f.Samples || got.Kind != errs.Conflict {
				t.Errorf("%+v, want %+v", got, f)
			}
		}
		m.have(t, stored...)
		freed(t, b)
	}
	conflict := func(i, samples int) wire.Failure { return wire.Failure{Series: i, Samples: samples} }

	relabelOutcome := DefaultOptions()
	relabelOutcome.Relabel = relabelRules(t, someRules)
	f(relabelOutcome, Result{Samples: 3, Dropped: Counts{Samples: 1}, Failures: []wire.Failure{conflict(2, 2)}},
		[]string{`acme {__name__="a"}: 1`, `acme {__name__="m"}: 3`, `acme {__name__="z"}: 1`},
		"__name__ debug_x", "__name__ a", "__name__ m pod_uid 1", "__name__ m pod_uid 2", "__name__ z", "__name__ m")

	f(splitting(), Result{Samples: 3, Failures: []wire.Failure{conflict(1, 1)}},
		[]string{`acme {__name__="m"}: 1`, `red {__name__="m"}: 2`, `blue {__name__="m"}: 1`},
		"__name__ m", "__name__ m team red", "__name__ m team blue", "__name__ m team red")

	// The replica one is elected. Its series is one with a series without replica; the other replica's are duplicates,
	// and what stands behind them keeps its place.
	pair := paired(func(l *tenant.Limits) { l.LabelsPerSeries = 4 })
	f(pair, Result{Samples: 2, Duplicates: Counts{Samples: 2}, Failures: []wire.Failure{conflict(0, 1)}},
		[]string{`acme {__name__="m", cluster="eu"}: 2`, `acme {__name__="z"}: 1`}, "__name__ m cluster eu __replica__ one",
		"__name__ m cluster eu", "__name__ m cluster eu __replica__ two", "__name__ z",
		"__name__ n cluster eu __replica__ two")
}

// TestPanicInAMember: a panic while a shard is written costs the copy of one member, and a panic in the part of one
// tenant that tenant's series. Neither takes the process down, or holds up what comes next.
func TestPanicInAMember(t *testing.T) {
	opts := splitting()
	opts.RetryMin, opts.RetryMax = 1, 1
	c := newCluster(t, newFakeRing(3, "a", "b", "c"), opts)
	defer c.close()
	c.member("a").become(func(context.Context, wire.Shard) ([]wire.Failure, error) { panic("in a") })
	if r := c.push(batch(5)); r.Samples != 5 || r.Err() != nil {
		t.Fatalf("%+v", r)
	}
	c.member("b").become(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
		if s.Batch.Tenant == "red" {
			panic("in b")
		}
		return nil, nil
	})
	r := c.push(teams("red", "blue"))
	if r.Samples != 1 || len(r.Failures) != 1 || r.Failures[0].Series != 0 || r.Kind() != errs.Unavailable ||
		!strings.Contains(r.Err().Error(), "panic: in ") {
		t.Fatalf("%+v", r)
	}
	if r := c.push(batch(5)); r.Samples != 5 || r.Err() != nil {
		t.Fatalf("%+v", r)
	}
	c.member("a").become(nil)
	c.member("b").become(nil)
}

// TestClaimsOfSeriesThatBecomeOne: what is stored of an elected replica is judged by its own series, also when those
// before them have become one.
func TestClaimsOfSeriesThatBecomeOne(t *testing.T) {
	c, _ := judged(t, paired(nil))
	src := wire.NewBatch("acme")
	for i, text := range []string{"drop me", "__name__ m cluster eu", "__name__ m cluster eu __replica__ one", "__name__ n cluster eu __replica__ one"} {
		src.Add(labels.FromStrings(strings.Fields(text)...)).Samples = []wire.Sample{{T: int64(1000 + i), V: 1}}
	}
	rw := wire.Rewrite(src)
	rw.Drop(0)
	for i := 1; i < len(src.Series); i++ {
		rw.Keep(i)
	}
	b, _ := rw.Done()
	f := func(want outcome, lost ...wire.Failure) {
		t.Helper()
		r := c.newRequest(context.Background(), b)
		defer c.release(r)
		c.admit(r)
		p := r.parts[0]
		if p.err != nil || len(p.batch.Series) != 2 || len(p.elected) != 1 || p.elected[0].from != 2 || p.elected[0].to != 4 {
			t.Fatalf("%v, %d series, runs %+v", p.err, len(p.batch.Series), p.elected)
		}
		each := outcomes{p: p, lost: lost}
		if got := each.of(p.elected[0]); got != want {
			t.Errorf("%v: %+v, want %+v", lost, got, want)
		}
	}
	f(outcome{newest: 1003, stored: true})
	f(outcome{newest: 1003, stored: true}, wire.Failure{Series: 0, Samples: 2})
	f(outcome{failed: true}, wire.Failure{Series: 1, Samples: 1})
	b.Release()
}
