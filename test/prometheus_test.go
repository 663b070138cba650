package test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// startAll runs the all-in-one with its own scraping off and returns its HTTP base URL and its remote-write base URL.
func startAll(t *testing.T, dir string, extra ...string) (p *process, base string) {
	t.Helper()
	ports := freePorts(t, 3)
	args := append([]string{"--data-dir=" + dir, "--http-address=" + addr(ports[0]), "--grpc-address=" + addr(ports[1]),
		"--remote-write.address=" + addr(ports[2]), "--self-scrape.interval=0s"}, extra...)
	p = hearth(t, "all", args...)
	base = "http://" + addr(ports[0])
	p.ready(base+"/-/ready", 30*time.Second)
	return p, base
}

// startTraced is a program to scrape whose counter carries an exemplar that is a new one at each scrape.
func startTraced(t *testing.T) (address string) {
	t.Helper()
	reg := prometheus.NewRegistry()
	requests := promauto.With(reg).NewCounter(
		prometheus.CounterOpts{Name: "traced_requests_total", Help: "Requests with a trace."})
	metrics := promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true})
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.(prometheus.ExemplarAdder).AddWithExemplar(1,
			prometheus.Labels{"trace_id": fmt.Sprintf("trace-%d", n.Add(1))})
		metrics.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// promConfig makes a real Prometheus scrape itself, Hearth and a program with exemplars, and write to the tenants v1
// (1.0) and v2 (2.0).
func promConfig(self, hearthAddr, traced, writeURL string) string {
	return fmt.Sprintf(`global: {scrape_interval: 1s, scrape_native_histograms: true}
scrape_configs:
- job_name: prometheus
  static_configs: [{targets: ['%[1]s']}]
- job_name: hearth
  static_configs: [{targets: ['%[2]s']}]
- job_name: traced
  static_configs: [{targets: ['%[3]s']}]
remote_write:
- url: %[4]s/api/v1/receive
  name: v1
  headers: {X-Scope-OrgID: v1}
  send_exemplars: true
  send_native_histograms: true
  queue_config: {batch_send_deadline: 1s}
  metadata_config: {send_interval: 5s}
- url: %[4]s/api/v1/push
  name: v2
  protobuf_message: io.prometheus.write.v2.Request
  headers: {THANOS-TENANT: v2}
  send_exemplars: true
  send_native_histograms: true
  queue_config: {batch_send_deadline: 1s}
`, self, hearthAddr, traced, writeURL)
}

func startPrometheus(t *testing.T, config func(self string) string, more ...string) (p *process, base string) {
	t.Helper()
	port := freePorts(t, 1)[0]
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config(addr(port))), 0o644); err != nil {
		t.Fatal(err)
	}
	p = start(
		t,
		"prometheus",
		tool(t, "prometheus"),
		nil,
		append([]string{"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
			"--web.listen-address=" + addr(port), "--enable-feature=exemplar-storage,metadata-wal-records",
			"--log.level=warn"}, more...)...)
	base = "http://" + addr(port)
	p.ready(base+"/-/ready", 60*time.Second)
	return p, base
}

// TestPrometheusDifferential is the main job: what a real Prometheus writes is read back as that Prometheus answers.
func TestPrometheusDifferential(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, base := startAll(t, dir)
	traced := startTraced(t)
	began := time.Now()
	_, promBase := startPrometheus(t, func(self string) string {
		return promConfig(self, strings.TrimPrefix(base, "http://"), traced, base)
	})
	prom := api{base: promBase}
	// Queries on both make histogram and exemplar data worth comparing.
	holds := func(deadline time.Duration, expr string) {
		t.Helper()
		eventually(t, deadline, func() error {
			ans, err := prom.query(expr, time.Now())
			if err == nil {
				_, err = scalarOf(ans)
			}
			return err
		})
	}
	holds(60*time.Second, `count(up == 1) >= 2`)
	holds(100*time.Second,
		fmt.Sprintf(`min(timestamp(up)) > %d`, began.Add(75*time.Second).Unix())) // what is compared looks back over that much

	at := time.Now().Add(-30 * time.Second).Truncate(time.Second)
	for _, tenant := range []string{"v1", "v2"} {
		t.Run(tenant, func(t *testing.T) {
			compareWithPrometheus(t, prom, api{base: base, header: tenantHeader(tenant)}, at)
		})
	}
	t.Run("restart", func(t *testing.T) { restartKeepsAll(t, p, base, dir, at) })
}

