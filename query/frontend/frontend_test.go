package frontend

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/promapi"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// prom answers range queries as Prometheus's API does.
type prom struct {
	engine *promql.Engine
	data   storage.Queryable

	mu    sync.Mutex
	asked []url.Values                                      // the requests
	hook  func(w http.ResponseWriter, r *http.Request) bool // answers in its place
}

func (p *prom) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	p.mu.Lock()
	p.asked = append(p.asked, r.Form)
	hook := p.hook
	p.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	from, err1 := promapi.Time(r, "start", 0)
	to, err2 := promapi.Time(r, "end", 0)
	step, ok := duration(r.FormValue("step"))
	if err1 != nil || err2 != nil || !ok {
		promapi.WriteError(w, errs.E(errs.Invalid, "bad times"))
		return
	}
	text := r.FormValue("query")
	q, err := p.engine.NewRangeQuery(r.Context(), p.data, nil, text, timestamp.Time(from), timestamp.Time(to),
		time.Duration(step)*time.Millisecond)
	if err != nil {
		promapi.WriteError(w, errs.Wrap(errs.Invalid, err))
		return
	}
	defer q.Close()
	res := q.Exec(r.Context())
	if res.Err != nil {
		promapi.WriteError(w, errs.Wrap(errs.Limited, res.Err))
		return
	}
	warnings, infos := res.Warnings.AsStrings(text, 10, 10)
	body, err := v1.JSONCodec{}.Encode(&v1.Response{Status: "success",
		Data: &v1.QueryData{ResultType: res.Value.Type(), Result: res.Value}, Warnings: warnings, Infos: infos})
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// requests are those since the last call.
func (p *prom) requests() (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.asked {
		all = append(all, f.Get("start")+"-"+f.Get("end"))
	}
	p.asked = nil
	slices.Sort(all)
	return all
}

// arrivalSource says what a test sets.
type arrivalSource struct {
	mu   sync.Mutex
	says series.Arrivals
	err  error
}

// Arrivals implements series.ArrivalSource.
func (s *arrivalSource) Arrivals(context.Context, tenant.ID, int64) (series.Arrivals, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.says, s.err
}

func (s *arrivalSource) set(f func(*arrivalSource)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// fixture is a frontend over a Prometheus.
type fixture struct {
	t        testing.TB
	prom     *prom
	arrivals *arrivalSource
	frontend *Frontend
	now      time.Time
}

func newFixture(t testing.TB, data storage.Queryable, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, now: time.Unix(100*24*3600, 0), arrivals: &arrivalSource{says: series.Arrivals{Window: time.Hour,
		Since: math.MinInt64}}}
	f.prom = &prom{data: data, engine: promqltest.NewTestEngineWithOpts(t, promql.EngineOpts{MaxSamples: 50_000_000,
		Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true, LookbackDelta: 5 * time.Minute})}
	opts := DefaultOptions()
	opts.SplitInterval = 2 * time.Hour
	opts.Cache, opts.Changes = NewMemory(64<<20, 0, 0), f.arrivals
	opts.Memory = memory.NewBudget(prometheus.NewRegistry(), "--query.max-memory", 256<<20)
	opts.Now = func() time.Time { return f.now }
	opts.Retries = 0
	if change != nil {
		change(&opts)
	}
	var err error
	if f.frontend, err = New(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), f.prom, opts); err != nil {
		t.Fatal(err)
	}
	return f
}

// get answers a request through h.
func get(h http.Handler, params url.Values) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+params.Encode(), nil))
	return w
}

// query are the parameters of a range query; times are in seconds.
func query(text string, from, to, step int64) url.Values {
	return url.Values{"query": {text}, "start": {fmt.Sprint(from)}, "end": {fmt.Sprint(to)}, "step": {fmt.Sprint(step)}}
}

// equal compares the answer of the frontend with that of the whole query.
func (f *fixture) equal(params url.Values) {
	f.t.Helper()
	got := get(f.frontend, params)
	f.prom.mu.Lock()
	asked, hook := f.prom.asked, f.prom.hook
	f.prom.hook = nil
	f.prom.mu.Unlock()
	want := get(f.prom, params)
	f.prom.mu.Lock()
	f.prom.asked, f.prom.hook = asked, hook
	f.prom.mu.Unlock()
	if got.Code != want.Code || sorted(got.Body.String()) != sorted(want.Body.String()) {
		f.t.Fatalf("%v: %d\n%.2000s\nwant %d\n%.2000s", params, got.Code, got.Body, want.Code, want.Body)
	}
}

