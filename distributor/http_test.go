package distributor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

const (
	contentV1 = "application/x-protobuf"
	contentV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

// sample1 is a remote write 1.0 series with one sample; pairs are label names and values.
func sample1(pairs ...string) prompb.TimeSeries {
	s := prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: 1000, Value: 1}}}
	for i := 0; i < len(pairs); i += 2 {
		s.Labels = append(s.Labels, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return s
}

func bodyV1(series ...prompb.TimeSeries) []byte {
	msg, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	if err != nil {
		panic(err)
	}
	return snappy.Encode(nil, msg)
}

// bodyV2 has one series per list of label pairs, each with one sample, one histogram and one exemplar.
func bodyV2(series ...[]string) []byte {
	symbols := writev2.NewSymbolTable()
	req := &writev2.Request{}
	for _, pairs := range series {
		s := writev2.TimeSeries{
			Samples: []writev2.Sample{{Timestamp: 1000, Value: 1}},
			Histograms: []writev2.Histogram{
				{Timestamp: 2000, Count: &writev2.Histogram_CountInt{CountInt: 0}, ZeroCount: &writev2.Histogram_ZeroCountInt{}}},
			Exemplars: []writev2.Exemplar{{Timestamp: 1000, Value: 1}},
		}
		for _, p := range pairs {
			s.LabelsRefs = append(s.LabelsRefs, symbols.Symbolize(p))
		}
		req.Timeseries = append(req.Timeseries, s)
	}
	req.Symbols = symbols.Symbols()
	msg, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return snappy.Encode(nil, msg)
}

// request is a test row's request; the zero values are those of a good sender.
type httpRequest struct {
	method, content, encoding string
	headers                   []string // pairs
	body                      []byte
}

func (c *cluster) do(r httpRequest) *httptest.ResponseRecorder {
	method := r.method
	if method == "" {
		method = http.MethodPost
	}
	req := httptest.NewRequest(method, "/api/v1/receive", bytes.NewReader(r.body))
	if r.content != "" {
		req.Header.Set("Content-Type", r.content)
	}
	if r.encoding != "" {
		req.Header.Set("Content-Encoding", r.encoding)
	}
	for i := 0; i < len(r.headers); i += 2 {
		req.Header.Add(r.headers[i], r.headers[i+1])
	}
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, req)
	return w
}