var differentialQueries = []string{
	`up`,
	`count({__name__=~".+"})`,
	`count by (__name__, job) ({__name__=~".+"})`,
	`{job="prometheus"}`,
	`{job="hearth"}`,
	`rate(process_cpu_seconds_total[20s])`,
	`sum by (job) (rate(prometheus_http_requests_total[20s]))`,
	`sum by (job, remote_name) (increase(prometheus_remote_storage_samples_total[30s]))`,
	`histogram_quantile(0.9, rate(prometheus_http_request_duration_seconds[20s]))`,
	`histogram_count(prometheus_http_request_duration_seconds)`,
	`histogram_sum(prometheus_http_request_duration_seconds{handler="/metrics"})`,
	`prometheus_http_request_duration_seconds`,
	`histogram_quantile(0.5, sum by (le, handler) (rate(prometheus_http_response_size_bytes_bucket[20s])))`,
	`max_over_time(go_goroutines[20s])`,
	`quantile_over_time(0.5, scrape_duration_seconds[20s])`,
	`topk(5, scrape_samples_scraped)`,
	`go_info * on (instance) group_left up`,
	`absent(nonsense)`,
	`timestamp(up)`,
	`up offset 5s`,
	`avg_over_time(up[15s:2s])`,
	`{__name__="up"}[20s]`,
	`label_replace(up, "x", "$1", "job", "(.).*")`,
}

func compareWithPrometheus(t *testing.T, prom, hearth api, at time.Time) {
	nonEmpty := 0
	check := func(what string, want, got answer, err1, err2 error) {
		t.Helper()
		switch {
		case err1 != nil:
			t.Errorf("%s: the real Prometheus answers %v", what, err1)
		case err2 != nil:
			t.Errorf("%s: %v", what, err2)
		case len(got.Warnings) != len(want.Warnings):
			t.Errorf("%s: warnings %q, want %q", what, got.Warnings, want.Warnings)
		default:
			if d := diff(want.Data, got.Data); d != "" {
				t.Errorf("%s: %s", what, d)
			}
			if len(want.Data) > 60 {
				nonEmpty++
			}
		}
	}
	for _, q := range differentialQueries {
		want, err1 := prom.query(q, at)
		got, err2 := hearth.query(q, at)
		check(q, want, got, err1, err2)
		if strings.HasSuffix(q, "s]") {
			continue // a range selector has no range query
		}
		want, err1 = prom.queryRange(q, at.Add(-30*time.Second), at, 3*time.Second)
		got, err2 = hearth.queryRange(q, at.Add(-30*time.Second), at, 3*time.Second)
		check("range "+q, want, got, err1, err2)
	}
	window := url.Values{"start": {seconds(at.Add(-20 * time.Second))}, "end": {seconds(at)}}
	with := func(k string, v ...string) url.Values {
		params := url.Values{k: v}
		for k, v := range window {
			params[k] = v
		}
		return params
	}
	for _, r := range []struct {
		path   string
		params url.Values
	}{
		{"series", with("match[]", `up`, `go_info`)},
		{"series", with("match[]", `{job="hearth"}`)},
		{"labels", with("match[]", `{job="prometheus"}`)}, {"labels", with("match[]", `up`)},
		{"label/job/values", window}, {"label/__name__/values", with("match[]", `{job="prometheus"}`)},
		{"query_exemplars", with("query", `traced_requests_total`)},
		{"format_query", url.Values{"query": {`sum( up )by(job)`}}},
		{"parse_query", url.Values{"query": {`sum( up )by(job)`}}},
	} {
		want, err1 := prom.get(r.path, r.params)
		got, err2 := hearth.get(r.path, r.params)
		check(r.path+"?"+r.params.Encode(), want, got, err1, err2)
	}
	if ans, err := hearth.get("query_exemplars", with("query", `rate(traced_requests_total[1m])`)); err != nil ||
		!strings.Contains(string(ans.Data), "trace-") {
		t.Errorf("no exemplars: %s %v", ans.Data, err)
	}
	// Without a matcher a head names all its labels, also those of series that came a moment ago: both get there.
	eventually(t, 20*time.Second, func() error {
		want, err1 := prom.get("labels", window)
		got, err2 := hearth.get("labels", window)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if d := diff(want.Data, got.Data); d != "" {
			return errors.New("labels: " + d)
		}
		return nil
	})
	if nonEmpty < 30 {
		t.Errorf("only %d answers hold data: the comparison shows little", nonEmpty)
	}
	checkMetadata(t, prom, hearth)
}

