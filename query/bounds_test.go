package query

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// post sends a form, whose size no URL bounds.
func post(q *Querier, path string, form url.Values) (int, string) {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	q.Handler().ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// TestExpressionsAreBounded: on every path, an expression that could take the process down is refused before it is
// parsed.
func TestExpressionsAreBounded(t *testing.T) {
	e, _ := receiver("r", nil)
	q := open(t, DefaultOptions(), e)
	deep := strings.Repeat("(", 20_000) + "m" + strings.Repeat(")", 20_000)
	unary := strings.Repeat("-", 50_000) + "1"
	left := strings.Repeat("1+", 20_000) + "1"
	pattern := `m{a=~"` + strings.Repeat("a{1000}", 200) + `"}`
	long := `m{a="` + strings.Repeat("x", expr.DefaultMaxBytes) + `"}`
	f := func(path, param string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			form := url.Values{param: {text}, "start": {"0"}, "end": {"10"}, "step": {"1"}}
			if code, body := post(q, "/api/v1"+path, form); code != 422 || !strings.Contains(body, "limit") {
				t.Errorf("POST %s, %s=%.10s... of %d bytes: %d %.300s", path, param, text, len(text), code, body)
			}
			if code, body, _ := get(t, q, "/prometheus/api/v1"+path, form); code != 422 || !strings.Contains(body, "limit") {
				t.Errorf("GET %s, %s=%.10s... of %d bytes: %d %.300s", path, param, text, len(text), code, body)
			}
		}
	}
	for _, path := range []string{"/query", "/query_range", "/format_query", "/parse_query", "/query_exemplars"} {
		f(path, "query", deep, unary, left, pattern, long)
	}
	for _, path := range []string{"/series", "/labels"} {
		f(path, "match[]", deep, pattern, long)
	}
	for _, path := range []string{"/query", "/query_range", "/series", "/labels", "/format_query"} {
		f(path, "storeMatch[]", deep, pattern, long)
	}
	for _, param := range []string{"match[]", "storeMatch[]"} {
		code, body, _ := get(t, q, "/api/v1/label/a/values", url.Values{param: {pattern}})
		check(t, code, body, 422, "limit")
		code, body, _ = get(t, q, "/api/v1/metadata", url.Values{"storeMatch[]": {deep}})
		check(t, code, body, 422, "limit")
	}
	many := url.Values{"start": {"0"}, "end": {"10"}}
	for range 3000 {
		many.Add("match[]", `m{a="0123456789"}`) // each is small
	}
	code, body := post(q, "/api/v1/series", many)
	check(t, code, body, 422, "selections")
	for range 3000 {
		many.Add("match[]", `m{a="0123456789"}`)
	}
	code, body = post(q, "/api/v1/series", many)
	check(t, code, body, 422, "--query.max-expression-bytes")
	code, body = post(q, "/api/v1/query", url.Values{"query": {"1"}, "other": {strings.Repeat("x", 1<<20)}})
	check(t, code, body, 422, "too large")
	code, body = post(q, "/api/v1/query",
		url.Values{"query": {`sum by (a) (rate(m{b=~"c|d.+"}[5m])) / on (a) group_left () -n`}})
	check(t, code, body, 200)
}

// TestRemoteReadIsBounded: a remote read's matchers are bounded as those of a query.
func TestRemoteReadIsBounded(t *testing.T) {
	e, _ := receiver("r", nil)
	q := open(t, DefaultOptions(), e)
	f := func(want int, text string, body []byte) {
		t.Helper()
		r := httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(body))
		w := httptest.NewRecorder()
		q.Handler().ServeHTTP(w, r)
		if w.Code != want || !strings.Contains(w.Body.String(), text) {
			t.Errorf("%d %.300s, want %d %s", w.Code, w.Body, want, text)
		}
	}
	request := func(typ prompb.LabelMatcher_Type, value string) []byte {
		query := &prompb.Query{EndTimestampMs: 1, Matchers: []*prompb.LabelMatcher{{Type: typ, Name: "a", Value: value}}}
		body, err := (&prompb.ReadRequest{Queries: []*prompb.Query{query, query}}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return snappy.Encode(nil, body)
	}
	f(200, "", request(prompb.LabelMatcher_RE, "b.*"))
	f(422, "regular expressions", request(prompb.LabelMatcher_RE, strings.Repeat("a{1000}", 200)))
	f(422, "regular expressions", request(prompb.LabelMatcher_NRE, strings.Repeat("abcdefgh.", 8_000))) // twice
	f(400, "matcher on label", request(prompb.LabelMatcher_RE, "("))
	f(422, "at most 1048576 bytes", request(prompb.LabelMatcher_EQ, strings.Repeat("a", 1<<20)))
	f(422, "at most 1048576 bytes", make([]byte, 2<<20))
	f(400, "remote read", []byte("\x05hello"))

	// Its body is never read as a form, of which more would be read, and with nothing to bound how often.
	r := httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(request(prompb.LabelMatcher_RE, "b.*")))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	q.Handler().ServeHTTP(w, r)
	if w.Code != 200 {
		t.Errorf("with the header of a form: %d %s", w.Code, w.Body)
	}
}

