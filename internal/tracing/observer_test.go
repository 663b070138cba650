package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collectpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	grpcmd "google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// collector takes spans by OTLP.
type collector struct {
	collectpb.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []*tracepb.Span
	attrs map[string]string // of the resources
	token []string          // of the headers
}

func (c *collector) take(req *collectpb.ExportTraceServiceRequest, token ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = append(c.token, token...)
	c.attrs = map[string]string{}
	for _, r := range req.ResourceSpans {
		for _, a := range r.Resource.Attributes {
			c.attrs[a.Key] = a.Value.GetStringValue()
		}
		for _, s := range r.ScopeSpans {
			c.spans = append(c.spans, s.Spans...)
		}
	}
}

func (c *collector) Export(
	ctx context.Context,
	req *collectpb.ExportTraceServiceRequest,
) (*collectpb.ExportTraceServiceResponse, error) {
	md, _ := grpcmd.FromIncomingContext(ctx)
	c.take(req, md.Get("x-token")...)
	return &collectpb.ExportTraceServiceResponse{}, nil
}

func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	raw, _ := io.ReadAll(body)
	req := new(collectpb.ExportTraceServiceRequest)
	if err := proto.Unmarshal(raw, req); err == nil && r.URL.Path == "/v1/traces" {
		c.take(req, r.Header.Get("X-Token"))
	}
}

// named are the spans of a name.
func (c *collector) named(name string) (all []*tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Name == name {
			all = append(all, s)
		}
	}
	return all
}

func attr(s *tracepb.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			if n := a.Value.GetIntValue(); n != 0 {
				return fmt.Sprint(n)
			}
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// opened is a Tracer with a sampler, whose spans go to a collector once it is closed.
func opened(t *testing.T, sampler string, more ...string) (*Tracer, *collector, *prometheus.Registry) {
	t.Helper()
	c, reg := new(collector), prometheus.NewRegistry()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	collectpb.RegisterTraceServiceServer(s, c)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	config, err := ParseConfig("test",
		[]byte("type: OTLP\nconfig: {client_type: grpc, insecure: true, headers: {x-token: secret}, endpoint: '"+
			l.Addr().String()+"', sampler_type: "+sampler+strings.Join(more, "")+"}"))
	if err != nil {
		t.Fatal(err)
	}
	tracer := New(slog.New(slog.DiscardHandler), reg, *config, Process{Service: "hearth-test", Version: "v1"})
	if err := tracer.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Close() })
	return tracer, c, reg
}

// recorder is what httpx hands to a handler.
type recorder struct{ *httptest.ResponseRecorder }

func (r recorder) Status() int { return r.Code }