func TestHandlerStatus(t *testing.T) {
	good1, good2 := bodyV1(sample1("__name__", "up", "job", "a")), bodyV2([]string{"__name__", "up", "job", "a"})
	huge := bodyV1(sample1("__name__", "up", "pad", strings.Repeat("x", 100_000)))
	noise := make([]byte, 70_000)
	for i := range noise {
		noise[i] = byte(i * i >> 3)
	}
	f := func(r httpRequest, status, stored int, text string) {
		t.Helper()
		opts := DefaultOptions()
		opts.MaxBody, opts.MaxDecoded = 64<<10, 80_000
		c := newCluster(t, newFakeRing(1, "a"), opts)
		defer c.close()
		w := c.do(r)
		body := w.Body.String()
		if w.Code != status || !strings.Contains(body, text) || status == http.StatusNoContent && body != "" {
			t.Fatalf("status %d %q, want %d with %q", w.Code, body, status, text)
		}
		if n, _ := c.member("a").count(); n != stored {
			t.Fatalf("status %d: %d series stored, want %d", w.Code, n, stored)
		}
	}
	// Forms of a good request.
	f(httpRequest{content: contentV1, encoding: "snappy", body: good1}, 204, 1, "")
	f(httpRequest{content: contentV1, body: good1}, 204, 1, "")
	f(httpRequest{body: good1}, 204, 1, "")
	f(httpRequest{content: contentV1 + "; proto=prometheus.WriteRequest", body: good1}, 204, 1, "")
	f(httpRequest{content: "Application/X-Protobuf", body: good1}, 204, 1, "")
	f(httpRequest{content: contentV2, encoding: "snappy", body: good2}, 204, 1, "")
	f(httpRequest{content: contentV1 + "; proto=io.prometheus.write.v2.Request", body: good2}, 204, 1, "")
	f(httpRequest{content: contentV1, body: snappy.Encode(nil, nil)}, 204, 0, "")
	f(httpRequest{content: contentV1, headers: []string{"X-Prometheus-Remote-Write-Version", "0.1.0"}, body: good1}, 204,
		1, "")

	// Not remote write.
	f(httpRequest{method: http.MethodGet}, 405, 0, "POST")
	f(httpRequest{method: http.MethodPut, content: contentV1, body: good1}, 405, 0, "POST")
	f(httpRequest{content: "application/json", body: good1}, 415, 0, "application/json")
	f(httpRequest{content: "application/x-protobuf; proto=", body: good1}, 415, 0, "")
	f(httpRequest{content: contentV1 + ";proto=io.prometheus.write.v3.Request", body: good1}, 415, 0, "v3")
	f(httpRequest{content: contentV1, encoding: "gzip", body: good1}, 415, 0, "gzip")
	f(httpRequest{content: contentV2, encoding: "zstd", body: good2}, 415, 0, "zstd")

	// Garbage.
	f(httpRequest{content: contentV1, body: nil}, 400, 0, "snappy")
	f(httpRequest{content: contentV1, body: good1[:len(good1)-2]}, 400, 0, "snappy")
	f(httpRequest{content: contentV1, body: []byte("not snappy at all")}, 400, 0, "snappy")
	f(httpRequest{content: contentV1, body: snappy.Encode(nil, []byte("no protobuf"))}, 400, 0, "")
	f(httpRequest{content: contentV2, body: snappy.Encode(nil, []byte{0xff, 0xff})}, 400, 0, "")
	f(httpRequest{content: contentV1, body: huge}, 413, 0, "80000")
	f(httpRequest{content: contentV1, body: noise}, 413, 0, "65536")

	// Tenants.
	for _, id := range []string{"..", ".", "a/b", "a|b", " a", strings.Repeat("x", 151), "a\x00"} {
		f(httpRequest{content: contentV1, headers: []string{"THANOS-TENANT", id}, body: good1}, 400, 0, "tenant")
		f(httpRequest{content: contentV1, headers: []string{"X-Scope-OrgID", id}, body: good1}, 400, 0, "tenant")
	}
	f(httpRequest{content: contentV1, headers: []string{"X-Scope-OrgID", "a", "THANOS-TENANT", "b"}, body: good1}, 400, 0,
		"two tenants")
	f(httpRequest{content: contentV1, headers: []string{"X-Scope-OrgID", "a", "THANOS-TENANT", "a"}, body: good1}, 204, 1,
		"")

	// Series: unsorted labels are sorted, a bad series does not take the others down.
	f(httpRequest{content: contentV1, body: bodyV1(sample1("job", "a", "__name__", "up"))}, 204, 1, "")
	f(
		httpRequest{content: contentV1,
			body: bodyV1(sample1("__name__", "up", "job", "a", "job", "b"), sample1("__name__", "up"))},
		400,
		1,
		"job",
	)
	f(httpRequest{content: contentV1, body: bodyV1(sample1("__name__", "up", "", "b"), sample1("__name__", "up"))}, 400, 1,
		"")
	f(
		httpRequest{content: contentV2,
			body: bodyV2([]string{"__name__", "up", "job", "a", "job", "b"}, []string{"__name__", "up"})},
		400,
		1,
		"job",
	)
}