// TestTenantsPerQuery: a header that names too many tenants is refused before anything is done for any of them.
func TestTenantsPerQuery(t *testing.T) {
	e, m := receiver("r", map[tenant.ID][]sourcetest.Series{"a": {oneSample(1, "__name__", "up")}})
	var asked atomic.Int64
	m.Fail = func() error { asked.Add(1); return nil }
	opts := DefaultOptions()
	opts.MaxTenants = 3
	q := open(t, opts, e)
	asked.Store(0)
	for _, header := range []string{"a|b|c|d", strings.Repeat("a|", 63_750) + "a"} {
		for _, path := range []string{"/query", "/query_range", "/series", "/labels", "/label/a/values", "/query_exemplars", "/metadata", "/status/buildinfo"} {
			code, body, _ := get(t, q, "/api/v1"+path,
				form("query", "up", "match[]", "up", "start", "0", "end", "1", "step", "1"), "X-Scope-OrgID: "+header)
			check(t, code, body, 422, "--query.max-tenants")
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("sources were asked %d times", n)
	}
	code, body, _ := get(t, q, "/api/v1/query", form("query", "up", "time", "1"), "X-Scope-OrgID: a|b|c")
	check(t, code, body, 200, `"1"`)
	opts.MaxTenants = 0
	many := make([]string, 150)
	for i := range many {
		many[i] = fmt.Sprint("t", i)
	}
	q = open(t, opts, e)
	code, body, _ = get(t, q, "/api/v1/query", form("query", "up", "time", "1"),
		"X-Scope-OrgID: a|"+strings.Join(many, "|"))
	check(t, code, body, 200, `"1"`)
	code, body, _ = get(t, q, "/api/v1/query", form("query", strings.Repeat("up or ", 15)+"up"),
		"X-Scope-OrgID: a|"+strings.Join(many, "|"))
	check(t, code, body, 422, "selections")
}

// readBody is a remote read of everything within [0, maxt].
func readBody(t *testing.T, kind prompb.ReadRequest_ResponseType, maxt int64) []byte {
	t.Helper()
	query := &prompb.Query{EndTimestampMs: maxt,
		Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: ".+"}}}
	body, err := (&prompb.ReadRequest{Queries: []*prompb.Query{query},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{kind}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, body)
}

func readRequest(body []byte, id string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(body))
	r.Header.Set("X-Scope-OrgID", id)
	return r
}

// TestSlowRemoteReads: more readers of one tenant than there are places, who take nothing, do not keep another
// tenant's from being answered.
func TestSlowRemoteReads(t *testing.T) {
	data := map[tenant.ID][]sourcetest.Series{"slow": {oneSample(1, "__name__", "up")},
		"quick": {oneSample(2, "__name__", "up")}}
	e, _ := receiver("r", data)
	q := open(t, DefaultOptions(), e)
	for _, kind := range []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES,
		prompb.ReadRequest_STREAMED_XOR_CHUNKS} {
		body := readBody(t, kind, 2000)
		var wg sync.WaitGroup
		var writers []*slowWriter
		for range 2 * remoteReadConcurrency {
			w := newSlowWriter()
			writers = append(writers, w)
			wg.Go(func() { q.Handler().ServeHTTP(w, readRequest(body, "slow")) })
		}
		busy := func() (n int) {
			for _, w := range writers {
				select {
				case <-w.writing:
					n++
				default:
				}
			}
			return n
		}
		deadline := time.Now().Add(30 * time.Second)
		for busy() < remoteReadConcurrency-1 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		answered := make(chan int)
		go func() {
			w := httptest.NewRecorder()
			q.Handler().ServeHTTP(w, readRequest(body, "quick"))
			answered <- w.Code
		}()
		select {
		case code := <-answered:
			if code != 200 {
				t.Errorf("%v: status %d", kind, code)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%v: a remote read of another tenant waits for readers that take nothing", kind)
		}
		for _, w := range writers {
			close(w.release)
		}
		wg.Wait()
		for _, w := range writers {
			if w.Code != 200 {
				t.Errorf("%v: who waited for its place got %d", kind, w.Code)
			}
		}
	}
	if q.reads.Used() != 0 || q.opts.Memory.Free() != q.opts.Memory.Total() {
		t.Error(q.reads.Used(), q.opts.Memory.Holders())
	}
}