func request(method, target string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

const sampledParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestHTTPSpans(t *testing.T) {
	tracer, c, reg := opened(t, "parentbasedneversample")
	o := NewObserver(slog.New(slog.DiscardHandler), tracer, LogRules{})
	h := o.HTTP("/api/v1/query", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Note(r.Context(), NoteTenant, "acme")
		_, span := Start(r.Context(), "query eval")
		span.Number("series", 3)
		span.End(errors.New("too many"))
		if r.URL.Path == "/panic" {
			panic("x")
		}
		w.WriteHeader(503)
	}))
	serve := func(r *http.Request) (w recorder) {
		w = recorder{httptest.NewRecorder()}
		defer func() { _ = recover() }()
		h.ServeHTTP(w, r)
		return w
	}
	if w := serve(request("GET", "/a")); w.Header().Get(HeaderTraceID) != "" || w.Header().Get(HeaderRequestID) == "" {
		t.Errorf("a request that is not sampled: %v", w.Header())
	}
	forced := serve(request("GET", "/a?query=up", HeaderForce, "1", HeaderRequestID, "mine"))
	if len(forced.Header().Get(HeaderTraceID)) != 32 || forced.Header().Get(HeaderRequestID) != "mine" {
		t.Errorf("a request that forces a trace: %v", forced.Header())
	}
	if w := serve(
		request("GET", "/a", "traceparent", sampledParent)); w.Header().Get(HeaderTraceID) != sampledParent[3:35] {
		t.Errorf("a request of a sampled trace: %v", w.Header())
	}
	serve(request("GET", "/panic", HeaderForce, "1"))
	if err := tracer.Close(); err != nil {
		t.Fatal(err)
	}
	spans := c.named("HTTP /api/v1/query")
	if len(spans) != 3 || len(c.named("query eval")) != 3 || c.attrs["service.name"] != "hearth-test" ||
		c.attrs["service.version"] != "v1" ||
		c.token[0] != "secret" {
		t.Fatalf("%v\n%v %v", c.spans, c.attrs, c.token)
	}
	first, eval := spans[0], c.named("query eval")[0]
	for key, want := range map[string]string{"http.request.method": "GET", "http.route": "/api/v1/query", "url.path": "/a", "request_id": "mine",
		"tenant": "acme", "http.response.status_code": "503"} {
		if got := attr(first, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if first.Status.Code != tracepb.Status_STATUS_CODE_ERROR || !bytes.Equal(eval.ParentSpanId, first.SpanId) ||
		attr(eval, "series") != "3" ||
		eval.Status.Message != "too many" {
		t.Errorf("%v\n%v", first, eval)
	}
	if got := fmt.Sprintf("%x", spans[1].ParentSpanId); got != sampledParent[36:52] {
		t.Errorf("the parent of the second is %s", got)
	}
	if attr(spans[2], "http.response.status_code") != "500" {
		t.Errorf("a panic: %v", spans[2])
	}
	if got := testutil.ToFloat64(tracer.spans.WithLabelValues("sent")); got != 6 {
		t.Errorf("%v spans were counted", got)
	}
	_ = reg
}

// TestOverHTTP: the other client type, with compression.
func TestOverHTTP(t *testing.T) {
	c := new(collector)
	s := httptest.NewServer(c)
	defer s.Close()
	config, err := ParseConfig("test",
		[]byte("type: OTLP\nconfig: {client_type: http, insecure: true, compression: gzip, headers: {x-token: secret}, endpoint: '"+
			strings.TrimPrefix(s.URL, "http://")+"'}"))
	if err != nil {
		t.Fatal(err)
	}
	tracer := New(slog.New(slog.DiscardHandler), nil, *config, Process{Service: "hearth-test"})
	if err := tracer.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	h := NewObserver(slog.New(slog.DiscardHandler), tracer, LogRules{}).HTTP("/x", http.NotFoundHandler())
	h.ServeHTTP(recorder{httptest.NewRecorder()}, request("GET", "/x"))
	h = NewObserver(slog.New(slog.DiscardHandler), tracer, LogRules{}).HTTP("/-/ready", http.NotFoundHandler())
	h.ServeHTTP(recorder{httptest.NewRecorder()}, request("GET", "/-/ready"))
	_ = tracer.Close()
	if len(c.spans) != 1 || len(c.token) != 1 || c.token[0] != "secret" ||
		attr(c.spans[0], "http.response.status_code") != "404" {
		t.Errorf("%v %v", c.spans, c.token)
	}
}

// TestCollectorDown: a collector that is not there is one line in the log, and holds nothing up.
func TestCollectorDown(t *testing.T) {
	log := new(bytes.Buffer)
	config, err := ParseConfig("test",
		[]byte("type: OTLP\nconfig: {client_type: http, insecure: true, endpoint: '127.0.0.1:1', timeout: 100ms}"))
	if err != nil {
		t.Fatal(err)
	}
	config.Collector.FlushInterval = time.Millisecond
	tracer := New(slog.New(slog.NewTextHandler(log, nil)), nil, *config, Process{})
	if err := tracer.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	h := NewObserver(slog.New(slog.DiscardHandler), tracer, LogRules{}).HTTP("/x", http.NotFoundHandler())
	for range 3 {
		h.ServeHTTP(recorder{httptest.NewRecorder()}, request("GET", "/x"))
		tracer.provider.ForceFlush(t.Context())
	}
	began := time.Now()
	_ = tracer.Close()
	if took := time.Since(began); took > closeTimeout+time.Second {
		t.Errorf("Close took %s", took)
	}
	if n := strings.Count(log.String(), "spans are dropped"); n != 1 ||
		testutil.ToFloat64(tracer.spans.WithLabelValues("failed")) != 3 {
		t.Errorf("%d lines: %s", n, log)
	}
}

// TestSpansAreUTF8: what a caller sends never makes a message of spans invalid, which holds those of others, too.
func TestSpansAreUTF8(t *testing.T) {
	tracer, c, _ := opened(t, "alwayssample")
	o := NewObserver(slog.New(slog.DiscardHandler), tracer, LogRules{})
	h := o.HTTP("/x", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := request("GET", "/x")
	r.URL.Path = "/label/\xff/values"
	h.ServeHTTP(recorder{httptest.NewRecorder()}, r)
	_ = tracer.Close()
	if spans := c.named("HTTP /x"); len(spans) != 1 {
		t.Fatalf("%d spans came", len(spans))
	}
}

// TestGRPCSampling: a call is sampled as its caller says, by a force, by its decision, or by the sampler here where
// that does not follow the caller.
func TestGRPCSampling(t *testing.T) {
	const unsampled = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"
	f := func(sampler string, want int, pairs ...string) {
		t.Helper()
		tracer, c, _ := opened(t, sampler)
		o := NewObserver(slog.New(slog.DiscardHandler), tracer, LogRules{})
		_, end := o.Begin(t.Context(), "/thanos.Store/Series", grpcmd.Pairs(pairs...).Get)
		end(0, "OK", nil)
		_ = tracer.Close()
		if n := len(c.named("gRPC /thanos.Store/Series")); n != want {
			t.Errorf("%s, %q: %d spans, want %d", sampler, pairs, n, want)
		}
	}
	f("parentbasedalwayssample", 1)
	f("parentbasedalwayssample", 0, "traceparent", unsampled)
	f("parentbasedneversample", 1, "traceparent", unsampled, "x-thanos-force-tracing", "1")
	f("alwayssample", 1, "traceparent", unsampled)
	f("neversample", 0)
}

// TestGRPCSpans: a trace goes from an HTTP request to the calls that it makes, and to a write on a stream.
func TestGRPCSpans(t *testing.T) {
	tracer, c, _ := opened(t, "parentbasedneversample")
	o := NewObserver(slog.New(slog.DiscardHandler), tracer, LogRules{})
	begin := func(method string, pairs []string) (context.Context, func(uint32, string, error)) {
		md := grpcmd.Pairs(pairs...)
		return o.Begin(t.Context(), method, md.Get)
	}
	var carried, unsampled []string
	var stamp []byte
	h := o.HTTP("/x", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		carried, unsampled = o.Carry(r.Context()), carried
		if s := o.Stamp(r.Context()); s != nil {
			stamp = s
		}
		out := http.Header{}
		Inject(r.Context(), out)
		if out.Get(HeaderRequestID) != "mine" || out.Get("traceparent") == "" {
			t.Errorf("an HTTP request to others carries %v", out)
		}
	}))
	h.ServeHTTP(recorder{httptest.NewRecorder()}, request("GET", "/x", HeaderRequestID, "mine"))
	h.ServeHTTP(recorder{httptest.NewRecorder()}, request("GET", "/x", HeaderForce, "1", HeaderRequestID, "mine"))
	ctx, end := begin("/thanos.Store/Series", unsampled)
	if RequestID(ctx) != "mine" || trace.SpanContextFromContext(ctx).IsSampled() {
		t.Error("a call of a request that is not sampled is sampled")
	}
	end(0, "OK", nil)
	ctx, end = begin("/thanos.Store/Series", carried)
	_, inner := Start(ctx, "select")
	inner.End(nil)
	end(14, "Unavailable", errors.New("gone"))
	ctx, stored := o.Resume(t.Context(), stamp, "receive write")
	if RequestID(ctx) != "mine" {
		t.Errorf("a write on a stream has the request id %q", RequestID(ctx))
	}
	stored(nil)
	for _, bad := range [][]byte{nil, {1}, append([]byte{1}, stamp[1:]...), make([]byte, stampSize)} {
		_, end := o.Resume(t.Context(), bad, "bad")
		end(nil)
	}
	_ = tracer.Close()
	root, call, sel, write := c.named("HTTP /x"), c.named(
		"gRPC /thanos.Store/Series"), c.named("select"), c.named("receive write")
	if len(c.spans) != 4 || len(root) != 1 || len(call) != 1 || len(sel) != 1 || len(write) != 1 {
		t.Fatalf("%v", c.spans)
	}
	if !bytes.Equal(call[0].ParentSpanId, root[0].SpanId) || !bytes.Equal(write[0].ParentSpanId, root[0].SpanId) ||
		!bytes.Equal(sel[0].ParentSpanId,
			call[0].SpanId) || attr(call[0], "rpc.grpc.status_code") != "14" || attr(write[0], "request_id") != "mine" {
		t.Errorf("%v", c.spans)
	}
	if off := NewObserver(slog.New(slog.DiscardHandler), nil, LogRules{}); off.Carry(t.Context()) != nil ||
		off.Stamp(t.Context()) != nil {
		t.Error("without a request something is carried")
	}
}