// Outcomes of members become the status by 503 > 429 > 409/400, and in 2.0 the counts tell what was written.
func TestHandlerOutcomes(t *testing.T) {
	f := func(v2 bool, status int, behave func(context.Context, wire.Shard) ([]wire.Failure, error), written int) {
		t.Helper()
		c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
		defer c.close()
		c.member("a").become(behave)
		var r httpRequest
		if v2 {
			r = httpRequest{content: contentV2,
				body: bodyV2([]string{"__name__", "m0"}, []string{"__name__", "m1"}, []string{"__name__", "m2"})}
		} else {
			r = httpRequest{content: contentV1,
				body: bodyV1(sample1("__name__", "m0"), sample1("__name__", "m1"), sample1("__name__", "m2"))}
		}
		w := c.do(r)
		if w.Code != status {
			t.Fatalf("status %d %q, want %d", w.Code, w.Body, status)
		}
		if retry := w.Header().Get("Retry-After"); (retry != "") != (status == 503 || status == 429) {
			t.Fatalf("status %d with Retry-After %q", status, retry)
		}
		for _, what := range []string{"Samples", "Histograms", "Exemplars"} {
			want := ""
			if v2 {
				want = strconv.Itoa(written)
			}
			if got := w.Header().Get("X-Prometheus-Remote-Write-" + what + "-Written"); got != want {
				t.Fatalf("status %d: %s written %q, want %q", status, what, got, want)
			}
		}
	}
	all := func(behaviours ...func(context.Context, wire.Shard) ([]wire.Failure, error)) func(context.Context,
		wire.Shard) ([]wire.Failure, error) {
		return func(ctx context.Context, s wire.Shard) (failures []wire.Failure, _ error) {
			for _, b := range behaviours {
				more, err := b(ctx, s)
				if err != nil {
					return nil, err
				}
				failures = append(failures, more...)
			}
			for i := range failures {
				failures[i].Samples, failures[i].Histograms, failures[i].Exemplars = 1, 1, 1
			}
			return failures, nil
		}
	}
	for _, v2 := range []bool{false, true} {
		conflict := 409
		if v2 {
			conflict = 400
		}
		f(v2, 204, nil, 3)
		f(v2, conflict, all(refusing(errs.Conflict, 1)), 2)
		f(v2, 400, all(refusing(errs.Invalid, 1, 2)), 1)
		f(v2, 400, all(refusing(errs.TooLarge, 1)), 2)
		f(v2, conflict, all(refusing(errs.Invalid, 0), refusing(errs.Conflict, 1)), 1)
		f(v2, 429, all(refusing(errs.Limited, 0), refusing(errs.Conflict, 1)), 1)
		f(v2, 503, all(refusing(errs.Limited, 0), refusing(errs.Conflict, 1), refusing(errs.Exhausted, 2)), 0)
		f(v2, 503, all(refusing(errs.Internal, 0)), 2)
		f(v2, 503, down, 0)
		f(v2, 503, func(context.Context, wire.Shard) ([]wire.Failure, error) { return nil, io.ErrUnexpectedEOF }, 0)
	}
}

// The answer names the first failures, with tenant, series and reason, and no more.
func TestHandlerNamesFailures(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
	defer c.close()
	c.member("a").become(down)
	var series []prompb.TimeSeries
	for i := range 2000 {
		series = append(series, sample1("__name__", "up", "n", fmt.Sprint(i)))
	}
	w := c.do(httpRequest{content: contentV1, headers: []string{"X-Scope-OrgID", "acme"}, body: bodyV1(series...)})
	text := w.Body.String()
	for _, part := range []string{"tenant acme: 2000 of 2000 series", `tenant acme: unavailable: {__name__="up", n="9"}`, "member a: connection refused", "... and 1990 more"} {
		if !strings.Contains(text, part) {
			t.Fatalf("answer %q lacks %q", text, part)
		}
	}
	if lines := strings.Count(text, "\n"); lines != 12 || len(text) > 2000 {
		t.Fatalf("%d lines, %d bytes", lines, len(text))
	}
}

// What comes on top of the bound is refused at once, and the next one is let in when one has ended.
func TestHandlerBoundsWhatIsWorkedOn(t *testing.T) {
	f := func(change func(*Options)) {
		t.Helper()
		opts := DefaultOptions()
		change(&opts)
		c := newCluster(t, newFakeRing(1, "a"), opts)
		defer c.close()
		entered, leave := make(chan struct{}), make(chan struct{})
		c.member("a").become(func(context.Context, wire.Shard) ([]wire.Failure, error) {
			entered <- struct{}{}
			<-leave
			return nil, nil
		})
		good := httpRequest{content: contentV1, body: bodyV1(sample1("__name__", "up"))}
		first := make(chan int)
		go func() { first <- c.do(good).Code }()
		select {
		case <-entered:
		case code := <-first:
			t.Fatalf("first request: %d before it was written", code)
		}
		if w := c.do(good); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Fatalf("second request: %d %s", w.Code, w.Body)
		}
		close(leave)
		if code := <-first; code != 204 {
			t.Fatalf("first request: %d", code)
		}
		c.member("a").become(nil)
		if w := c.do(good); w.Code != 204 {
			t.Fatalf("third request: %d %s", w.Code, w.Body)
		}
		if n := testutil.ToFloat64(c.metrics.inflight) + testutil.ToFloat64(c.metrics.inflightBytes); n != 0 {
			t.Fatalf("%v requests and bytes are left in flight", n)
		}
		if n := testutil.ToFloat64(c.metrics.requests.WithLabelValues("1.0", "503")); n != 1 {
			t.Fatalf("%v refused requests counted, want 1", n)
		}
	}
	f(func(o *Options) { o.MaxRequests = 1 })
}