// checkMetadata compares type, help and unit of metrics that both ends know.
func checkMetadata(t *testing.T, prom, hearth api) {
	t.Helper()
	for _, metric := range []string{"prometheus_http_requests_total", "go_goroutines", "prometheus_http_request_duration_seconds"} {
		want, err1 := prom.get("metadata", url.Values{"metric": {metric}})
		got, err2 := hearth.get("metadata", url.Values{"metric": {metric}})
		if err1 != nil || err2 != nil {
			t.Errorf("metadata of %s: %v, %v", metric, err1, err2)
			continue
		}
		if d := diff(want.Data, got.Data); d != "" {
			t.Errorf("metadata of %s: %s", metric, d)
		}
	}
}

// restartKeepsAll stops the all-in-one and starts it again over the same data.
func restartKeepsAll(t *testing.T, p *process, base, dir string, at time.Time) {
	before := api{base: base, header: tenantHeader("v1")}
	want, err := before.query(`{job="prometheus"}[20s]`, at)
	if err != nil {
		t.Fatal(err)
	}
	p.stop(30 * time.Second)
	_, base = startAll(t, dir)
	got, err := api{base: base, header: tenantHeader("v1")}.query(`{job="prometheus"}[20s]`, at)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(want.Data, got.Data); d != "" {
		t.Errorf("after a restart: %s", d)
	}
}

// TestStartsFast holds the promise of an empty directory answering within two seconds, without gossip.
func TestStartsFast(t *testing.T) {
	dir := t.TempDir()
	ports := freePorts(t, 3)
	began := time.Now()
	p := hearth(t, "all", "--data-dir="+dir, "--http-address="+addr(ports[0]), "--grpc-address="+addr(ports[1]),
		"--remote-write.address="+addr(ports[2]), "--self-scrape.interval=1s")
	base := "http://" + addr(ports[0])
	p.ready(base+"/-/ready", 20*time.Second)
	t.Logf("ready after %s", time.Since(began)) // the figure is for people; a loaded machine must not fail a test
	eventually(t, 20*time.Second, func() error {
		ans, err := api{base: base}.query(`up{job="hearth"}`, time.Now())
		if err != nil {
			return err
		}
		_, err = scalarOf(ans)
		return err
	})
	for _, path := range []string{"/", "/metrics", "/-/healthy", "/debug/pprof/", "/api/v1/status/buildinfo", "/api/v1/status/flags", "/api/v1/status/runtimeinfo"} {
		if _, err := do(http.MethodGet, base+path, nil, nil); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	out := p.output()
	for _, want := range []string{base, "remote_write:", "/api/v1/receive"} {
		if !strings.Contains(out, strings.TrimPrefix(want, "http://127.0.0.1")) {
			t.Errorf("the start does not print %q:\n%s", want, out)
		}
	}
	p.stop(20 * time.Second)
}