func TestLogLines(t *testing.T) {
	log := new(bytes.Buffer)
	l := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	run := func(yaml string, status int, r *http.Request) string {
		t.Helper()
		rules, err := ParseLogRules("test", []byte(yaml))
		if err != nil {
			t.Fatal(err)
		}
		log.Reset()
		h := NewObserver(l, nil, rules).HTTP("/api/v1/query", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Note(r.Context(), NoteTenant, "acme")
			Note(r.Context(), NoteQuery, strings.Repeat("ü", 5000))
			w.WriteHeader(status)
		}))
		h.ServeHTTP(recorder{httptest.NewRecorder()}, r)
		return log.String()
	}
	secretly := func() *http.Request {
		r := request("POST", "/api/v1/query?token=hunter2", HeaderRequestID, "mine", "User-Agent", "curl")
		r.SetBasicAuth("alice", "hunter2")
		return r
	}
	both := "options: {decision: {log_start: true, log_end: true}}"
	got := run(both, 200, secretly())
	for _, want := range []string{`level=DEBUG msg="request started" protocol=http method=POST path=/api/v1/query`, `level=DEBUG msg="request ended"`,
		"request_id=mine", "status=200", "tenant=acme", "user_agent=curl", "took="} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	if strings.Contains(got, "hunter2") || len(got) > 3000 {
		t.Errorf("%d bytes: %s", len(got), got)
	}
	if got := run(both, 503, secretly()); !strings.Contains(got, `level=ERROR msg="request ended"`) {
		t.Error(got)
	}
	if got := run("options: {level: ERROR, decision: {log_start: true, log_end: true}}", 200, secretly()); got != "" {
		t.Error(got)
	}
	if got := run("", 500, secretly()); got != "" {
		t.Error(got)
	}
	if got := run("http: {config: [{path: /other}], options: {decision: {log_end: true}}}", 500, secretly()); got != "" {
		t.Error(got)
	}
	if got := run(both, 200, request("GET", "/", HeaderRequestID, "a\nlevel=ERROR")); strings.Contains(got, "a\\nlevel") ||
		!strings.Contains(got, "request_id=") {
		t.Errorf("an id that would spoil the log: %s", got)
	}
	rules, err := ParseLogRules("test", []byte(both))
	if err != nil {
		t.Fatal(err)
	}
	log.Reset()
	o := NewObserver(l, nil, rules)
	_, end := o.Begin(t.Context(), "/thanos.Store/Series", grpcmd.Pairs("x-request-id", "mine").Get)
	end(13, "Internal", errors.New("x"))
	if got := log.String(); !strings.Contains(got,
		`level=ERROR msg="request ended" protocol=grpc service=thanos.Store method=Series request_id=mine code=Internal`) {
		t.Error(got)
	}
}

