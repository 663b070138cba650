package overrides

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// safeBuffer is a log that tests read while it is written.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// eventually polls, since the file system tells of changes when it likes.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(end) {
			t.Fatal("not so: " + what)
		}
		<-tick.C
	}
}

func options(t *testing.T) Options {
	o := DefaultOptions()
	o.File = filepath.Join(t.TempDir(), "runtime.yml")
	o.Settle = time.Millisecond
	return o
}

func newOverrides(t *testing.T, opts Options) (*Overrides, *safeBuffer, *prometheus.Registry) {
	t.Helper()
	var out safeBuffer
	reg := prometheus.NewPedanticRegistry()
	o, err := New(slog.New(slog.NewTextHandler(&out, nil)), reg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return o, &out, reg
}

func TestReload(t *testing.T) {
	opts := options(t)
	now := time.Unix(1000, 0)
	opts.Now = func() time.Time { return now }
	opts.Base.Exemplars = 100
	o, _, reg := newOverrides(t, opts)
	if got := o.Of("acme"); got.Exemplars != 100 {
		t.Fatalf("before the first read: %+v", got)
	}
	if err := o.Reload(); err == nil || !strings.Contains(err.Error(), opts.File) {
		t.Fatalf("without the file: %v", err)
	}
	write(t, opts.File, "defaults: {request_series: 10, retention: 2h}\ntenants: {acme: {request_series: 20}}")
	if err := o.Reload(); err != nil {
		t.Fatal(err)
	}
	first, other := o.Of("acme"), o.Of("other")
	if first.RequestSeries != 20 || other.RequestSeries != 10 || other.Exemplars != 100 {
		t.Fatalf("%+v %+v", first, other)
	}
	write(t, opts.File, "defaults: {request_series: 10, retention: 2h}\ntenants: {acme: {request_series: 21}} # other")
	now = time.Unix(2000, 0)
	if err := o.Reload(); err != nil {
		t.Fatal(err)
	}
	if o.Of("acme") == first || o.Of("other") != other || o.Of("acme").RequestSeries != 21 {
		t.Fatal("a pointer is not a version")
	}
	write(t, opts.File, "defaults:\n  request_series: -1\n")
	now = time.Unix(3000, 0)
	if err := o.Reload(); err == nil || err.Error() != opts.File+":2: defaults: request_series: -1 must not be negative" {
		t.Fatalf("%v", err)
	}
	if s := o.Status(); s.OK || s.Err == nil || !s.At.Equal(time.Unix(2000, 0)) || o.Of("acme").RequestSeries != 21 {
		t.Fatalf("a bad file: %+v %+v", s, o.Of("acme"))
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP hearth_runtime_config_last_reload_successful 1 if the limits files were valid when they were last read; else the last good ones are in force.
# TYPE hearth_runtime_config_last_reload_successful gauge
hearth_runtime_config_last_reload_successful 0
# HELP hearth_runtime_config_last_reload_success_timestamp_seconds When the limits files were last read and valid.
# TYPE hearth_runtime_config_last_reload_success_timestamp_seconds gauge
hearth_runtime_config_last_reload_success_timestamp_seconds 2000
# HELP hearth_runtime_config_reload_failures_total Reads of limits files that were not valid; the last good ones stay in force.
# TYPE hearth_runtime_config_reload_failures_total counter
hearth_runtime_config_reload_failures_total 2
`), "hearth_runtime_config_last_reload_successful", "hearth_runtime_config_last_reload_success_timestamp_seconds", "hearth_runtime_config_reload_failures_total"); err != nil {
		t.Error(err)
	}
}

// TestLimitMetrics: the defaults, and of a tenant what differs.
func TestLimitMetrics(t *testing.T) {
	opts := options(t)
	o, _, reg := newOverrides(t, opts)
	write(t, opts.File,
		"defaults: {request_series: 10, retention: 2h}\ntenants: {acme: {request_series: 20, retention: 2h, ha_pairs: true, samples_per_second: 0.5}}")
	if err := o.Reload(); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.Metric {
			if f.GetName() == "hearth_limit" {
				got[m.Label[1].GetValue()+" "+m.Label[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	for key, want := range map[string]float64{" request_series": 10, " retention": 7200, " ha_pairs": 0, " active_series": 0,
		"acme request_series": 20, "acme ha_pairs": 1, "acme samples_per_second": 0.5} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%q: %v, want %v", key, v, want)
		}
	}
	if _, ok := got["acme retention"]; ok {
		t.Error("what a tenant has in common with all is there")
	}
}

// TestFollow: a change of the file, in place, by a rename and by a link, is in force soon; a fault is logged once.
func TestFollow(t *testing.T) {
	opts := options(t)
	opts.Interval = time.Hour
	write(t, opts.File, "defaults: {request_series: 1}")
	o, out, _ := newOverrides(t, opts)
	if err := o.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := o.Open(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	is := func(n int) func() bool { return func() bool { return o.Of("x").RequestSeries == n } }
	write(t, opts.File, "defaults: {request_series: 2}")
	eventually(t, "in place", is(2))
	write(t, opts.File+".new", "defaults: {request_series: 3}")
	if err := os.Rename(opts.File+".new", opts.File); err != nil {
		t.Fatal(err)
	}
	eventually(t, "by a rename", is(3))

	write(t, opts.File, "defaults: {request_serie: 4}")
	eventually(t, "a fault is reported", func() bool { return out.count("level=ERROR") > 0 })
	if out.count("request_serie: no limit has this name") != 1 || out.count(filepath.Base(opts.File)+":1") != 1 ||
		!is(3)() {
		t.Fatal(out.buf.String())
	}
	write(t, opts.File+".other", "")
	write(t, opts.File, "defaults: {request_series: 3}")
	eventually(t, "the file is good again", func() bool { return out.count("valid again") == 1 })
	if out.count("level=ERROR") != 1 {
		t.Error("the same fault was logged twice")
	}
	if !o.Status().OK {
		t.Error("the status is not good again")
	}
}

// TestInterval: without word from the file system the files are read now and then.
func TestInterval(t *testing.T) {
	opts := options(t)
	opts.Settle, opts.Interval = time.Hour, 5*time.Millisecond
	write(t, opts.File, "defaults: {request_series: 1}")
	o, _, _ := newOverrides(t, opts)
	if err := o.Open(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	eventually(t, "read at the interval", func() bool { return o.Of("x").RequestSeries == 1 })
}

func TestThanos(t *testing.T) {
	opts := options(t)
	opts.File = ""
	opts.ReplicationFactor = 2
	opts.ThanosFile = filepath.Join(t.TempDir(), "limits.yml")
	opts.Getenv = func(name string) (string, bool) { return "http://meta", name == "META" }
	text := "write: {global: {max_concurrency: 7, meta_monitoring_url: $(META)}, default: {head_series_limit: 11}}"
	write(t, opts.ThanosFile, text)
	o, out, _ := newOverrides(t, opts)
	if err := o.Reload(); err != nil {
		t.Fatal(err)
	}
	if o.MaxConcurrency() != 7 || o.Of("x").ActiveSeries != 6 {
		t.Fatalf("%d %+v", o.MaxConcurrency(), o.Of("x"))
	}
	write(t, opts.ThanosFile, strings.Replace(text, "7", "8", 1))
	if err := o.Reload(); err != nil {
		t.Fatal(err)
	}
	if o.MaxConcurrency() != 7 || out.count("takes effect at the next start") != 1 || out.count("meta_monitoring") != 1 {
		t.Fatal(out.buf.String())
	}
	write(t, opts.ThanosFile, text+"\n# $(NOBODY)")
	if err := o.Reload(); err == nil || !strings.Contains(err.Error(), "$(NOBODY)") {
		t.Fatal(err)
	}

	opts.ThanosFile, opts.ThanosContent = "", []byte("write:\n  defaults: {}")
	o, _, _ = newOverrides(t, opts)
	if err := o.Reload(); err == nil ||
		err.Error() != "--receive.limits-config:2: write: defaults: there is no such key here; did you mean default?" {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	opts := Options{Base: tenant.Limits{Exemplars: -1}, ThanosFile: "x", ThanosContent: []byte{}, Settle: -1}
	err := opts.Validate()
	if err == nil || len(strings.Split(err.Error(), "\n")) != 6 {
		t.Fatal(err)
	}
	if err := DefaultOptions().Validate(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkOf is what every request pays.
func BenchmarkOf(b *testing.B) {
	o, err := New(slog.New(slog.DiscardHandler), nil, DefaultOptions())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = o.Of("acme")
	}
}
