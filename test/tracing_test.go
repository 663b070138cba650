package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collectpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// seenSpan is a span that a collector was sent.
type seenSpan struct{ service, name, trace, id, parent string }

// spanCollector takes spans by OTLP over HTTP.
type spanCollector struct {
	mu    sync.Mutex
	spans []seenSpan
}

func (c *spanCollector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	req := new(collectpb.ExportTraceServiceRequest)
	if proto.Unmarshal(raw, req) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range req.ResourceSpans {
		service := ""
		for _, a := range of.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, seenSpan{service, s.Name, fmt.Sprintf("%x", s.TraceId), fmt.Sprintf("%x", s.SpanId),
					fmt.Sprintf("%x", s.ParentSpanId)})
			}
		}
	}
}

// chain reports whether the trace has spans of these services and names, each below the one before.
func (c *spanCollector) chain(trace string, names ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var have []string
	var parents []string
	for i, name := range names {
		var next []string
		for _, s := range c.spans {
			if s.trace == trace && s.service+": "+s.name == name && (i == 0 || slices.Contains(parents, s.parent)) {
				next = append(next, s.id)
			}
		}
		if len(next) == 0 {
			for _, s := range c.spans {
				if s.trace == trace {
					have = append(have, s.service+": "+s.name)
				}
			}
			return fmt.Errorf("%q is not below the %d before it; the trace has %q", name, i, have)
		}
		parents = next
	}
	return nil
}

// TestTracing: a write that a distributor routes to a receiver, and a query of a querier, are one trace each over both
// processes. A request that is not forced is none, and has a line in the log.
func TestTracing(t *testing.T) {
	spans := new(spanCollector)
	s := httptest.NewServer(spans)
	defer s.Close()
	ports := freePorts(t, 10)
	gossip := addr(ports[0])
	flags := func(role string, http, grpc, gossipAt int, more ...string) []string {
		return append(
			[]string{role, "--http-address=" + addr(http), "--grpc-address=" + addr(grpc), "--gossip.address=" + addr(gossipAt),
				"--gossip.join=" + gossip, "--log.level=debug",
				"--request.logging-config=options: {decision: {log_start: true, log_end: true}}",
				"--tracing.config=type: OTLP\nconfig: {client_type: http, insecure: true, endpoint: '" + strings.TrimPrefix(s.URL,
					"http://") +
					"', sampler_type: parentbasedneversample}"},
			more...)
	}
	start := func(name string, args []string) *process {
		p := hearth(t, name, args...)
		p.waitFor("msg=serving", 30*time.Second)
		return p
	}
	receiver := start("receiver",
		flags("receive", ports[1], ports[2], ports[0], "--tsdb.path="+t.TempDir(), "--remote-write.address="+addr(ports[3])))
	distributor := start("distributor",
		flags("distributor", ports[4], ports[5], ports[6], "--remote-write.address="+addr(ports[7])))
	querier := start("querier", flags("query", ports[8], ports[9], freePorts(t, 1)[0]))
	send := func(req *http.Request, want int, headers ...string) http.Header {
		t.Helper()
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
			t.Fatalf("%s: status %d: %s", req.URL, resp.StatusCode, body)
		}
		return resp.Header
	}
	now := time.Now().UnixMilli()
	write := func() *http.Request {
		req, err := http.NewRequest(http.MethodPost, "http://"+addr(ports[4])+"/api/v1/otlp",
			strings.NewReader(fmt.Sprintf(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
			{"name":"m","gauge":{"dataPoints":[{"timeUnixNano":"%d000000","asDouble":1}]}}]}]}]}`, now)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		return req
	}
	for _, at := range []int{ports[1], ports[4], ports[8]} {
		eventually(t, 30*time.Second, func() error { _, err := get("http://"+addr(at)+"/-/ready", nil); return err })
	}
	query := func() *http.Request {
		req, err := http.NewRequest(http.MethodPost, "http://"+addr(ports[8])+"/api/v1/query", strings.NewReader("query=m"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return req
	}
	if h := send(write(), 200, "X-Request-ID", "plain-write"); h.Get("X-Thanos-Trace-Id") != "" ||
		h.Get("X-Request-ID") != "plain-write" {
		t.Errorf("a request that is not sampled: %v", h)
	}
	written := send(write(), 200, "X-Thanos-Force-Tracing", "1", "X-Request-ID", "traced-write").Get("X-Thanos-Trace-Id")
	asked := send(query(), 200, "X-Thanos-Force-Tracing", "1", "X-Request-ID", "traced-query").Get("X-Thanos-Trace-Id")
	eventually(t, 30*time.Second, func() error {
		if err := spans.chain(written, "hearth-distributor: HTTP /api/v1/otlp", "hearth-distributor: distributor push",
			"hearth-distributor: member write", "hearth-receive: receive write"); err != nil {
			return err
		}
		if err := spans.chain(asked, "hearth-query: HTTP /api/v1/query"); err != nil {
			return err
		}
		if err := spans.chain(asked, "hearth-query: promqlExec", "hearth-query: promqlEval"); err != nil {
			return err
		}
		return spans.chain(asked, "hearth-query: select from source", "hearth-receive: gRPC /thanos.Store/Series")
	})
	eventually(t, 30*time.Second, func() error {
		spans.mu.Lock()
		defer spans.mu.Unlock()
		for _, s := range spans.spans {
			if s.trace != written && s.trace != asked {
				return fmt.Errorf("a trace that nobody asked for: %+v", s)
			}
		}
		if !slices.ContainsFunc(spans.spans, func(s seenSpan) bool {
			return s.trace == asked && s.service == "hearth-receive" && strings.HasPrefix(s.name, "gRPC /thanos.Store/Series")
		}) {
			return fmt.Errorf("the receiver is not in the trace of the query: %v", spans.spans)
		}
		return nil
	})
	for p, lines := range map[*process][]string{
		distributor: {"request_id=plain-write", "request_id=traced-write", "trace_id=" + written, "tenant=default-tenant"},
		querier:     {"request_id=traced-query", "query=m", "trace_id=" + asked},
		receiver:    {"request_id=traced-query", "service=thanos.Store method=Series"},
	} {
		for _, line := range lines {
			p.waitFor(line, 10*time.Second)
		}
	}
}
