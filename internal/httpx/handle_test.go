package httpx

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// do sends a request to the server's mux without a network.
func do(s *Server, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestRequestsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := New(quiet, reg, testOptions())
	other := testOptions()
	other.Listener = "remote-write"
	New(quiet, reg, other) // two listeners share a registry
	handle(s, "POST /api/v1/{what}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("what") == "push" {
			w.WriteHeader(http.StatusNoContent)
		}
	})
	do(s, "POST", "/api/v1/push")
	do(s, "POST", "/api/v1/push")
	do(s, "POST", "/api/v1/x")
	handle(s, "/any", func(http.ResponseWriter, *http.Request) {})
	do(s, "BREW", "/any")
	want := `
		# HELP hearth_http_requests_total HTTP requests answered.
		# TYPE hearth_http_requests_total counter
		hearth_http_requests_total{code="200",handler="/any",listener="http",method="other"} 1
		hearth_http_requests_total{code="200",handler="/api/v1/{what}",listener="http",method="POST"} 1
		hearth_http_requests_total{code="204",handler="/api/v1/{what}",listener="http",method="POST"} 2
		# HELP hearth_http_inflight_requests HTTP requests under way.
		# TYPE hearth_http_inflight_requests gauge
		hearth_http_inflight_requests{handler="/any",listener="http"} 0
		hearth_http_inflight_requests{handler="/api/v1/{what}",listener="http"} 0
	`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "hearth_http_requests_total",
		"hearth_http_inflight_requests"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(s.metrics.seconds); n != 2 {
		t.Errorf("%d duration histograms, want 2", n)
	}
}

func TestPanics(t *testing.T) {
	s := open(t, testOptions(), func(s *Server) {
		handle(s, "/early", func(http.ResponseWriter, *http.Request) { panic("early") })
		handle(s, "/late", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "half an ans")
			w.(http.Flusher).Flush()
			panic("late")
		})
	})
	if code, body := get(t, "http://"+s.Addr()+"/early", nil); code != 500 || strings.Contains(body, "early") {
		t.Errorf("panic before the answer: %d %q", code, body)
	}
	if code, body := get(t, "http://"+s.Addr()+"/late", nil); code != 0 {
		t.Errorf("panic within the answer: %d %q, want a broken connection", code, body)
	}
	if code, _ := get(t, "http://"+s.Addr()+"/", nil); code != 200 {
		t.Errorf("after the panics: %d", code)
	}
	if n := testutil.ToFloat64(s.metrics.panics); n != 2 {
		t.Errorf("%g panics counted, want 2", n)
	}
}

func TestReady(t *testing.T) {
	var health Health
	var broken error
	s := New(quiet, nil, testOptions())
	s.Add(Probes(&health)...)
	f := func(target string, status int, body string) {
		t.Helper()
		if w := do(s, "GET", target); w.Code != status || w.Body.String() != body {
			t.Errorf("%s: %d %q, want %d %q", target, w.Code, w.Body, status, body)
		}
	}
	f("/-/healthy", 200, "healthy\n")
	f("/-/ready", 200, "ready\n")
	health.AddCheck("tsdb", func() error { return nil })
	health.AddCheck("ring", func() error { return broken })
	f("/-/ready", 200, "ready\n")
	f("/-/ready?verbose", 200, "ready\n[+] tsdb\n[+] ring\n")
	broken = errors.New("1 of 3 members")
	f("/-/ready", 503, "not ready\n[-] ring: 1 of 3 members\n")
	f("/-/ready?verbose", 503, "not ready\n[+] tsdb\n[-] ring: 1 of 3 members\n")
	f("/-/ready?format=json", 503,
		`{"ready":false,"checks":[{"name":"tsdb","ready":true},{"name":"ring","ready":false,"error":"1 of 3 members"}]}`+"\n")
	f("/-/healthy", 200, "healthy\n")
	if w := do(s, "HEAD", "/-/ready"); w.Code != 503 || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d %q", w.Code, w.Body)
	}
}

func TestEndpoints(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := New(quiet, reg, testOptions())
	s.Add(Metrics(quiet, reg))
	s.Add(Profiles([]string{"hearth", "--a=b"})...)
	s.Add(StatusRoutes(&Status{
		Version: "1.2.3", Start: time.Unix(5, 0), Retention: "15d", FlagValues: map[string]string{"log.level": "info"},
	})...)
	f := func(target, want string) {
		t.Helper()
		if w := do(s, "GET", target); w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d without %q: %.300s", target, w.Code, want, w.Body)
		}
	}
	f("/metrics", `hearth_http_inflight_requests{handler="/metrics",listener="http"} 1`)
	f("/debug/pprof/", "goroutine")
	f("/debug/pprof/goroutine?debug=1", "goroutine profile")
	f("/debug/pprof/cmdline", "hearth\x00--a=b")
	f("/api/v1/status/buildinfo", `{"status":"success","data":{"version":"1.2.3",`)
	f("/api/v1/status/flags", `{"status":"success","data":{"log.level":"info"}}`)
	f("/api/v1/status/runtimeinfo", `"startTime":"1970-01-01T00:00:05Z"`)
	f("/api/v1/status/runtimeinfo", `"storageRetention":"15d"`)
	if w := do(s, "GET", "/metrics", "Accept",
		"application/openmetrics-text"); !strings.HasSuffix(w.Body.String(), "# EOF\n") {
		t.Error("no OpenMetrics")
	}
}

func TestWriteError(t *testing.T) {
	f := func(target, contentType string, err error, status int, retry, body string) {
		t.Helper()
		r := httptest.NewRequest("POST", target, nil)
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		WriteError(w, r, err)
		if w.Code != status || w.Header().Get("Retry-After") != retry || w.Body.String() != body {
			t.Errorf("%v: %d retry %q %q, want %d retry %q %q", err, w.Code, w.Header().Get("Retry-After"), w.Body, status,
				retry, body)
		}
	}
	limited := errs.WithRetryAfter(errs.E(errs.Limited, "too fast"), 1200*time.Millisecond)
	f("/api/v1/push", "application/x-protobuf", limited, 429, "2", "too fast\n")
	f("/api/v1/push", "application/x-protobuf;proto=io.prometheus.write.v2.Request", errs.E(errs.Unavailable, "no quorum"),
		503, "1", "no quorum\n")
	f("/ring/drain", "", errs.E(errs.NotFound, "no ring"), 404, "", "no ring\n")
	f("/prometheus/api/v1/query", "", errs.E(errs.Invalid, "parse: %q", "x"), 400, "",
		`{"status":"error","errorType":"bad_data","error":"parse: \"x\""}`+"\n")
	f("/api/v1/query", "", limited, 429, "2", `{"status":"error","errorType":"unavailable","error":"too fast"}`+"\n")
	f("/api/v1/query", "", errors.New("odd"), 500, "", `{"status":"error","errorType":"internal","error":"odd"}`+"\n")

	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/ring", nil)
	r.Header.Set("Accept", "application/json")
	WriteStatus(w, r, 400, errs.E(errs.Conflict, "old"))
	var a envelope
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 400 || a.ErrorType != "bad_data" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func BenchmarkInstrument(b *testing.B) {
	s := New(quiet, prometheus.NewRegistry(), testOptions())
	h := s.instrument("/x", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	r, w := httptest.NewRequest("POST", "/x", nil), httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

// handle adds an open route.
func handle(s *Server, pattern string, f http.HandlerFunc) {
	s.Add(Route{Pattern: pattern, Class: Open, Early: true, Handler: f})
}
