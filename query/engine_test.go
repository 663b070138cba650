package query

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/promql"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

func TestAllowances(t *testing.T) {
	f := func(limit int, most int64, want string) {
		t.Helper()
		if got := fmt.Sprint(allowances(limit, most)); got != want {
			t.Errorf("limit %d, %d bytes: %s, want %s", limit, most, got, want)
		}
	}
	f(50_000_000, 1<<40, "[12207 97656 781250 6250000 50000000]")
	f(50_000_000, 64_000_000, "[15625 125000 1000000]")
	f(5_000, 1<<40, "[5000]")
	f(50_000_000, 10, "[1]")
}

// bounded are options with a budget of that many bytes.
func bounded(bytes int64) Options {
	opts := DefaultOptions()
	opts.Memory = memory.NewBudget(nil, "--query.max-memory", bytes)
	return opts
}

func execute(t *testing.T, q *Querier, id tenant.ID, text string) (promql.Query, *promql.Result) {
	t.Helper()
	query, err := q.engine.NewInstantQuery(t.Context(), q, nil, text, time.Unix(1e6, 0))
	if err != nil {
		t.Fatal(err)
	}
	return query, query.Exec(tenant.WithSet(t.Context(), []tenant.ID{id}))
}

// TestQueryRunsAgain: a query that needs more than the first allowance gives the same answer, and its limits on series
// and bytes count one attempt.
func TestQueryRunsAgain(t *testing.T) {
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{
		"a": {{Labels: oneSample(0, "__name__", "m").Labels, Samples: []sourcetest.Sample{{T: 1e9 - 1000, V: 3}}}}})
	opts := bounded(240 << 20)
	opts.MaxSeries = 1
	q := open(t, opts, e)
	query, res := execute(t, q, "a",
		`sum_over_time(m[1d:1s] offset -12h) + on () group_left () sum_over_time(vector(1)[3d:1s])`)
	if v, err := res.Vector(); err != nil || len(v) != 1 || v[0].F != 300*3+3*86400 {
		t.Fatal(res)
	}
	if n := testutil.ToFloat64(q.m.retried); n != 1 {
		t.Errorf("the query ran again %v times, want once: otherwise this test shows nothing", n)
	}
	if held := opts.Memory.Total() - opts.Memory.Free(); held <= 0 || held > 10<<10 {
		t.Errorf("%d bytes are held for an answer of one sample", held)
	}
	query.Close()
	query.Close()
	if opts.Memory.Free() != opts.Memory.Total() {
		t.Error("not given back:", opts.Memory.Holders())
	}
}

