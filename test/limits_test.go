package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// writeFile replaces a file as an editor does.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func post(base, tenant string, body []byte) error {
	_, err := do(http.MethodPost, base+"/api/v1/receive", writeHeader(tenantHeader(tenant)), body)
	return err
}

// refused checks that err is an answer of this status whose text has all words; 429 and 503 must say when to come
// again.
func refused(t *testing.T, err error, code int, words ...string) {
	t.Helper()
	s, ok := err.(*statusError)
	if !ok || s.code != code {
		t.Errorf("%v, want status %d with %q", err, code, words)
		return
	}
	for _, w := range words {
		if !strings.Contains(s.body, w) {
			t.Errorf("%q is not in: %s", w, s.body)
		}
	}
	if after, err := strconv.Atoi(s.header.Get("Retry-After")); (code == 429 || code == 503) && (err != nil || after < 1) {
		t.Errorf("status %d without Retry-After: %q", code, s.header.Get("Retry-After"))
	}
}

func histogramBody(at int64) []byte {
	return encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		{Labels: []prompb.Label{{Name: "__name__", Value: "h"}},
			Histograms: []prompb.Histogram{prompb.FromIntHistogram(at, tsdbutil.GenerateTestHistogram(1))}}}})
}

// TestLimits: each limit refuses with its status and a text that says what to do; a reload that lifts it lets the
// sender pass.
func TestLimits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limits.yml")
	writeFile(t, file, `
tenants:
  rate: {samples_per_second: 1, samples_burst: 5}
  bytes: {request_bytes: 20}
  series: {request_series: 2}
  samples: {request_samples: 2}
  labels: {labels_per_series: 2}
  names: {label_name_bytes: 7}
  values: {label_value_bytes: 30}
  buckets: {histogram_buckets: 3}
  active: {active_series: 3}
  metric: {series_per_metric: 3}
  early: {future_window: 5s}
  old: {out_of_order_window: 1m}
`)
	p, base := startAll(t, t.TempDir(), "--runtime-config.file="+file, "--receive.max-tenants=20",
		"--limits.default=exemplars=7")
	now := time.Now().UnixMilli()
	ten := writeBody("x", 10, now)
	cases := []struct {
		tenant string
		body   []byte
		code   int
		words  []string
	}{
		{"rate", ten, 413, []string{"samples_burst 5"}},
		{"bytes", ten, 413, []string{"request_bytes 20"}},
		{"series", ten, 413, []string{"10 series", "request_series 2"}},
		{"samples", ten, 413, []string{"10 samples", "request_samples 2"}},
		{"labels", ten, 400, []string{"3 labels", "labels_per_series 2"}},
		{"names", ten, 400, []string{"label_name_bytes 7"}},
		{"values", writeBody(strings.Repeat("v", 31), 1, now), 400, []string{"31 bytes", "label_value_bytes 30"}},
		{"buckets", histogramBody(now), 400, []string{"histogram_buckets 3"}},
		{"active", ten, 429, []string{"active_series 3"}},
		{"metric", ten, 429, []string{"series_per_metric 3", "load"}},
	}
	for _, c := range cases {
		refused(t, post(base, c.tenant, c.body), c.code, append(c.words, c.tenant, "--runtime-config.file")...)
	}
	refused(t, post(base, "early", writeBody("x", 1, now+60_000)), 409, "early")
	refused(t, post(base, "old", writeBody("x", 1, now-300_000)), 409, "old")
	// What was within the limit is there.
	for _, tenant := range []string{"active", "metric"} {
		a := api{base: base, header: tenantHeader(tenant)}
		if ans, err := a.query(`count(load)`, time.UnixMilli(now)); err != nil {
			t.Error(err)
		} else if n, err := scalarOf(ans); err != nil || n != 3 {
			t.Errorf("tenant %s has %v series, want 3: %v", tenant, n, err)
		}
	}
	n := &node{t: t, http: strings.TrimPrefix(base, "http://")}
	for metric, want := range map[string]float64{
		`hearth_distributor_limited_requests_total{reason="request_series",tenant="series"}`: 1,
		`hearth_distributor_limited_samples_total{reason="request_series",tenant="series"}`:  10,
		`hearth_distributor_limited_samples_total{reason="samples_burst",tenant="rate"}`:     10,
		`hearth_tsdb_limited_series_total{limit="active_series",tenant="active"}`:            7,
		`hearth_limit{limit="active_series",tenant="active"}`:                                3,
		`hearth_limit{limit="exemplars",tenant=""}`:                                          7,
		`hearth_runtime_config_last_reload_successful`:                                       1,
	} {
		if err := metricIs(n, metric, want); err != nil {
			t.Error(err)
		}
	}
	checkLimitsStatus(t, base)
	checkBadFile(t, p, n, file)

	writeFile(t, file, "defaults: {out_of_order_window: 1h}\ntenants: {active: {active_series: 12}}\n")
	if _, err := do(http.MethodPost, base+"/-/reload", nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if err := post(base, c.tenant, c.body); err != nil {
			t.Errorf("tenant %s after its limit was lifted: %v", c.tenant, err)
		}
	}
	for tenant, at := range map[string]int64{"early": now + 60_000, "old": now - 300_000} {
		if err := post(base, tenant, writeBody("x", 1, at)); err != nil {
			t.Errorf("tenant %s after its limit was lifted: %v", tenant, err)
		}
	}
	// Raised twice more, by a signal and by the file alone.
	refused(t, post(base, "active", writeBody("y", 10, now)), 429, "active_series 12")
	writeFile(t, file, "tenants: {active: {active_series: 13}}\n")
	p.signal(syscall.SIGHUP)
	eventually(t, 10*time.Second,
		func() error { return metricIs(n, `hearth_limit{limit="active_series",tenant="active"}`, 13) })
	writeFile(t, file, "tenants: {active: {active_series: 0}}\n")
	eventually(t, 10*time.Second, func() error { return post(base, "active", writeBody("y", 10, now)) })

	// Too many tenants.
	for i := range 20 {
		if err := post(base, fmt.Sprint("more", i), ten); err != nil {
			refused(t, err, 429, "--receive.max-tenants")
			return
		}
	}
	t.Error("more tenants than --receive.max-tenants")
}

