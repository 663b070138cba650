package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
)

// sample as a receiver reads it.
type sample struct {
	labels    string
	timestamp int64
}

func decode(t *testing.T, body []byte) (out []sample) {
	t.Helper()
	var m prompb.WriteRequest
	if err := m.Unmarshal(body); err != nil {
		t.Fatal(err)
	}
	b := labels.NewScratchBuilder(12)
	for _, ts := range m.Timeseries {
		for _, s := range ts.Samples {
			out = append(out, sample{ts.ToLabels(&b, nil).String(), s.Timestamp})
		}
	}
	return out
}

// receiver counts samples by series and checks that each series moves forward in time.
type receiver struct {
	t      *testing.T
	mu     sync.Mutex
	latest map[string]int64
	total  int
	answer func(request int) int
	number int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.number++
	if code := r.answer(r.number); code != 204 {
		w.WriteHeader(code)
		return
	}
	compressed, _ := io.ReadAll(req.Body)
	body, err := snappy.Decode(nil, compressed)
	if err != nil {
		r.t.Error(err)
	}
	samples := decode(r.t, body)
	for _, s := range samples {
		if s.timestamp <= r.latest[s.labels] {
			r.t.Errorf("%s at %d after %d", s.labels, s.timestamp, r.latest[s.labels])
		}
		r.latest[s.labels] = s.timestamp
	}
	r.total += len(samples)
	w.WriteHeader(204)
}

func runAgainst(t *testing.T, r *receiver, args ...string) report {
	t.Helper()
	r.t, r.latest = t, map[string]int64{}
	server := httptest.NewServer(r)
	defer server.Close()
	o, err := parseOptions(append(
		[]string{"-url", server.URL, "-series", "1000", "-per-request", "300", "-pid", strconv.Itoa(os.Getpid())},
		args...))
	if err != nil {
		t.Fatal(err)
	}
	rep, err := run(context.Background(), &o)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func TestRun(t *testing.T) {
	r := &receiver{answer: func(int) int { return 204 }}
	rep := runAgainst(t, r, "-scrapes", "5", "-warmup", "2", "-churn", "0.1", "-concurrency", "3")
	if rep.Accepted != 5000 || rep.Failed != 0 || r.total != 7000 || len(r.latest) != 1000+6*100 {
		t.Errorf("accepted %d, failed %d; received %d samples of %d series", rep.Accepted, rep.Failed, r.total, len(r.latest))
	}
	newest := int64(0)
	for _, at := range r.latest {
		newest = max(newest, at)
	}
	if d := time.Since(time.UnixMilli(newest)); d < 0 || d > time.Minute {
		t.Errorf("the last timestamp is %s old", d)
	}
	if rep.Processes[0].PeakBytes == 0 || rep.P99 < rep.P50 || rep.Codes["204"] != 5*4 {
		t.Errorf("%+v", rep)
	}
	var b strings.Builder
	if err := rep.writeTable(&b); err != nil || !strings.Contains(b.String(), "per million samples") {
		t.Error(b.String(), err)
	}
}

func TestRetriesAndFailures(t *testing.T) {
	r := &receiver{answer: func(n int) int {
		switch n {
		case 1:
			return 503 // is tried again
		case 3:
			return 400 // is not
		}
		return 204
	}}
	rep := runAgainst(t, r, "-scrapes", "1", "-concurrency", "1")
	if rep.Retries != 1 || rep.Failed != 300 || rep.Accepted != 700 || r.total != 700 {
		t.Errorf("%+v, received %d", rep, r.total)
	}
	if rep.Codes["503"] != 1 || rep.Codes["400"] != 1 || rep.Codes["204"] != 3 ||
		!strings.Contains(rep.FirstProblem, "503") {
		t.Errorf("codes %v, first problem %q", rep.Codes, rep.FirstProblem)
	}
}

func TestOptions(t *testing.T) {
	if _, err := parseOptions(
		[]string{"-protocol", "3", "-labels", "1"}); err == nil || !strings.Contains(err.Error(), "-url") ||
		!strings.Contains(err.Error(), "-protocol") ||
		!strings.Contains(err.Error(), "-labels") {
		t.Errorf("got %v, want all three faults", err)
	}
	o, err := parseOptions([]string{"-url", "a", "-url", "b", "-duration", "1m"})
	if err != nil || len(o.urls) != 2 || o.scrapes != 4 {
		t.Errorf("%+v %v", o, err)
	}
}