func TestQueryLimits(t *testing.T) {
	f := func(opts Options, text string, kind errs.Kind, want string) {
		t.Helper()
		q := open(t, opts)
		query, res := execute(t, q, "a", text)
		if errs.KindOf(res.Err) != kind ||
			kind != errs.OK && (!strings.Contains(res.Err.Error(), want) || !strings.Contains(res.Err.Error(), "tenant a")) {
			t.Errorf("%s: %v", text, res.Err)
		}
		query.Close()
		if free := q.opts.Memory.Free(); free != q.opts.Memory.Total() {
			t.Errorf("%s: not given back: %v", text, q.opts.Memory.Holders())
		}
	}
	f(bounded(64<<20), "max_over_time(vector(1)[1d:1s])", errs.OK, "")
	f(bounded(64<<20), "max_over_time(vector(1)[200d:1s])", errs.Limited, "--query.max-memory")
	f(bounded(64<<20), `label_replace(vector(1), "a", "`+strings.Repeat("x", 50_000)+`", "", "")`, errs.Limited,
		"--query.max-memory")
	f(bounded(64<<20), `label_replace(vector(1), "a", "`+strings.Repeat("x", 50)+`", "", "")`, errs.OK, "")
	// Where labels are long, too, a query can have most of the memory.
	f(bounded(64<<20), `max_over_time(label_replace(vector(1), "a", "`+strings.Repeat("x", 30)+`", "", "")[3d:1s])`,
		errs.OK, "")
	f(bounded(64<<20), `max_over_time(label_replace(vector(1), "a", "`+strings.Repeat("x", 30)+`", "", "")[9d:1s])`,
		errs.Limited, "--query.max-memory")
	opts := DefaultOptions()
	opts.MaxSamples = 20_000
	f(opts, "max_over_time(vector(1)[1d:1s])", errs.Limited,
		"have 86401 steps, and may have 20000 (limit --query.max-samples)")
	f(opts, "max_over_time(vector(1)[5h:1s])", errs.Limited,
		"more than 20000 samples in memory (limit --query.max-samples)")
	f(opts, "max_over_time(vector(1)[1h:1s])", errs.OK, "")
	f(bounded(1000), "vector(1)", errs.OK, "")
	f(DefaultOptions(), "max_over_time(nothing[10y:1ms])", errs.Limited, "315360000001 steps, and may have 50000000")
	f(DefaultOptions(), "max_over_time(nothing[200d:1s])", errs.OK, "") // it holds no samples
	f(bounded(64<<20), "max_over_time(nothing[200d:1s])", errs.Limited, "--query.max-memory")
	f(bounded(64<<20), "max_over_time(last_over_time(vector(1)[1y:1y])[20d:1s])", errs.Limited,
		"--query.max-memory") // of few samples it makes 1.7 million
}

// TestQueriesThatCannotBeStopped: the engine does not look at the context within a series, so that a query of a few
// bytes went on for hours after its timeout. And nobody makes it divide by zero.
func TestQueriesThatCannotBeStopped(t *testing.T) {
	q := open(t, DefaultOptions())
	f := func(text, start, end, step string, status int, want string) {
		t.Helper()
		code, body, _ := get(t, q, "/api/v1/query_range",
			url.Values{"query": {text}, "start": {start}, "end": {end}, "step": {step}})
		if code != status || !strings.Contains(body, want) {
			t.Errorf("%s from %s to %s every %s: %d %.300s", text, start, end, step, code, body)
		}
	}
	f("quantile_over_time(0.5, vector(time() % 7)[30d:1s])", "1e6", "1.01e6", "1", 422, "limit on the work for one series")
	f("quantile_over_time(0.5, vector(time() % 7)[30d:1s])", "1e6", "1e6", "1", 200, "success")
	f("quantile_over_time(0.5, nothing[30d:1m])", "1e6", "1.011e6", "1", 200, "success")
	f("vector(1)", "0", "0.001", "0.0001", 400, "must be 1ms or more")
	f("max_over_time(vector(1)[1h:0.0001])", "0", "0", "1", 400, "must be 1ms or more")
}

// TestQueriesStayWithinMemory: what killed a process, in small. Forty queries of one tenant at a time, each of which
// may have most of the memory; the others' small ones are answered meanwhile.
func TestQueriesStayWithinMemory(t *testing.T) {
	const budget = 64 << 20
	opts := bounded(budget)
	opts.MemoryWait = time.Minute
	q := open(t, opts)
	ask := func(id, text string) (int, string) {
		code, body, _ := get(t, q, "/api/v1/query", url.Values{"query": {text}, "time": {"1e6"}}, "X-Scope-OrgID: "+id)
		return code, body
	}
	runtime.GC()
	before := heap()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(before + 4*budget)) // as a process that knows its limit
	var most, small atomic.Int64
	done := make(chan struct{})
	var watchers, queries sync.WaitGroup
	watchers.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				most.Store(max(most.Load(), heap()-before))
				if free := opts.Memory.Free(); free < budget/20 {
					t.Errorf("%d bytes are free: one tenant holds what is kept for others", free)
				}
			}
		}
	})
	watchers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if code, body := ask("small", "sum_over_time(vector(1)[10m:1s])"); code != 200 {
				t.Errorf("another tenant's small query: %d %s", code, body)
			}
			small.Add(1)
		}
	})
	for i := range 40 {
		queries.Go(func() {
			text, want := "max_over_time(vector(1)[3d:1s])", 200
			if i%2 == 0 {
				text, want = "max_over_time(vector(1)[20d:1s])", 422 // never fits
			}
			if code, body := ask("big", text); code != want || want == 422 && !strings.Contains(body, "--query.max-memory") {
				t.Errorf("%s: %d %s", text, code, body)
			}
		})
	}
	queries.Wait()
	close(done)
	watchers.Wait()
	t.Logf("at most %d MiB of heap for a budget of %d MiB, %d small queries meanwhile", most.Load()>>20, budget>>20,
		small.Load())
	if most.Load() > 5*budget {
		t.Errorf("%d bytes of heap, and queries may hold %d", most.Load(), budget)
	}
	if small.Load() == 0 || opts.Memory.Free() != budget {
		t.Error(small.Load(), opts.Memory.Holders())
	}
}

