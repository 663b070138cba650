package frontend

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// ask sends a range query of two pieces to a frontend that is a process of its own, before a querier that answer plays.
func ask(t *testing.T, budget int64, answer http.HandlerFunc) (status int, body string) {
	t.Helper()
	querier := httptest.NewServer(answer)
	defer querier.Close()
	u, err := url.Parse(querier.URL)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDownstream(DownstreamOptions{URLs: []*url.URL{u}, Transport: http.DefaultTransport,
		TenantHeader: tenant.HeaderThanos})
	if err != nil {
		t.Fatal(err)
	}
	opts := DefaultOptions()
	opts.Memory, opts.Retries = memory.NewBudget(nil, "--query.max-memory", budget), 1
	f, err := New(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), d, opts)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(f)
	defer front.Close()
	resp, err := http.Get(front.URL + "/api/v1/query_range?" + query("c", 86_400-600, 86_400+600, 60).Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

const emptyAnswer = `{"status":"success","data":{"resultType":"matrix","result":[]}}`

// TestQuerierDies: a querier that dies in the middle of its answer is tried again, and costs its query at most, not the
// process. net/http keeps panics of handlers to their request on its own goroutines only.
func TestQuerierDies(t *testing.T) {
	var asked atomic.Int32
	dies := func(times int32) http.HandlerFunc {
		asked.Store(0)
		return func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) > times {
				_, _ = io.WriteString(w, emptyAnswer)
				return
			}
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"status":"success",`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	if status, body := ask(t, 1<<20, dies(2)); status != http.StatusOK || body != emptyAnswer || asked.Load() != 4 {
		t.Errorf("two answers were cut off: %d %s after %d requests", status, body, asked.Load())
	}
	if status, body := ask(t, 1<<20, dies(100)); status != http.StatusServiceUnavailable ||
		!strings.Contains(body, `"errorType":"unavailable"`) {
		t.Errorf("all are cut off: %d %s", status, body)
	}
}

// TestPanic: a panic of who evaluates is an error of that query alone.
func TestPanic(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.prom.hook = func(http.ResponseWriter, *http.Request) bool { panic("of the engine") }
	w := get(f.frontend, query("c", 3600, 5*3600, 60))
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "of the engine") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	f.prom.hook = func(http.ResponseWriter, *http.Request) bool { return true } // it says nothing at all
	if w := get(f.frontend, query("c", 3600, 5*3600, 60)); w.Code != http.StatusInternalServerError {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestLargeAnswer: an answer for which there is no memory is an error that says so.
func TestLargeAnswer(t *testing.T) {
	status, body := ask(t, 64<<10, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(1<<20))
		_, _ = w.Write(make([]byte, 1<<20))
	})
	if status != http.StatusServiceUnavailable && status != http.StatusUnprocessableEntity ||
		!strings.Contains(body, "--query.max-memory") {
		t.Errorf("%d %s", status, body)
	}
}

// FuzzAnswer: no bytes of a querier break the reader, and what it takes has steps of the piece only, in order.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(emptyAnswer))
	f.Add([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1,"1"],[2,"NaN"]],` +
		`"histograms":[[3,{"count":"1"}]]}]},"warnings":["w"],"infos":["i"]}`))
	f.Add([]byte(`{"data":{"result":[{"metric":[1,{}],"values":[[`))
	p := piece{1000, 10_000}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := readAnswer(body, p, 1000)
		if err != nil {
			return
		}
		for _, c := range a.series {
			for _, at := range [][]int32{c.at, c.histAt} {
				for i, n := range at {
					if n < 0 || int(n) >= p.steps(1000) || i > 0 && n <= at[i-1] {
						t.Errorf("steps %v", at)
					}
				}
			}
			if len(c.at) != len(c.values) || len(c.histAt) != len(c.hists) {
				t.Errorf("%d steps with %d values, %d with %d histograms", len(c.at), len(c.values), len(c.histAt), len(c.hists))
			}
		}
		join([]matrix{a.matrix, {piece: piece{11_000, 11_000}, step: 1000}})
	})
}