func TestPerSecond(t *testing.T) {
	s, n := Sampler{PerSecond: 2}.build(), 0
	for range 10 {
		if s.ShouldSample(sdktrace.SamplingParameters{ParentContext: t.Context()}).Decision == sdktrace.RecordAndSample {
			n++
		}
	}
	if n < 2 || n > 4 || !strings.Contains(s.Description(), "2 a second") {
		t.Errorf("%d of 10 at once: %s", n, s.Description())
	}
}

func TestBelow(t *testing.T) {
	tracer, c, _ := opened(t, "alwayssample")
	lib := Below{}.Tracer("lib")
	ctx := t.Context()
	if got, span := lib.Start(ctx, "root"); got != ctx || span.IsRecording() {
		t.Error("a library begins a trace of its own")
	}
	ctx, root := tracer.tracer.Start(ctx, "root")
	_, span := lib.Start(ctx, "work")
	span.End()
	root.End()
	_ = tracer.Close()
	if w := c.named("work"); len(w) != 1 || !bytes.Equal(w[0].ParentSpanId, c.named("root")[0].SpanId) {
		t.Errorf("%v", c.spans)
	}
}

var nobody = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// BenchmarkWrap is what a request costs beside its work: with no observer, with one without a configuration, and with
// spans of which none is sampled.
func BenchmarkWrap(b *testing.B) {
	run := func(name string, h http.Handler) {
		b.Run(name, func(b *testing.B) {
			r, w := request("POST", "/api/v1/receive"), recorder{httptest.NewRecorder()}
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
	log := slog.New(slog.DiscardHandler)
	run("none", nobody)
	run("idle", NewObserver(log, nil, LogRules{}).HTTP("/api/v1/receive", nobody))
	config, err := ParseConfig("test",
		[]byte("type: OTLP\nconfig: {client_type: http, insecure: true, endpoint: '127.0.0.1:1', sampler_type: parentbasedneversample}"))
	if err != nil {
		b.Fatal(err)
	}
	tracer := New(log, nil, *config, Process{})
	if err := tracer.Open(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
	defer tracer.Close()
	run("unsampled", NewObserver(log, tracer, LogRules{}).HTTP("/api/v1/receive", nobody))
}

func BenchmarkStartUnsampled(b *testing.B) {
	ctx := context.WithValue(b.Context(), recordKey{}, &record{id: "x"})
	o := NewObserver(slog.New(slog.DiscardHandler), nil, LogRules{})
	b.ReportAllocs()
	for b.Loop() {
		ctx, span := Start(ctx, "member write")
		o.Stamp(ctx)
		span.End(nil)
	}
}