// TestRemoteReadsHoldMemory: an answer that is made as a whole counts while it is made and written.
func TestRemoteReadsHoldMemory(t *testing.T) {
	var samples []sourcetest.Sample
	for i := range 10_000 {
		samples = append(samples, sourcetest.Sample{T: int64(i), V: float64(i)})
	}
	e, _ := receiver("r",
		map[tenant.ID][]sourcetest.Series{"a": {{Labels: labels.FromStrings("__name__", "up"), Samples: samples}}})
	f := func(memory int64, kind prompb.ReadRequest_ResponseType, code int, text string) {
		t.Helper()
		q := open(t, bounded(memory), e)
		w := httptest.NewRecorder()
		q.Handler().ServeHTTP(w, readRequest(readBody(t, kind, 10_000), "a"))
		if w.Code != code || !strings.Contains(w.Body.String(), text) {
			t.Errorf("%d bytes: %d %.200s, want %d %s", memory, w.Code, w.Body, code, text)
		}
		if q.opts.Memory.Free() != memory || q.reads.Used() != 0 {
			t.Errorf("%d bytes: not given back: %v", memory, q.opts.Memory.Holders())
		}
	}
	f(4<<20, prompb.ReadRequest_SAMPLES, 200, "")
	f(700<<10, prompb.ReadRequest_SAMPLES, 422, "--query.max-memory")
	f(700<<10, prompb.ReadRequest_STREAMED_XOR_CHUNKS, 200, "") // it is made chunk by chunk

	opts := bounded(2 << 20)
	q := open(t, opts, e)
	w := newSlowWriter()
	done := make(chan struct{})
	go func() {
		defer close(done)
		q.Handler().ServeHTTP(w, readRequest(readBody(t, prompb.ReadRequest_SAMPLES, 10_000), "a"))
	}()
	<-w.writing
	if held := opts.Memory.Total() - opts.Memory.Free(); held < 10_000*readSampleBytes {
		t.Errorf("%d bytes are held for an answer of 10,000 samples", held)
	}
	second := httptest.NewRecorder()
	big := readBody(t, prompb.ReadRequest_SAMPLES, 10_000)
	for range 2 { // one more fits, or none
		second = httptest.NewRecorder()
		other := opts.Memory.Owner("test", 0).Open("b")
		_ = other.Grow(opts.Memory.Free() * 8 / 9)
		q.Handler().ServeHTTP(second, readRequest(big, "a"))
		other.Close()
	}
	if second.Code != 503 || second.Header().Get("Retry-After") != "1" {
		t.Errorf("%d %v %s", second.Code, second.Header(), second.Body)
	}
	close(w.release)
	<-done
	if opts.Memory.Free() != opts.Memory.Total() {
		t.Error(opts.Memory.Holders())
	}
}

// TestRemoteReadsWaitForATime: where readers that take nothing have every place, a read of another tenant is refused
// in the end, and does not wait for ever.
func TestRemoteReadsWaitForATime(t *testing.T) {
	o := DefaultOptions()
	o.Timeout = 50 * time.Millisecond
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{"quick": {oneSample(2, "__name__", "up")}})
	q := open(t, o, e)
	for i := range remoteReadConcurrency {
		id := tenant.ID("slow")
		if i == remoteReadConcurrency-1 {
			id = "slower"
		}
		leave, err := q.reads.Enter(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
	}
	r := readRequest(readBody(t, prompb.ReadRequest_SAMPLES, 2000), "quick")
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	w := httptest.NewRecorder()
	q.Handler().ServeHTTP(w, r.WithContext(ctx))
	if w.Code != http.StatusServiceUnavailable || ctx.Err() != nil {
		t.Errorf("status %d, %s, request: %v", w.Code, w.Body, ctx.Err())
	}
}
