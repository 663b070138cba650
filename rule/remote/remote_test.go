package remote

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule"
	"github.com/hearth-metrics/hearth/rule/targets"
)

// serve answers all queries with status and body, and notes the forms and the tenants.
func serve(t *testing.T, status int, body string) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.Path+" "+r.Header.Get(tenant.HeaderThanos)+" "+r.Form.Encode())
		mu.Unlock()
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func newQuerier(t *testing.T, change func(*Options), urls ...string) *Querier {
	t.Helper()
	opts := DefaultOptions()
	for _, u := range urls {
		c, err := targets.OfURL(u, 0, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		opts.Queriers = append(opts.Queriers, c)
	}
	if change != nil {
		change(&opts)
	}
	q, err := New(slog.New(slog.DiscardHandler), nil, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

const one = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[12.345,"NaN"]}]},` +
	`"warnings":["PromQL warning: x","store c did not answer"],"infos":["PromQL info: y"]}`

var ask = rule.Query{Tenants: []tenant.ID{"a", "b"}, Expr: "up", At: time.UnixMilli(12345)}

func TestQuery(t *testing.T) {
	url, asked := serve(t, 200, one)
	q := newQuerier(t, nil, url+"/prefix/")
	with := ask
	with.Lookback = time.Hour
	got, err := q.Query(t.Context(), with)
	if err != nil || len(got.Vector) != 1 || !math.IsNaN(got.Vector[0].F) || got.Vector[0].T != 12345 ||
		got.Vector[0].Metric.String() != `{a="b"}` || len(got.Missing) != 1 || got.Missing[0] != "store c did not answer" {
		t.Fatalf("%+v, %v", got, err)
	}
	const want = "POST /prefix/api/v1/query a|b dedup=true&lookback_delta=3600.000&partial_response=true&query=up&" +
		"time=12.345"
	if asked()[0] != want {
		t.Errorf("asked %s, want %s", asked()[0], want)
	}
	plain := newQuerier(t, func(o *Options) { o.PlainParams, o.Method = true, "GET" }, url)
	if _, err := plain.Query(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	if got := asked()[1]; got != "GET /api/v1/query a|b query=up&time=12.345" {
		t.Errorf("asked %s", got)
	}
}

func TestErrors(t *testing.T) {
	f := func(status int, body string, kind errs.Kind, text string) {
		t.Helper()
		url, _ := serve(t, status, body)
		_, err := newQuerier(t, nil, url).Query(t.Context(), ask)
		if errs.KindOf(err) != kind || !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("%d %s: %v (%s), want %s: %s", status, body, err, errs.KindOf(err), kind, text)
		}
	}
	f(400, `{"status":"error","errorType":"bad_data","error":"parse error"}`, errs.Invalid, "parse error")
	f(422, `{"status":"error","errorType":"execution","error":"many-to-many"}`, errs.Invalid, "many-to-many")
	f(503, `{"status":"error","errorType":"timeout","error":"took too long"}`, errs.Unavailable, "took too long")
	f(502, "<html>bad gateway", errs.Unavailable, "bad gateway")
	f(200, "{", errs.Unavailable, "status 200")
	f(200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`, errs.Invalid, "not a vector or scalar")
	f(200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}`, errs.Unavailable, "no value")
}

// TestOthers: a querier that is down, or silent, costs little; one that refuses the query is believed.
func TestOthers(t *testing.T) {
	good, _ := serve(t, 200, one)
	down, _ := serve(t, 503, "down")
	stop := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(stop) })
	q := newQuerier(t, func(o *Options) { o.Hedge = 20 * time.Millisecond }, "127.0.0.1:1", down, silent.URL, good)
	for range 20 {
		if got, err := q.Query(t.Context(), ask); err != nil || len(got.Vector) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if _, err := newQuerier(t, nil, "127.0.0.1:1", down).Query(t.Context(), ask); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("error %v", err)
	}
	big := newQuerier(t, func(o *Options) { o.MaxBytes = 10 }, good)
	if _, err := big.Query(t.Context(), ask); !strings.Contains(fmt.Sprint(err), "more than 10 bytes") {
		t.Errorf("error %v", err)
	}
}

// TestHistograms: native histograms come back as they were, from what Prometheus's API writes.
func TestHistograms(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		h := &histogram.FloatHistogram{Schema: int32(rnd.IntN(13)) - 4, Sum: rnd.NormFloat64(),
			CounterResetHint: histogram.GaugeType}
		if rnd.IntN(2) == 0 {
			h.ZeroThreshold, h.ZeroCount = 1e-100, float64(rnd.IntN(5)+1)
			h.Count += h.ZeroCount
		}
		side := func() (spans []histogram.Span, counts []float64) {
			for i := range rnd.IntN(4) {
				s := histogram.Span{Offset: int32(1 + rnd.IntN(5)), Length: uint32(1 + rnd.IntN(4))}
				if i == 0 {
					s.Offset = int32(rnd.IntN(20)) - 10
				}
				spans = append(spans, s)
				for range s.Length {
					counts = append(counts, float64(1+rnd.IntN(9)))
					h.Count += counts[len(counts)-1]
				}
			}
			return spans, counts
		}
		h.PositiveSpans, h.PositiveBuckets = side()
		h.NegativeSpans, h.NegativeBuckets = side()
		if len(h.PositiveBuckets)+len(h.NegativeBuckets) == 0 {
			h.Schema = 0
		}
		codec := v1.JSONCodec{}
		body, err := codec.Encode(&v1.Response{Status: "success", Data: &v1.QueryData{ResultType: "vector",
			Result: promql.Vector{{T: 1000, H: h, Metric: labels.FromStrings("x", "y")}}}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(200, body)
		if err != nil || len(got.Vector) != 1 {
			t.Fatalf("%s: %v", body, err)
		}
		if is := got.Vector[0].H; !is.Equals(h) {
			t.Fatalf("%s:\n%s\n%+v, want\n%+v", body, is, is, h)
		}
	}
}

// TestClipped: a bucket that the zero bucket covers in part is shown from there on.
func TestClipped(t *testing.T) {
	got, err := decode(200, []byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,`+
		`{"count":"6","sum":"1","buckets":[[3,"-0.3","0.3","1"],[0,"0.3","0.5","2"],[0,"0.5","1","3"]]}]}]}}`))
	want := &histogram.FloatHistogram{Schema: 0, Count: 6, Sum: 1, ZeroThreshold: 0.3, ZeroCount: 1,
		CounterResetHint: histogram.GaugeType, PositiveSpans: []histogram.Span{{Offset: -1, Length: 2}},
		PositiveBuckets: []float64{2, 3}}
	if err != nil || !got.Vector[0].H.Equals(want) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(one))
	f.Add([]byte(`{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}`))
	f.Add([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"histogram":[1,` +
		`{"count":"3","sum":"1","buckets":[[0,"1","2","3"],[3,"-0.1","0.1","1"]]}]}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := decode(200, body)
		if err != nil {
			return
		}
		for _, s := range a.Vector {
			if s.H != nil {
				if err := s.H.Validate(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
