package main

import (
	"context"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// sample as a receiver reads it.
type sample struct {
	labels    string
	timestamp int64
	value     float64 // for a histogram its count
}

func decodeV1(t *testing.T, body []byte) (out []sample) {
	t.Helper()
	var m prompb.WriteRequest
	if err := m.Unmarshal(body); err != nil {
		t.Fatal(err)
	}
	b := labels.NewScratchBuilder(12)
	for _, ts := range m.Timeseries {
		ls := ts.ToLabels(&b, nil)
		if !ls.IsValid(model.LegacyValidation) {
			t.Fatalf("%s is not valid", ls)
		}
		if len(ts.Samples)+len(ts.Histograms) != 1 {
			t.Fatalf("%s has %d samples and %d histograms, want one in all", ls, len(ts.Samples), len(ts.Histograms))
		}
		for _, s := range ts.Samples {
			out = append(out, sample{ls.String(), s.Timestamp, s.Value})
		}
		for _, h := range ts.Histograms {
			if err := h.ToIntHistogram().Validate(); err != nil {
				t.Fatal(err)
			}
			out = append(out, sample{ls.String(), h.Timestamp, float64(h.GetCountInt())})
		}
	}
	return out
}

func decodeV2(t *testing.T, body []byte) (out []sample) {
	t.Helper()
	var m writev2.Request
	if err := m.Unmarshal(body); err != nil {
		t.Fatal(err)
	}
	b := labels.NewScratchBuilder(12)
	for _, ts := range m.Timeseries {
		ls, err := ts.ToLabels(&b, m.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		if want := writev2.Metadata_MetricType(strings.Index("_tbs", suffix(ls))); ts.Metadata.Type != want {
			t.Fatalf("%s has type %v, want %v", ls, ts.Metadata.Type, want)
		}
		if help := m.Symbols[ts.Metadata.HelpRef]; help == "" {
			t.Fatalf("%s has no help", ls)
		}
		for _, s := range ts.Samples {
			out = append(out, sample{ls.String(), s.Timestamp, s.Value})
		}
		for _, h := range ts.Histograms {
			if err := h.ToIntHistogram().Validate(); err != nil {
				t.Fatal(err)
			}
			out = append(out, sample{ls.String(), h.Timestamp, float64(h.GetCountInt())})
		}
	}
	return out
}

// suffix is the first letter after the last _ of a metric's name: t(otal), b(ytes), s(econds).
func suffix(ls labels.Labels) string {
	name := ls.Get(model.MetricNameLabel)
	return name[strings.LastIndexByte(name, '_')+1:][:1]
}

func want(r *request, n int, at int64) (out []sample) {
	for i := range r.series {
		s := &r.series[i]
		var kv []string
		for _, l := range labelsOf(s, n) {
			kv = append(kv, l.name, l.value)
		}
		v := s.value
		if s.kind == native {
			v = float64(s.hist.Count)
		}
		out = append(out, sample{labels.FromStrings(kv...).String(), at, v})
	}
	return out
}

func compare(t *testing.T, got, want []sample) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d samples, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("sample %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

// Every scrape's message must read back as what the series say, after patching as after encoding anew.
func TestMessages(t *testing.T) {
	f := func(v2 bool, nLabels int, histograms float64, churn int) {
		t.Helper()
		e := encoder{v2: v2, labels: nLabels}
		r := &request{series: makeSeries(500, histograms), native: histograms > 0}
		rng := rand.New(rand.NewPCG(1, 1))
		decode := decodeV1
		if v2 {
			decode = decodeV2
		}
		for scrape := range 4 {
			at := time.Date(2026, 11, 23, 0, 0, 15*scrape, 0, time.UTC).UnixMilli()
			if err := e.next(r, at, rng, func(id int) bool { return scrape > 0 && id < churn }); err != nil {
				t.Fatal(err)
			}
			compare(t, decode(t, r.body), want(r, nLabels, at))
		}
	}
	for _, v2 := range []bool{false, true} {
		f(v2, 12, 0, 0)
		f(v2, 12, 0, 50)
		f(v2, 12, 0.3, 0)
		f(v2, 3, 0, 0)
		f(v2, 30, 1, 10)
	}
}

func TestTimestampsOutOfRange(t *testing.T) {
	e, r := encoder{labels: 3}, &request{series: makeSeries(1, 0)}
	for _, at := range []int64{0, -1, math.MaxInt64} {
		if err := e.encode(r, at); err == nil {
			t.Errorf("timestamp %d was taken", at)
		}
	}
	for _, at := range []int64{minTimestamp, maxTimestamp} {
		if err := e.encode(r, at); err != nil {
			t.Error(err)
		}
		compare(t, decodeV1(t, r.body), want(r, 3, at))
	}
}

func TestSeriesAreDistinctAndOfTheRightSize(t *testing.T) {
	seen, size := map[string]bool{}, 0
	all := makeSeries(5000, 0)
	for i := range all {
		for _, all[i].generation = range []int{0, 1} {
			key := ""
			for _, l := range labelsOf(&all[i], 3) {
				key += l.name + "=" + l.value + ","
			}
			seen[key] = true
		}
		for _, l := range labelsOf(&all[i], 12) {
			size += len(l.name) + len(l.value)
		}
	}
	if len(seen) != 2*len(all) {
		t.Errorf("%d distinct series, want %d", len(seen), 2*len(all))
	}
	if mean := size / len(all); mean < 270 || mean > 290 {
		t.Errorf("%d label bytes per series, want about 280", mean)
	}
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
	samples := decodeV1(r.t, body)
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
	o, err := parseOptions(append([]string{"-url", server.URL, "-series", "1000", "-per-request", "300", "-pid", strconv.Itoa(os.Getpid())}, args...))
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
	if rep.Codes["503"] != 1 || rep.Codes["400"] != 1 || rep.Codes["204"] != 3 || !strings.Contains(rep.FirstProblem, "503") {
		t.Errorf("codes %v, first problem %q", rep.Codes, rep.FirstProblem)
	}
}

func TestProc(t *testing.T) {
	u, err := parseStat("42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 25 75 20 0 9 0 100")
	if err != nil || u.command != "a (b) c" || u.cpu != 3 {
		t.Errorf("%+v %v", u, err)
	}
	peak, err := parsePeak([]byte("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1 kB\n"))
	if err != nil || peak != 2<<20 {
		t.Errorf("%d %v", peak, err)
	}
	if _, err := parsePeak([]byte("Name:\tzombie\n")); err == nil {
		t.Error("no error for a process that has ended")
	}
}

func TestOptions(t *testing.T) {
	if _, err := parseOptions([]string{"-protocol", "3", "-labels", "1"}); err == nil || !strings.Contains(err.Error(), "-url") ||
		!strings.Contains(err.Error(), "-protocol") || !strings.Contains(err.Error(), "-labels") {
		t.Errorf("got %v, want all three faults", err)
	}
	o, err := parseOptions([]string{"-url", "a", "-url", "b", "-duration", "1m"})
	if err != nil || len(o.urls) != 2 || o.scrapes != 4 {
		t.Errorf("%+v %v", o, err)
	}
}
