package remotewrite

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// server takes remote writes, or answers with a status.
type server struct {
	mu     sync.Mutex
	status int // of answers; 0 = it takes them
	got    []string
	asked  int
}

func (s *server) start(t *testing.T) string {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		if s.status != 0 {
			w.WriteHeader(s.status)
			return
		}
		req, err := remote.DecodeWriteRequest(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		b := labels.NewScratchBuilder(0)
		for _, ts := range req.Timeseries {
			for _, one := range ts.Samples {
				s.got = append(s.got, fmt.Sprintf("%s%s %v", r.Header.Get("X-Scope-OrgID"), ts.ToLabels(&b, nil), one.Value))
			}
			for range ts.Histograms {
				s.got = append(s.got, fmt.Sprintf("%s%s histogram", r.Header.Get("X-Scope-OrgID"), ts.ToLabels(&b, nil)))
			}
		}
	}))
	t.Cleanup(web.Close)
	return web.URL
}

func (s *server) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// await waits for samples, in any order.
func (s *server) await(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		got := slices.Sorted(slices.Values(s.got))
		s.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("got %q\nwant %q", got, want)
		}
	}
}

// refusals waits until the server refused requests.
func (s *server) refusals(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		asked := s.asked
		s.mu.Unlock()
		if asked > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the server was not asked")
		}
	}
}

func open(t *testing.T, dir string, reg prometheus.Registerer, urls ...string) *Writer {
	t.Helper()
	text := "remote_write:\n"
	for _, u := range urls {
		text += "- url: " + u + "\n  send_native_histograms: true\n  queue_config: {batch_send_deadline: 50ms, min_backoff: 10ms, max_backoff: 50ms}\n"
	}
	servers, err := Parse("x.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(slog.New(slog.DiscardHandler), reg, Options{Dir: dir, Servers: servers, TenantHeader: "X-Scope-OrgID",
		External: labels.FromStrings("replica", "a"), FlushDeadline: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// put stores one sample as the ruler does: the time is that of a slot that came after Storage was called.
func put(t *testing.T, to storage.AppendableV2, name string, v float64, h *histogram.FloatHistogram) {
	t.Helper()
	app := to.AppenderV2(t.Context())
	at := time.Now().Add(2 * time.Second).UnixMilli()
	if _, err := app.Append(0, labels.FromStrings("__name__", name), 0, at, v, nil, h, storage.AOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestWriter: samples and histograms of tenants come to all servers, with external labels and the name of the tenant.
// A server that is down for a time gets them later, and delays none for the other one.
func TestWriter(t *testing.T) {
	var one, other server
	other.answer(http.StatusServiceUnavailable)
	w := open(t, t.TempDir(), prometheus.NewRegistry(), one.start(t), other.start(t))
	mine, acme := w.Storage(tenant.Default), w.Storage("acme")
	put(t, mine, "a", 1, nil)
	put(t, acme, "a", 2, nil)
	put(t, acme, "h", 0, tsdbutil.GenerateTestFloatHistogram(1))
	want := []string{`{__name__="a", replica="a"} 1`, `acme{__name__="a", replica="a"} 2`, `acme{__name__="h", replica="a"} histogram`}
	one.await(t, want...)
	other.refusals(t)
	other.await(t)
	other.answer(0)
	other.await(t, want...)
}

// TestRefusedForGood: a request that a server refuses does not stop those behind it.
func TestRefusedForGood(t *testing.T) {
	var s server
	s.answer(http.StatusBadRequest)
	w := open(t, t.TempDir(), nil, s.start(t))
	to := w.Storage("acme")
	put(t, to, "a", 1, nil)
	s.refusals(t)
	s.answer(0)
	put(t, to, "b", 2, nil)
	s.await(t, `acme{__name__="b", replica="a"} 2`)
}

// TestReopened: an earlier process's log goes on, one directory for each tenant, and others are left alone. What waits
// when a process stops is sent before it ends, if the server takes it in time.
func TestReopened(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "no\ntenant"), 0o777); err != nil {
		t.Fatal(err)
	}
	var s server
	url := s.start(t)
	w := open(t, dir, nil, url)
	put(t, w.Storage("acme"), "a", 1, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s.await(t, `acme{__name__="a", replica="a"} 1`)
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	app := w.Storage("acme").AppenderV2(t.Context())
	if err := app.Commit(); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("after Close: %v", err)
	}
	w = open(t, dir, nil, url)
	if len(w.tenants) != 1 || w.tenants["acme"] == nil {
		t.Errorf("%v are open", w.tenants)
	}
	time.Sleep(10 * time.Millisecond) // later than the sample before
	put(t, w.Storage("acme"), "a", 2, nil)
	s.await(t, `acme{__name__="a", replica="a"} 1`, `acme{__name__="a", replica="a"} 2`)
}

// TestFirstSlot: the samples of the first slot of a tenant are sent, too. Its time is after Storage was called and
// before the samples are there.
func TestFirstSlot(t *testing.T) {
	var s server
	w := open(t, t.TempDir(), nil, s.start(t))
	to := w.Storage("acme")
	time.Sleep(500 * time.Millisecond) // the slot is later than the start of the queue
	slot := time.Now()
	time.Sleep(50 * time.Millisecond) // and the results are later than the slot
	app := to.AppenderV2(t.Context())
	if _, err := app.Append(0, labels.FromStrings("__name__", "a"), 0, slot.UnixMilli(), 1, nil, nil,
		storage.AOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	s.await(t, `acme{__name__="a", replica="a"} 1`)
}

func TestParse(t *testing.T) {
	f := func(text string, words ...string) {
		t.Helper()
		_, err := Parse("x.yml", []byte(text))
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %s", text, err, w)
			}
		}
	}
	f("remote_write: [{url: 'http://a', name: n, unknown: 1}]")
	f("remote_write: [null]", "x.yml", "item 1", "empty")
	f("remote_write: [{url: 'http://a'}, {}]", "x.yml", "url")
	f("remote_write: {", "x.yml")
	if got, err := Parse("x.yml", []byte("other: 1")); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := New(slog.New(slog.DiscardHandler), nil, Options{}); errs.KindOf(err) != errs.Invalid {
		t.Error(err)
	}
}