// checkLimitsStatus reads the limits back.
func checkLimitsStatus(t *testing.T, base string) {
	t.Helper()
	body, err := get(base+"/api/v1/status/limits", nil)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Data struct {
			Defaults   map[string]any
			Tenants    map[string]map[string]any
			FilesValid bool
		}
	}
	if err := json.Unmarshal(body, &all); err != nil {
		t.Fatal(err)
	}
	if d := all.Data; !d.FilesValid || d.Defaults["exemplars"] != 7. || d.Tenants["active"]["active_series"] != 3. ||
		d.Tenants["active"]["retention"] != "15d" {
		t.Errorf("%s", body)
	}
	if one, err := get(base+"/api/v1/status/limits?tenant=series", nil); err != nil ||
		!strings.Contains(string(one), `"request_series":2,`) {
		t.Errorf("%s %v", one, err)
	}
}

// checkBadFile: a bad file changes nothing, and the log, metrics and status say so.
func checkBadFile(t *testing.T, p *process, n *node, file string) {
	t.Helper()
	writeFile(t, file, "defaults: {request_series: 1}\ntenants:\n  series: {request_serie: 100}\n")
	fault := file + ":3: tenant series: request_serie: no limit has this name"
	_, err := do(http.MethodPost, n.url("/-/reload"), nil, nil)
	refused(t, err, 500, fault)
	refused(t, post("http://"+n.http, "series", writeBody("x", 10, time.Now().UnixMilli())), 413, "request_series 2")
	if err := metricIs(n, `hearth_runtime_config_last_reload_successful`, 0); err != nil {
		t.Error(err)
	}
	if !strings.Contains(p.output(), fault) {
		t.Error("the log does not tell of the bad file")
	}
	for _, path := range []string{"/api/v1/status/limits", "/api/v1/status/runtimeinfo"} {
		if body, err := get(n.url(path), nil); err != nil ||
			!strings.Contains(string(body), `"filesValid":false`) &&
				!strings.Contains(string(body), `"reloadConfigSuccess":false`) {
			t.Errorf("%s: %s %v", path, body, err)
		}
	}
}

// TestLimitsStart: what is wrong at the start is a refusal to start.
func TestLimitsStart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "limits.yml")
	writeFile(t, file, "tenants:\n  a/b: {}\n  c: {request_series: -1}")
	refuses(t, nil, []string{"all", "--data-dir=" + t.TempDir(), "--runtime-config.file=" + file},
		file+`:2: tenant id "a/b"`, file+":3: tenant c: request_series: -1")
	refuses(t, nil, []string{"receive", "--tsdb.path=" + t.TempDir(), "--runtime-config.file=" + file + ".none"},
		file+".none")
	refuses(t, nil, []string{"receive", "--tsdb.path=" + t.TempDir(), "--limits.default=series=5"},
		`--limits.default "series=5"`)
	refuses(t, nil, []string{"distributor", "--gossip.join=127.0.0.1:1", "--receive.limits-config=write: {tenant: {}}"},
		"--receive.limits-config:1: write: tenant")
}