func heap() int64 {
	s := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtimemetrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// TestMemoryIsFull: a query that got no memory within the wait is answered that it may come again.
func TestMemoryIsFull(t *testing.T) {
	opts := bounded(64 << 20)
	opts.MemoryWait = time.Millisecond
	q := open(t, opts)
	for _, id := range []tenant.ID{"x", "y", "z"} { // until even the least allowance is not free
		other := opts.Memory.Owner("test", 0).Open(id)
		if err := other.Grow((opts.Memory.Free() - 700) * 8 / 9); err != nil {
			t.Fatal(err)
		}
		defer other.Close()
	}
	code, body, header := get(t, q, "/api/v1/query", url.Values{"query": {"vector(1)"}})
	check(t, code, body, 503, "--query.max-memory", "try again")
	if header.Get("Retry-After") != "1" {
		t.Error(header)
	}
}

// TestAnswerHoldsMemory: a result counts until its reader has taken it, and no longer.
func TestAnswerHoldsMemory(t *testing.T) {
	opts := bounded(256 << 20)
	q := open(t, opts)
	w := newSlowWriter()
	r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?query=vector(1)&start=0&end=10000&step=1", nil)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		q.Handler().ServeHTTP(w, r)
	}()
	<-w.writing
	if held := opts.Memory.Total() - opts.Memory.Free(); held < 10_000*resultBytes || held > 11_000*resultBytes ||
		q.engine.places.Used() != 0 {
		t.Errorf("%d bytes and %d places are held for an answer of 10,001 samples", held, q.engine.places.Used())
	}
	close(w.release)
	<-answered
	if opts.Memory.Free() != opts.Memory.Total() {
		t.Error("not given back:", opts.Memory.Holders())
	}
}

// slowWriter is the connection of a client that takes nothing until release is closed.
type slowWriter struct {
	*httptest.ResponseRecorder
	once             sync.Once
	writing, release chan struct{} // writing is closed by the first write
}

func newSlowWriter() *slowWriter {
	return &slowWriter{ResponseRecorder: httptest.NewRecorder(), writing: make(chan struct{}),
		release: make(chan struct{})}
}

func (w *slowWriter) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.writing) })
	<-w.release
	return w.ResponseRecorder.Write(b)
}

// TestResultsCountTheirSize: a result whose text needs more than the query had is refused if that is not free.
func TestResultsCountTheirSize(t *testing.T) {
	q := open(t, bounded(3<<20))
	code, body, _ := get(t, q, "/api/v1/query_range", url.Values{
		"query": {"vector(1) or label_replace(vector(2), 'a', 'b', '', '')  or label_replace(vector(2), 'a', 'c', '', '')"},
		"start": {"0"}, "end": {"10000"}, "step": {"1"}})
	check(t, code, body, 422, "--query.max-memory")
	if q.opts.Memory.Free() != q.opts.Memory.Total() {
		t.Error(q.opts.Memory.Holders())
	}
}