// sorted is an answer whose infos are in order: Prometheus writes them in the order of a map.
func sorted(body string) string {
	rest, infos, found := strings.Cut(body, `,"infos":[`)
	if !found {
		return body
	}
	all := strings.Split(strings.TrimSuffix(infos, "]}"), `","`)
	for i := range all {
		all[i] = strings.Trim(all[i], `"`)
	}
	slices.Sort(all)
	return rest + strings.Join(all, "\n")
}

// randomData are series of two days, with gaps, counter resets, stale markers and histograms, at 30 s.
func randomData(t testing.TB, rnd *rand.Rand) *teststorage.TestStorage {
	t.Helper()
	st := teststorage.New(t)
	app := st.Appender(t.Context())
	begin := int64(97 * 24 * 3600 * 1000)
	for i := range 6 {
		for _, name := range []string{"c", "g", "h"} {
			l := labels.FromStrings("__name__", name, "i", fmt.Sprint(i), "job", fmt.Sprint(i%2))
			v, n := 0.0, int64(0)
			for ts := begin; ts < begin+3*24*3600*1000; ts += 30_000 {
				if ts%(3600_000*int64(7+i)) < 1800_000 { // a gap
					continue
				}
				if n++; rnd.IntN(500) == 0 {
					v, n = 0, 0
				}
				v += float64(rnd.IntN(10))
				var err error
				switch name {
				case "c":
					_, err = app.Append(0, l, ts, v)
				case "g":
					_, err = app.Append(0, l, ts, math.Sin(v)*100)
				default:
					h := &histogram.Histogram{Schema: 1, ZeroThreshold: 0.001, ZeroCount: uint64(n), Count: uint64(4 * n),
						Sum: float64(5 * n), PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 3, Length: 1}},
						PositiveBuckets: []int64{n, 0, 0}}
					_, err = app.AppendHistogram(0, l, ts, h, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	return st
}

// randomExpr is an expression.
func randomExpr(rnd *rand.Rand, depth int) string {
	name := []string{"c", "g", "c", "g", "h"}[rnd.IntN(5)]
	sel := name + []string{"", `{i="1"}`, `{job="0"}`, `{i=~"[0-3]"}`}[rnd.IntN(4)]
	at := []string{"", "", "", " offset 7m", " offset -11m", " @ 8467200", " @ start()", " @ end()",
		" @ 8467200 offset 1h"}[rnd.IntN(9)]
	if depth <= 0 {
		if rnd.IntN(3) == 0 {
			return sel + at
		}
		f := []string{"rate", "increase", "avg_over_time", "last_over_time", "count_over_time", "present_over_time", "delta",
			"changes", "absent_over_time"}[rnd.IntN(9)]
		return f + "(" + sel + "[" + []string{"1m", "5m", "37m"}[rnd.IntN(3)] + "]" + at + ")"
	}
	in := func() string { return randomExpr(rnd, depth-1-rnd.IntN(2)) }
	switch rnd.IntN(12) {
	case 0:
		return "sum by (job) (" + in() + ")"
	case 1:
		return "topk(2, g)" // of equal values it takes any
	case 2:
		return "max_over_time((" + in() + ")[20m:3m]" + at + ")"
	case 3:
		return "(" + in() + ") + on (i, job) group_left () sum by (i, job) (" + in() + ")"
	case 4:
		return "(" + in() + ") or vector(0)"
	case 5:
		return "histogram_quantile(0.9, sum by (job) (rate(h[5m])))"
	case 6:
		return "absent(" + in() + ")"
	case 7:
		return `label_replace(` + in() + `, "x", "$1", "i", "(.)")`
	case 8:
		return "time() - timestamp(" + sel + ")"
	case 9:
		return "count_values(\"v\", round(" + in() + ", 50))"
	case 10:
		return "quantile by (i) (0.3, " + in() + ")"
	}
	return "-(" + in() + ") > bool 3"
}

// TestEqualsPrometheus: random queries through cut, cold and warm cache have the bytes of the whole query, also after
// the range has moved on.
func TestEqualsPrometheus(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	f := newFixture(t, randomData(t, rnd), nil)
	p := expr.New(0)
	ran := 0
	for ran < 150 {
		text := randomExpr(rnd, rnd.IntN(3))
		if _, err := p.ParseExpr(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		step := []int64{15, 30, 60, 97, 300, 3600, 7200, 100_000}[rnd.IntN(8)]
		from := 97*24*3600 + rnd.Int64N(2*24*3600)
		length := min(rnd.Int64N(30*3600), 800*step)
		params := query(text, from, from+length, step)
		if rnd.IntN(4) == 0 {
			params.Set("start", fmt.Sprint(float64(from)+0.123))
		}
		f.equal(params)
		f.equal(params)
		for range 2 {
			from += rnd.Int64N(20) * step
			params := query(text, from, from+length-rnd.Int64N(length/2+1), step)
			f.equal(params)
		}
		ran++
	}
	if n := len(f.prom.requests()); n > 20_000 {
		t.Errorf("%d requests", n)
	}
}

func TestWarm(t *testing.T) {
	f := newFixture(t, randomData(t, rand.New(rand.NewPCG(1, 1))), nil)
	asked := func(want ...string) {
		t.Helper()
		if got := f.prom.requests(); !slices.Equal(got, want) {
			t.Errorf("asked %q, want %q", got, want)
		}
	}
	day := int64(98 * 24 * 3600)
	f.equal(query("c", day+3600, day+5*3600, 60))
	asked(fmt.Sprint(day+3600, "-", day+7140), fmt.Sprint(day+7200, "-", day+14340), fmt.Sprint(day+14400, "-", day+18000))
	f.equal(query("c", day+3600, day+5*3600, 60))
	asked()
	f.equal(query("c", day+7200, day+5*3600+600, 60))
	asked(fmt.Sprint(day+18060, "-", day+18600))
	f.equal(query("c", day, day+7200, 60))
	asked(fmt.Sprint(day, "-", day+3540))
	f.equal(query("c", day, day+7200, 30)) // other steps
	asked(fmt.Sprint(day, "-", day+7170), fmt.Sprint(day+7200, "-", day+7200))
	f.equal(query("c", day+7, day+3607, 60)) // other places of the steps
	asked(fmt.Sprint(day+7, "-", day+3607))

	// What is newer than ten minutes and the slack of clocks is asked anew.
	f.now = time.Unix(day+6*3600, 0)
	f.equal(query("g", day+4*3600, day+6*3600-60, 60))
	f.prom.requests()
	f.equal(query("g", day+4*3600, day+6*3600-60, 60))
	asked(fmt.Sprint(day+6*3600-600, "-", day+6*3600-60))
	f.equal(query("g offset 20m", day+4*3600, day+6*3600-60, 60))
	f.prom.requests()
	f.equal(query("g offset 20m", day+4*3600, day+6*3600-60, 60))
	asked()
	f.equal(query("g offset -1h", day+4*3600, day+6*3600-60, 60))
	f.prom.requests()
	f.equal(query("g offset -1h", day+4*3600, day+6*3600-60, 60))
	asked(fmt.Sprint(day+5*3600-600, "-", day+6*3600-60))
	f.equal(query("g @ "+fmt.Sprint(day+6*3600-300), day+4*3600, day+4*3600+60, 60))
	f.equal(query("g @ "+fmt.Sprint(day+6*3600-300), day+4*3600, day+4*3600+60, 60))
	if n := len(f.prom.requests()); n != 2 {
		t.Errorf("%d requests for a fixed time that may change, want 2", n)
	}
}

// TestChanged: an entry is not used once a sample that it reads may have come or gone.
func TestChanged(t *testing.T) {
	f := newFixture(t, randomData(t, rand.New(rand.NewPCG(1, 1))), nil)
	day := int64(97 * 24 * 3600)
	q := func(from int64) url.Values { return query("rate(c[5m])", from, from+3600, 60) }
	asks := func(name string, from int64, want int) {
		t.Helper()
		f.now = f.now.Add(2 * time.Second)
		f.equal(q(from))
		if got := len(f.prom.requests()); got != want {
			t.Errorf("%s: %d requests, want %d", name, got, want)
		}
	}
	f.now = f.now.Add(30 * time.Minute)
	early, late := day, day+2*24*3600
	asks("cold", early, 1)
	asks("cold", late, 1)
	asks("warm", early, 0)
	asks("warm", late, 0)
	f.arrivals.set(func(s *arrivalSource) { s.says.Note(f.now.UnixMilli(), (late+600)*1000, 0) })
	asks("samples came after it", early, 0)
	asks("samples came into it", late, 1)
	asks("clocks may differ", late, 1)
	f.now = f.now.Add(2 * clockSlack)
	asks("no more than that", late, 1)
	asks("samples came before it", late, 0)
	f.arrivals.set(func(s *arrivalSource) {
		s.says.Note(f.now.Add(time.Hour).UnixMilli(), (day-10*24*3600)*1000, day*1000)
	})
	f.now = f.now.Add(time.Hour)
	asks("old samples went away, and these are within a day of them", early, 1)
	asks("much later samples", late, 0)
	f.arrivals.set(func(s *arrivalSource) { s.err = errs.E(errs.Unavailable, "nobody answers") })
	asks("it is not known", late, 1)
	f.arrivals.set(func(s *arrivalSource) { s.err = nil; s.says.Since = math.MaxInt64 })
	asks("nobody knows anything", late, 1)
	f.arrivals.set(func(s *arrivalSource) { s.err = errs.E(errs.Unsupported, "a foreign store") })
	f.equal(query("c", day, day+3600, 60))
	f.prom.requests()
	f.now = f.now.Add(2 * time.Second)
	f.equal(query("c", day, day+3600, 60))
	if got := f.prom.requests(); len(got) != 0 {
		t.Errorf("a foreign store, and old samples: asked %q", got)
	}
	f.now = time.Unix(day+4*3600, 0)
	f.equal(query("g", day, day+3*3600, 60))
	f.prom.requests()
	f.now = f.now.Add(2 * time.Second)
	f.equal(query("g", day, day+3*3600, 60))
	if got, want := f.prom.requests(), fmt.Sprint(day+3600, "-", day+7140); len(got) != 2 || got[0] != want {
		t.Errorf("a foreign store, and young samples: asked %q, want %q first", got, want)
	}
}

// TestFailures: a failure has the status and the text of the querier. Neither that nor what may be incomplete is
// kept.
func TestFailures(t *testing.T) {
	f := newFixture(t, randomData(t, rand.New(rand.NewPCG(1, 1))), nil)
	day := int64(98 * 24 * 3600)
	second := fmt.Sprint(day + 7200)
	answer := func(body, cache string, status int) {
		f.prom.hook = func(w http.ResponseWriter, r *http.Request) bool {
			if r.FormValue("start") != second {
				return false
			}
			if cache != "" {
				w.Header().Set("Cache-Control", cache)
			}
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	params := query("c", day, day+3*3600, 60)
	answer(`{"status":"error","errorType":"unavailable","error":"no"}`, "no-store", 503)
	w := get(f.frontend, params)
	if w.Code != 503 || w.Header().Get("Retry-After") != "7" || !strings.Contains(w.Body.String(), `"error":"no"`) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	const empty = `{"status":"success","data":{"resultType":"matrix","result":[]}`
	answer(empty+`,"warnings":["half"]}`, "", 200)
	for range 2 {
		f.prom.requests()
		w = get(f.frontend, params)
		if w.Code != 200 || w.Header().Get("Cache-Control") != "no-store" ||
			!strings.HasSuffix(w.Body.String(), `"warnings":["half"]}`) {
			t.Errorf("%d %v %.100s", w.Code, w.Header(), w.Body)
		}
		if got := f.prom.requests(); !slices.Contains(got, second+"-"+fmt.Sprint(day+3*3600)) {
			t.Errorf("asked %q", got)
		}
	}
	answer(empty+`}`, "no-store", 200)
	get(f.frontend, params)
	f.prom.requests()
	get(f.frontend, params)
	if got := f.prom.requests(); len(got) != 1 {
		t.Errorf("asked %q for what must not be kept", got)
	}
	answer(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[5,"1"]]}]}}`, "", 200)
	if w = get(f.frontend, params); w.Code != 500 {
		t.Errorf("samples of other times: %d %s", w.Code, w.Body)
	}
	f.prom.hook = nil
	f.equal(params)

	r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+params.Encode(), nil)
	r.Header.Set("Cache-Control", "no-store")
	f.prom.requests()
	f.frontend.ServeHTTP(httptest.NewRecorder(), r)
	if got := f.prom.requests(); len(got) != 2 {
		t.Errorf("asked %q for a client that wants nothing from a cache", got)
	}
}

// TestHeaders: an answer of the frontend has the headers of Prometheus's API, and is compressed for who asks for it.
func TestHeaders(t *testing.T) {
	f := newFixture(t, randomData(t, rand.New(rand.NewPCG(1, 1))), nil)
	day := int64(98 * 24 * 3600)
	r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+query("c", day, day+3*3600, 60).Encode(), nil)
	r.Header.Set("Origin", "http://grafana")
	r.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	f.frontend.ServeHTTP(w, r)
	for name, want := range map[string]string{"Content-Type": "application/json", "Content-Encoding": "gzip",
		"Access-Control-Allow-Origin": "*"} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(z)
	if err != nil || !json.Valid(body) || !strings.HasPrefix(string(body), `{"status":"success"`) {
		t.Errorf("%v %.100s", err, body)
	}
}

// TestPastTheFrontend: what the frontend does not understand is passed on as it is.
func TestPastTheFrontend(t *testing.T) {
	f := newFixture(t, randomData(t, rand.New(rand.NewPCG(1, 1))), nil)
	day := int64(98 * 24 * 3600)
	check := func(name, value string) {
		t.Helper()
		params := query("c", day, day+5*3600, 60)
		params.Set(name, value)
		f.prom.requests()
		get(f.frontend, params)
		if got := f.prom.asked; len(got) != 1 || got[0].Encode() != params.Encode() {
			t.Errorf("%s=%s: asked %v", name, value, got)
		}
	}
	check("query", "c{")
	check("query", "c[5m]")
	check("query", `"text"`)
	check("stats", "all")
	check("limit", "1")
	check("storeMatch[]", `{a="b"}`)
	check("start", "soon")
	check("end", "1")
	check("step", "0")
	check("step", "0.0001")
	check("step", "1s")
}

// TestOnce: a query that many ask at the same time is evaluated once, also if the first of them leaves.
func TestOnce(t *testing.T) {
	f := newFixture(t, randomData(t, rand.New(rand.NewPCG(1, 1))), nil)
	day := int64(98 * 24 * 3600)
	params := query("c", day, day+3600, 60)
	release, came := make(chan struct{}), make(chan struct{}, 100)
	f.prom.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		came <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
			t.Error("the evaluation was cancelled")
		}
		return false
	}
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	ask := func(ctx context.Context, ok bool) {
		wg.Go(func() {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+params.Encode(), nil)
			f.frontend.ServeHTTP(w, r.WithContext(ctx))
			if (w.Code == 200) != ok {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	ask(ctx, false)
	<-came
	for range 30 {
		ask(t.Context(), true)
	}
	waits := func() (n int) {
		f.frontend.flights.mu.Lock()
		defer f.frontend.flights.mu.Unlock()
		for _, fl := range f.frontend.flights.all {
			n += fl.waiters
		}
		return n
	}
	for deadline := time.Now().Add(10 * time.Second); waits() < 31 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	leave()
	for deadline := time.Now().Add(10 * time.Second); waits() > 30 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if got := f.prom.requests(); len(got) != 1 {
		t.Errorf("asked %d times", len(got))
	}
}

// TestLeave: an evaluation ends when everybody who waits for it has left.
func TestLeave(t *testing.T) {
	f := newFixture(t, randomData(t, rand.New(rand.NewPCG(1, 1))), nil)
	day := int64(98 * 24 * 3600)
	ended := make(chan struct{})
	ctx, leave := context.WithCancel(t.Context())
	f.prom.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		leave()
		<-r.Context().Done()
		close(ended)
		return false
	}
	r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+query("c", day, day+3600, 60).Encode(), nil)
	f.frontend.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the evaluation goes on")
	}
}

// TestRetries: a failure that may pass is tried again; others are not.
func TestRetries(t *testing.T) {
	f := newFixture(t, randomData(t, rand.New(rand.NewPCG(1, 1))), func(o *Options) { o.Retries = 2 })
	day := int64(98 * 24 * 3600)
	check := func(status, times, wantStatus, wantAsked int) {
		t.Helper()
		n := 0
		f.prom.hook = func(w http.ResponseWriter, _ *http.Request) bool {
			if n++; n > times {
				return false
			}
			w.WriteHeader(status)
			return true
		}
		f.prom.requests()
		w := get(f.frontend, query(fmt.Sprint("c + ", status), day, day+3600, 60))
		if got := len(f.prom.requests()); w.Code != wantStatus || got != wantAsked {
			t.Errorf("%d times %d: %d after %d requests", times, status, w.Code, got)
		}
	}
	check(422, 1, 422, 1)
	check(500, 2, 200, 3)
	check(503, 3, 503, 3)
}

// TestMemoryOfAnswers: an answer for which there is no memory is an error, and the process goes on.
func TestMemoryOfAnswers(t *testing.T) {
	f := newFixture(t, randomData(t, rand.New(rand.NewPCG(1, 1))), func(o *Options) {
		o.Memory = memory.NewBudget(prometheus.NewRegistry(), "--query.max-memory", 64<<10)
	})
	day := int64(98 * 24 * 3600)
	w := get(f.frontend, query("c", day, day+6*3600, 15))
	if w.Code != http.StatusServiceUnavailable && w.Code != http.StatusUnprocessableEntity ||
		!strings.Contains(w.Body.String(), "--query.max-memory") {
		t.Errorf("%d %.300s", w.Code, w.Body)
	}
	if free := f.frontend.opts.Memory.Free(); free != 64<<10 {
		t.Errorf("%d bytes are free afterwards", free)
	}
}