// What is kept for a member that does not answer is its share of requests as they are in memory: with all that a body
// has beside series, and once for all the tenants of a request.
func TestKeptBodiesCount(t *testing.T) {
	const pad = 4 << 20
	f := func(opts Options, want, tenants int, pairs ...[]string) {
		t.Helper()
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), opts)
		defer c.close()
		c.member("b").become(down)
		msg, err := snappy.Decode(nil, bodyV2(pairs...))
		if err != nil {
			t.Fatal(err)
		}
		msg = protowire.AppendBytes(append(msg, 4<<3|2), make([]byte, pad)) // a symbol that nothing refers to
		if w := c.do(httpRequest{content: contentV2, body: snappy.Encode(nil, msg)}); w.Code != http.StatusNoContent {
			t.Fatal(w.Code, w.Body)
		}
		kept := func(g *prometheus.GaugeVec) int { return int(testutil.ToFloat64(g.WithLabelValues("b"))) }
		for deadline := time.Now().Add(10 * time.Second); kept(c.metrics.waiting) < tenants; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d shards wait, want %d", kept(c.metrics.waiting), tenants)
			}
		}
		if bytes := kept(c.metrics.bytes); bytes < want || bytes > 2*want {
			t.Errorf("%d bytes are counted of %d or a little more", bytes, want)
		}
	}
	opts := DefaultOptions()
	opts.RetryMin, opts.RetryMax = time.Hour, time.Hour
	f(opts, pad, 1, []string{"__name__", "up", "job", "a"})
	opts.Relabel = relabelRules(t, someRules)
	f(opts, pad, 1, []string{"__name__", "up", "pod_uid", "a"})
	opts.Relabel, opts.SplitLabel = nil, "team"
	f(opts, pad, 2, []string{"__name__", "up", "team", "a"}, []string{"__name__", "up", "team", "b"})
}

func TestRetryAfter(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		seen[retryAfter(errs.E(errs.Unavailable, "x"))] = true
	}
	for s := range seen {
		if s < 1 || s > 5 {
			t.Fatalf("Retry-After %d", s)
		}
	}
	if len(seen) < 2 {
		t.Fatal("all senders are told to come back at the same time")
	}
	if s := retryAfter(errs.WithRetryAfter(errs.E(errs.Limited, "x"), 1100*time.Millisecond)); s != 2 {
		t.Fatalf("Retry-After %d, want 2", s)
	}
}

// A body that breaks off can be sent again.
func TestHandlerBodyThatBreaksOff(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
	defer c.close()
	body := io.MultiReader(bytes.NewReader(bodyV1(sample1("__name__", "up"))[:4]), brokenReader{})
	req := httptest.NewRequest(http.MethodPost, "/api/v1/push", body)
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, req)
	if w.Code != 503 {
		t.Fatalf("status %d %s", w.Code, w.Body)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Requests that were placed before are stored by their own placement, within the same bounds and metrics, and their
// members are closed with the others.
func TestPlacedHandler(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
	route, store := c.Handler(), c.PlacedHandler(ring.Single{Self: ring.Member{ID: "self"}})
	push := func(h http.Handler, series string) {
		t.Helper()
		req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(bodyV1(sample1("__name__", series))))
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, req); w.Code != 204 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	push(route, "x")
	push(store, "y")
	push(store, "z")
	c.place.Store(newFakeRing(1, "b"))
	push(route, "x") // a leaves, self stays
	push(store, "y")
	for member, want := range map[string]string{"a": "{__name__=\"x\"} x1", "b": "{__name__=\"x\"} x1", "self": "{__name__=\"y\"} x2 {__name__=\"z\"} x1"} {
		if got := strings.Join(c.member(member).stored(), " "); got != want {
			t.Errorf("%s has %s, want %s", member, got, want)
		}
	}
	if n := testutil.ToFloat64(c.metrics.samples); n != 2 {
		t.Errorf("%v samples are counted, want 2: whoever placed the others has counted them", n)
	}
	c.close()
	if n := c.member("self").hungUp(); n != 1 {
		t.Errorf("the writer of self was closed %d times", n)
	}
	if w := httptest.NewRecorder(); true {
		store.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(bodyV1(sample1("__name__", "x")))))
		if w.Code != 503 {
			t.Errorf("%d after Close", w.Code)
		}
	}
}