// TestSelectionsHoldMemory: what sources send counts while it is held.
func TestSelectionsHoldMemory(t *testing.T) {
	var in []sourcetest.Series
	for i := range 2000 {
		in = append(in, oneSample(1, "__name__", "m", "i", fmt.Sprint(i), "long", strings.Repeat("x", 1000)))
	}
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{"a": in})
	q := open(t, bounded(2<<20), e)
	code, body, header := get(t, q, "/api/v1/query", url.Values{"query": {"count(m)"}, "time": {"1"}}, "X-Scope-OrgID: a")
	check(t, code, body, 422, "tenant a", "--query.max-memory")
	code, body, _ = get(t, q, "/api/v1/series", url.Values{"match[]": {"m"}, "start": {"0"}, "end": {"2"}},
		"X-Scope-OrgID: a")
	check(t, code, body, 422, "tenant a", "--query.max-memory")
	// both are small: one value, and 2,000 of 4 bytes
	for _, path := range []string{"/label/long/values", "/label/i/values"} {
		code, body, _ = get(t, q, "/api/v1"+path, url.Values{"start": {"0"}, "end": {"2"}}, "X-Scope-OrgID: a")
		check(t, code, body, 200)
	}
	code, body, _ = get(t, open(t, bounded(50<<10), e), "/api/v1/label/i/values", url.Values{"start": {"0"}, "end": {"2"}},
		"X-Scope-OrgID: a")
	check(t, code, body, 422, "tenant a", "--query.max-memory")
	if q.opts.Memory.Free() != q.opts.Memory.Total() {
		t.Error(q.opts.Memory.Holders(), header)
	}
	code, body, _ = get(t, open(t, bounded(64<<20), e), "/api/v1/query", url.Values{"query": {"count(m)"}, "time": {"1"}},
		"X-Scope-OrgID: a")
	check(t, code, body, 200, `"2000"`)
}

// TestFullQueue: a tenant's queries wait in a queue that is bounded, and another tenant's do not wait for them.
func TestFullQueue(t *testing.T) {
	opts := DefaultOptions()
	opts.MaxConcurrent = 10
	q := open(t, opts)
	var leave []func()
	for range 9 {
		l, err := q.engine.places.Enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var refused atomic.Int64
	for range waitingPerPlace * opts.MaxConcurrent {
		wg.Go(func() {
			query, err := q.engine.NewInstantQuery(ctx, q, nil, "vector(1)", time.Unix(0, 0))
			if err != nil {
				t.Error(err)
				return
			}
			defer query.Close()
			if res := query.Exec(tenant.WithSet(ctx, []tenant.ID{"a"})); errs.KindOf(res.Err) == errs.Exhausted &&
				errs.RetryAfter(res.Err) > 0 {
				refused.Add(1)
			}
		})
	}
	deadline := time.Now().Add(30 * time.Second)
	for refused.Load() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if refused.Load() == 0 {
		t.Error("nobody was refused")
	}
	if code, body, _ := get(t, q, "/api/v1/query", url.Values{"query": {"vector(1)"}}, "X-Scope-OrgID: b"); code != 200 {
		t.Error("another tenant:", code, body)
	}
	cancel()
	wg.Wait()
	for _, l := range leave {
		l()
	}
	if q.engine.places.Used() != 0 {
		t.Error(q.engine.places.Used())
	}
}

func TestResultSize(t *testing.T) {
	if n := resultSize(&promql.Result{Value: promql.Scalar{V: math.Pi}}); n != 0 {
		t.Error(n)
	}
	m := promql.Matrix{{Floats: make([]promql.FPoint, 10)}, {Floats: make([]promql.FPoint, 5)}}
	if n := resultSize(&promql.Result{Value: m}); n != 15*resultBytes+2*256 {
		t.Error(n)
	}
}
