package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// posted is an alert as an Alertmanager gets it.
type posted struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
	GeneratorURL        string
}

// fakeAlertmanager remembers what is posted to it.
type fakeAlertmanager struct {
	mu     sync.Mutex
	alerts []posted
	faults []string
}

func startAlertmanager(t *testing.T) (*fakeAlertmanager, string) {
	t.Helper()
	a := &fakeAlertmanager{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		var got []posted
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.URL.Path != "/api/v2/alerts" {
			a.faults = append(a.faults, fmt.Sprint(r.URL.Path, err))
		}
		a.alerts = append(a.alerts, got...)
	}))
	t.Cleanup(server.Close)
	return a, server.URL
}

// named are the alerts of that name, in the order in which they came.
func (a *fakeAlertmanager) named(name string) (out []posted) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.alerts {
		if p.Labels["alertname"] == name {
			out = append(out, p)
		}
	}
	return out
}

const rulerRules = `groups:
- name: g
  interval: 1s
  rules:
  - record: job:requests:sum
    expr: sum by (job) (requests)
  - record: job:requests:double
    expr: job:requests:sum * 2
  - alert: Many
    expr: job:requests:double > 5
    keep_firing_for: 1h
    labels: {severity: page}
    annotations: {summary: '{{ $labels.job }} has {{ with query "job:requests:sum" }}{{ . | first | value }}{{ end }}'}
`

// keepSending writes the sample of a series every half second until the test ends, as a Prometheus would.
func keepSending(t *testing.T, base string, value float64) {
	t.Helper()
	done, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(done); <-ended })
	go func() {
		defer close(ended)
		for {
			_ = post(base, "default-tenant", encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
				sample(time.Now().UnixMilli(), value, "__name__", "requests", "job", "api", "pod", "a"),
				sample(time.Now().UnixMilli(), value, "__name__", "requests", "job", "api", "pod", "b"),
			}})) // the process may be restarting
			select {
			case <-done:
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
}

// has waits until the instant value of expr is v.
func (a api) has(t *testing.T, expr string, v float64) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		ans, err := a.query(expr, time.Now())
		if err != nil {
			return err
		}
		got, err := scalarOf(ans)
		if err == nil && got != v {
			err = fmt.Errorf("%s is %v, want %v", expr, got, v)
		}
		return err
	})
}

// TestRuler: the all-in-one evaluates a file of rules over what it is sent. What a rule recorded can be read, also by
// the next rule, and alerts are posted. A crash neither repeats nor ends an alert, and a changed file counts at once.
func TestRuler(t *testing.T) {
	am, url := startAlertmanager(t)
	file := filepath.Join(t.TempDir(), "rules.yml")
	writeFile(t, file, rulerRules)
	n := newPlainNode(t, "all", "all", "--self-scrape.interval=0s", "--rule-file="+file,
		"--alertmanagers.url="+url, "--resend-delay=1s", "--alert.query-url=http://here", "--label=cluster=\"c\"")
	n.start()
	n.waitReady()
	keepSending(t, n.url(""), 2)
	a := n.api("default-tenant")
	a.has(t, "job:requests:double", 8)
	a.has(t, `ALERTS{alertname="Many",alertstate="firing",severity="page",job="api"}`, 1)
	eventually(t, 20*time.Second, func() error {
		if len(am.named("Many")) == 0 {
			return fmt.Errorf("no alert came: %q", am.faults)
		}
		return nil
	})
	first := am.named("Many")[0]
	if first.Labels["cluster"] != "c" || first.Annotations["summary"] != "api has 4" ||
		first.GeneratorURL != "http://here/graph?g0.expr=job%3Arequests%3Adouble+%3E+5&g0.tab=1" {
		t.Errorf("posted %+v", first)
	}
	ans, err := a.get("rules", nil)
	if err != nil || !strings.Contains(string(ans.Data), `"state":"firing","name":"Many"`) {
		t.Errorf("rules %s, %v", ans.Data, err)
	}
	if ans, err = n.api("other").get("alerts", nil); err != nil || string(ans.Data) != `{"alerts":[]}` {
		t.Errorf("another tenant sees alerts: %s, %v", ans.Data, err)
	}

	n.kill()
	before := len(am.named("Many"))
	n.start()
	n.waitReady()
	eventually(t, 20*time.Second, func() error {
		if len(am.named("Many")) < before+2 {
			return errors.New("no alert came after the restart")
		}
		return nil
	})
	for _, p := range am.named("Many") {
		if !p.StartsAt.Equal(first.StartsAt) || p.EndsAt.Before(p.StartsAt.Add(time.Second)) {
			t.Errorf("alert from %s to %s, want from %s", p.StartsAt, p.EndsAt, first.StartsAt)
		}
	}

	writeFile(t, file, strings.Replace(rulerRules, "* 2", "* 3", 1))
	a.has(t, "job:requests:double", 12)
	writeFile(t, file, "groups: [{name: g, rules: [{record: x, expr: 'sum('}]}]\n")
	eventually(t, 20*time.Second, func() error {
		if _, err := do(http.MethodPost, n.url("/-/reload"), nil, nil); err == nil {
			return errors.New("a file that is wrong is reloaded without an error")
		}
		return nil
	})
	a.has(t, "job:requests:double", 12)
}

