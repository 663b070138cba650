package notify

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/rules"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/targets"
)

// fake is an Alertmanager that notes labels and tenants.
type fake struct {
	mu  sync.Mutex
	got []string
}

func (f *fake) start(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var alerts []struct {
			Labels           map[string]string
			StartsAt, EndsAt time.Time
			GeneratorURL     string
		}
		_ = json.NewDecoder(r.Body).Decode(&alerts)
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, a := range alerts {
			f.got = append(f.got, fmt.Sprintf("%s%s%s%d %d %s", r.URL.Path, r.Header.Get("X-Scope-OrgID"),
				labels.FromMap(a.Labels), a.StartsAt.Unix(), a.EndsAt.Unix(), a.GeneratorURL))
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func (f *fake) await(t *testing.T, n int) []string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		got := slices.Sorted(slices.Values(f.got))
		f.mu.Unlock()
		if len(got) >= n {
			return got
		}
		if time.Now().After(end) {
			t.Fatalf("%d alerts came, want %d: %q", len(got), n, got)
		}
	}
}

func newSender(t *testing.T, reg prometheus.Registerer, change func(*Options), urls ...string) *Sender {
	t.Helper()
	opts := DefaultOptions()
	opts.QueryURL = "http://q"
	for _, u := range urls {
		c, err := targets.OfURL(u, 9093, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		opts.Alertmanagers = append(opts.Alertmanagers, c)
	}
	change(&opts)
	s, err := New(slog.New(slog.DiscardHandler), reg, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func alert(ls ...string) rules.Alert {
	return rules.Alert{State: rules.StateFiring, Labels: labels.FromStrings(ls...), FiredAt: time.Unix(10, 0),
		ValidUntil: time.Unix(20, 0)}
}

// TestNotify: labels are dropped, added and rewritten in this order, a tenant cannot forge another one, and one
// Alertmanager that is down costs the other one nothing.
func TestNotify(t *testing.T) {
	am := &fake{}
	reg := prometheus.NewRegistry()
	s := newSender(t, reg, func(o *Options) {
		o.Drop, o.External = []string{"replica", "gone"}, labels.FromStrings("replica", "a", "cluster", "c")
		o.Relabel = []*relabel.Config{{SourceLabels: model.LabelNames{"cluster"}, TargetLabel: "seen", Replacement: "$1",
			Separator: ";", Regex: relabel.MustNewRegexp("(.*)"), Action: relabel.Replace}}
	}, "http://127.0.0.1:1", am.start(t)+"/am")
	s.Notify(t.Context(), tenant.Default, `up{a="b"} > 1`, []rules.Alert{alert("alertname", "A", "gone", "x"),
		alert("alertname", "B", "tenant_id", "acme")})
	done := alert("alertname", "C")
	done.ResolvedAt = time.Unix(15, 0)
	s.Notify(t.Context(), "acme", "up", []rules.Alert{done})
	const to = "/am/api/v2/alerts"
	want := []string{
		to + `{alertname="A", cluster="c", seen="c"}10 20 http://q/graph?g0.expr=up%7Ba%3D%22b%22%7D+%3E+1&g0.tab=1`,
		to + `{alertname="B", cluster="c", seen="c", tenant_id="default-tenant"}10 20 ` +
			`http://q/graph?g0.expr=up%7Ba%3D%22b%22%7D+%3E+1&g0.tab=1`,
		to + `{alertname="C", cluster="c", seen="c", tenant_id="acme"}10 15 http://q/graph?g0.expr=up&g0.tab=1`,
	}
	if got := am.await(t, 3); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := s.Ready(); err != nil || len(s.Alertmanagers()) != 2 {
		t.Errorf("%v, %q", err, s.Alertmanagers())
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	for _, name := range []string{"thanos_alert_sender_alerts_sent_total", "thanos_alert_sender_errors_total",
		"thanos_alert_sender_alerts_dropped_total", "thanos_alert_queue_alerts_dropped_total", "thanos_alert_queue_length",
		"thanos_alert_queue_capacity", "thanos_alert_queue_alerts_pushed_total", "prometheus_notifications_sent_total"} {
		if !names[name] {
			t.Errorf("no metric %s", name)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Notify(t.Context(), "acme", "up", []rules.Alert{done}) // after Close it does nothing
}

// TestTenantHeader: with a header each tenant has requests of its own.
func TestTenantHeader(t *testing.T) {
	am := &fake{}
	s := newSender(t, prometheus.NewRegistry(), func(o *Options) { o.TenantHeader, o.TenantLabel = "X-Scope-OrgID", "" },
		am.start(t))
	defer s.Close()
	for _, id := range []tenant.ID{"acme", "bolt", tenant.Default} {
		s.Notify(t.Context(), id, "up", []rules.Alert{alert("alertname", string(id))})
	}
	for _, got := range am.await(t, 3) {
		ok := false
		for _, id := range []string{"acme", "bolt", "default-tenant"} {
			ok = ok || strings.HasPrefix(got, "/api/v2/alerts"+id+`{alertname="`+id+`"}`)
		}
		if !ok {
			t.Error(got)
		}
	}
}

func TestBadOptions(t *testing.T) {
	badProxy := targets.HTTPConfig{ClientConfig: httpx.ClientConfig{ProxyURL: ":"}}
	for _, change := range []func(*Options){
		func(o *Options) { o.QueryTemplate = "{{" },
		func(o *Options) { o.QueryTemplate = "{{.Nothing}}" },
		func(o *Options) { o.QueueCapacity = 0 },
		func(o *Options) { o.Alertmanagers = []targets.Config{{HTTP: badProxy}} },
	} {
		opts := DefaultOptions()
		change(&opts)
		if _, err := New(slog.New(slog.DiscardHandler), nil, opts); err == nil {
			t.Errorf("%+v is accepted", opts)
		}
	}
}

// value is a metric of reg, of one Alertmanager or without that label.
func value(t *testing.T, reg *prometheus.Registry, name, alertmanager string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name && alertmanagerOf(m) == alertmanager {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s of %q", name, alertmanager)
	return 0
}

// becomes waits until a metric has a value.
func becomes(t *testing.T, reg *prometheus.Registry, name, alertmanager string, want float64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := value(t, reg, name, alertmanager)
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s of %q is %v, want %v", name, alertmanager, got, want)
		}
	}
}

// TestSomeDoNotTake: Alertmanagers that hang, refuse, or are down delay no alert for another one. Thanos's metrics by
// which people are woken say that nothing is lost, until no Alertmanager takes an alert.
func TestSomeDoNotTake(t *testing.T) {
	done := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	defer hanging.Close()
	defer close(done)
	var refuses atomic.Bool
	refuses.Store(true)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if refuses.Load() {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer refusing.Close()
	host := func(url string) string { return strings.TrimPrefix(url, "http://") }
	am := &fake{}
	taking := am.start(t)
	reg := prometheus.NewRegistry()
	s := newSender(t, reg, func(*Options) {}, "http://127.0.0.1:1/am", hanging.URL, refusing.URL, taking)
	defer s.Close()
	for i, name := range []string{"A", "B", "C"} {
		s.Notify(t.Context(), tenant.Default, "up", []rules.Alert{alert("alertname", name)})
		am.await(t, i+1) // although none of the others has taken the one before
	}
	becomes(t, reg, "thanos_alert_sender_errors_total", host(refusing.URL), 3)
	becomes(t, reg, "thanos_alert_sender_errors_total", "127.0.0.1:1/am", 3)
	becomes(t, reg, "thanos_alert_sender_errors_total", host(hanging.URL), 3)
	for name, want := range map[string]float64{"queue_alerts_pushed_total": 3, "queue_alerts_popped_total": 3,
		"queue_alerts_dropped_total": 0, "sender_alerts_dropped_total": 0, "queue_capacity": 10_000, "queue_length": 0} {
		if got := value(t, reg, "thanos_alert_"+name, ""); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := value(t, reg, "thanos_alert_sender_alerts_sent_total", host(taking)); got != 3 {
		t.Errorf("%v were sent", got)
	}

	reg = prometheus.NewRegistry()
	alone := newSender(t, reg, func(*Options) {}, "http://127.0.0.1:1/am", refusing.URL)
	defer alone.Close()
	alone.Notify(t.Context(), tenant.Default, "up", []rules.Alert{alert("alertname", "A"), alert("alertname", "B")})
	becomes(t, reg, "thanos_alert_sender_alerts_dropped_total", "", 2)
	refuses.Store(false)
	alone.Notify(t.Context(), tenant.Default, "up", []rules.Alert{alert("alertname", "A"), alert("alertname", "B")})
	becomes(t, reg, "thanos_alert_sender_alerts_sent_total", host(refusing.URL), 2)
	becomes(t, reg, "thanos_alert_sender_errors_total", "127.0.0.1:1/am", 4)
	if got := value(t, reg, "thanos_alert_sender_alerts_dropped_total", ""); got != 2 {
		t.Errorf("%v are lost, want 2", got)
	}
}