// TestThanosLimits: Thanos's limits file works on receivers, is followed, and gives way to ours.
func TestThanosLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	thanos, own := filepath.Join(dir, "thanos.yml"), filepath.Join(dir, "own.yml")
	text := `
write:
  global: {max_concurrency: 30, meta_monitoring_url: "http://nobody:1"}
  default: {request: {series_limit: 4}, head_series_limit: 5}
  tenants: {acme: {request: {series_limit: 6}}, free: {request: {series_limit: 0}, head_series_limit: 0}}
`
	writeFile(t, thanos, text)
	writeFile(t, own, "tenants: {acme: {active_series: 3}}")
	n := newPlainNode(t, "r", "receive", "--receive.limits-config-file="+thanos, "--runtime-config.file="+own,
		"--receive.limits-config-reload-timer=100ms")
	n.start()
	n.waitReady()
	base, now := "http://"+n.write, time.Now().UnixMilli()
	refused(t, post(base, "other", writeBody("x", 5, now)), 413, "request_series 4")
	if err := post(base, "other", writeBody("x", 4, now)); err != nil {
		t.Error(err)
	}
	refused(t, post(base, "other", writeBody("y", 2, now)), 429, "active_series 5")
	refused(t, post(base, "acme", writeBody("x", 6, now)), 429, "active_series 3")
	if err := post(base, "free", writeBody("x", 100, now)); err != nil {
		t.Error(err)
	}
	writeFile(t, thanos, strings.Replace(text, "series_limit: 4", "series_limit: 5", 1))
	eventually(t, 10*time.Second, func() error { return post(base, "third", writeBody("x", 5, now)) })
	writeFile(t, thanos, "write: {defaults: {}}")
	n.waitFor(thanos+":1: write: defaults: there is no such key here; did you mean default?", 10*time.Second)
	if err := post(base, "third", writeBody("x", 5, now)); err != nil {
		t.Error(err)
	}
	if c := strings.Count(n.output(), "meta_monitoring"); c != 1 {
		t.Errorf("%d warnings about meta-monitoring, want 1", c)
	}
}

// TestLimitsOverCluster: three receivers that share a tenant's series and requests among them keep to limits on all of
// them.
func TestLimitsOverCluster(t *testing.T) {
	const limit = 2000
	file := filepath.Join(t.TempDir(), "limits.yml")
	writeFile(t, file, "tenants: {acme: {active_series: "+strconv.Itoa(
		limit)+"}, fast: {samples_per_second: 3, samples_burst: 10}, narrow: {shard_size: 1}}")
	c := &trio{t: t, query: newNode(t, "query", "query")}
	for i := 1; i <= 3; i++ {
		r := newNode(t, "r"+strconv.Itoa(i), "receive")
		one := slices.Index(r.args, "--receive.replication-factor=3")
		r.args[one] = "--receive.replication-factor=1"
		r.args = append(r.args, "--tsdb.path="+r.dir, "--runtime-config.file="+file)
		c.receivers = append(c.receivers, r)
	}
	nodes := append(slices.Clone(c.receivers), c.query)
	for _, n := range nodes {
		n.args = append(n.args, "--gossip.join="+c.receivers[0].gossipAddr)
		n.start()
	}
	for _, n := range nodes {
		n.waitReady()
		c.knowsAll(n)
	}
	now := time.Now()
	last := error(nil)
	eventually(t, 20*time.Second, func() error { // what was asked before the ring was complete is known for some seconds
		for i := range 30 {
			last = post("http://"+c.receivers[i%3].write, "acme", writeBody(fmt.Sprint("job", i), 200, now.UnixMilli()))
		}
		ans, err := c.query.api("acme").query(`count(load)`, now)
		if err != nil {
			return err
		}
		n, err := scalarOf(ans)
		if err != nil || n < limit {
			return fmt.Errorf("%v series of %v, %v", n, limit, err)
		}
		if n > limit*1.2 {
			t.Fatalf("%v series, the limit is %v", n, limit)
		}
		return nil
	})
	refused(t, last, 429, "acme", "active_series 2000")
	if err := post("http://"+c.receivers[0].write, "narrow", writeBody("x", 100, now.UnixMilli())); err != nil {
		t.Error(err)
	}
	have := 0
	for _, r := range c.receivers {
		if metricIs(r, `prometheus_tsdb_head_series{tenant="narrow"}`, 100) == nil {
			have++
		}
	}
	if have != 1 {
		t.Errorf("%d receivers have all series of a tenant with shard_size 1", have)
	}
	for _, r := range c.receivers { // each lets a burst pass
		body := writeBody(r.name, 10, now.UnixMilli())
		if err := post("http://"+r.write, "fast", body); err != nil {
			t.Error(err)
		}
		refused(t, post("http://"+r.write, "fast", body), 429, "samples_per_second 3 (1 at this process, one of 3;")
	}
}