// TestRuleRole: a ruler of its own asks the all-in-one over HTTP. Its results stay in it, where the all-in-one reads
// them, or are sent by remote write.
func TestRuleRole(t *testing.T) {
	am, url := startAlertmanager(t)
	f := func(name string, all, n *node) {
		t.Helper()
		all.start()
		all.waitReady()
		keepSending(t, all.url(""), 2)
		file := filepath.Join(t.TempDir(), "rules.yml")
		writeFile(t, file, strings.NewReplacer("job:requests", name, "Many", name).Replace(rulerRules))
		n.args = append(n.args, "--rule-file="+file, "--query="+all.url(""), "--alertmanagers.url="+url,
			"--alert.label-drop=ruler")
		n.start()
		n.waitReady()
		all.api("default-tenant").has(t, name+":double", 8)
		eventually(t, 20*time.Second, func() error {
			if len(am.named(name)) == 0 {
				return fmt.Errorf("no alert came: %q", am.faults)
			}
			return nil
		})
		if ls := am.named(name)[0].Labels; len(ls) != 3 || ls["job"] != "api" || ls["severity"] != "page" {
			t.Errorf("labels %v", ls)
		}
		ans, err := n.api("default-tenant").get("alerts", nil)
		if err != nil || !strings.Contains(string(ans.Data), `"alertname":"`+name+`"`) {
			t.Errorf("alerts %s, %v", ans.Data, err)
		}
		n.stop(30 * time.Second)
		all.stop(30 * time.Second)
	}
	stays := newPlainNode(t, "rule", "rule", "--label=ruler=\"r\"")
	f("stays", newPlainNode(t, "all", "all", "--self-scrape.interval=0s", "--endpoint="+stays.grpc), stays)
	to := newPlainNode(t, "all", "all", "--self-scrape.interval=0s")
	f("goes", to, newPlainNode(t, "rule", "rule",
		"--remote-write.config={remote_write: [{url: '"+to.url("/api/v1/receive")+"'}]}"))
}

// TestRulerOfARing: a ruler writes to three receivers through the ring, each sample to all of them, and goes on while
// one of them is away. Nothing is stored in the ruler.
func TestRulerOfARing(t *testing.T) {
	am, url := startAlertmanager(t)
	f := startFleet(t, 3)
	file := filepath.Join(t.TempDir(), "rules.yml")
	writeFile(t, file, rulerRules)
	ruler := newNode(t, "ruler", "rule")
	ruler.args = append(append(ruler.args, "--data-dir="+ruler.dir, "--receive.replication-factor=3", "--rule-file="+file,
		"--query="+f.query.url(""), "--alertmanagers.url="+url, "--resend-delay=1s"), f.join...)
	ruler.start()
	ruler.waitReady()
	keepSending(t, "http://"+f.distributor.write, 2)
	a := f.query.api("default-tenant")
	a.has(t, "job:requests:double", 8)
	a.has(t, `ALERTS{alertname="Many",alertstate="firing",severity="page",job="api"}`, 1)
	f.receivers["r2"].kill()
	writeFile(t, file, strings.Replace(rulerRules, "* 2", "* 3", 1))
	a.has(t, "job:requests:double", 12)
	before := len(am.named("Many"))
	eventually(t, 20*time.Second, func() error {
		if n := len(am.named("Many")); n < before+2 {
			return fmt.Errorf("%d alerts came: %q", n, am.faults)
		}
		return nil
	})
	if _, err := os.Stat(filepath.Join(ruler.dir, "tsdb")); !os.IsNotExist(err) {
		t.Errorf("the ruler has a TSDB: %v", err)
	}
}

// TestRulerKeepsResults: with --rule.keep-results what a ruler sends stays in it, too, and queriers see it once.
func TestRulerKeepsResults(t *testing.T) {
	to := newPlainNode(t, "all", "all", "--self-scrape.interval=0s")
	file := filepath.Join(t.TempDir(), "rules.yml")
	writeFile(t, file, rulerRules)
	ruler := newPlainNode(t, "rule", "rule", "--rule-file="+file, "--query="+to.url(""), "--rule.keep-results",
		"--label=ruler=\"r\"", "--remote-write.config={remote_write: [{url: '"+to.url("/api/v1/receive")+"'}]}")
	to.args = append(to.args, "--endpoint="+ruler.grpc)
	to.start()
	to.waitReady()
	ruler.start()
	ruler.waitReady()
	keepSending(t, to.url(""), 2)
	a := to.api("default-tenant")
	a.has(t, "job:requests:double", 8)
	a.has(t, "count(job:requests:double)", 1)
	if n := len(mustGlob(t, filepath.Join(ruler.dir, "tsdb", "default-tenant", "wal", "*"))); n == 0 {
		t.Error("nothing is kept in the ruler")
	}
	eventually(t, 20*time.Second, func() error {
		return metricIs(ruler, `prometheus_tsdb_head_series{tenant="default-tenant"}`, 4)
	})
}

func mustGlob(t *testing.T, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return all
}
