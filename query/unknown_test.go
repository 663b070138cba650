package query

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// mortal is a receiver of which each answer says whose data it is from, as those of other processes do. It can die.
type mortal struct {
	*moody
	dead atomic.Bool
	disk atomic.Pointer[series.Identity]
}

// newMortal is a receiver with one series, whose disk is of hour since of the tests' day.
func newMortal(name string, since float64) *mortal {
	m := &mortal{moody: &moody{Memory: &sourcetest.Memory{
		About: series.Info{Instance: name, Role: series.RoleReceive, Since: at(since), MinTime: 0, MaxTime: 1 << 60},
		Data: map[tenant.ID][]sourcetest.Series{tenant.Default: {{
			Labels: labels.FromStrings("__name__", "up", "job", "a"), Samples: []sourcetest.Sample{{T: at(5).UnixMilli(), V: 1}},
		}}},
	}}}
	m.disk.Store(&series.Identity{Instance: name, Since: at(since)})
	m.Fail = func() error {
		if m.dead.Load() {
			return errs.E(errs.Unavailable, "connection refused")
		}
		return nil
	}
	return m
}

// comeBackEmpty is what a restart with an empty disk at some hour makes of m.
func (m *mortal) comeBackEmpty(hour float64) {
	m.About.Since, m.Data = at(hour), map[tenant.ID][]sourcetest.Series{}
	m.disk.Store(&series.Identity{Instance: m.About.Instance, Since: at(hour)})
}

func (m *mortal) Select(ctx context.Context, r *series.Request) series.Set {
	series.TellIdentity(ctx, *m.disk.Load())
	return m.moody.Select(ctx, r)
}

func (m *mortal) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	series.TellIdentity(ctx, *m.disk.Load())
	return m.moody.LabelNames(ctx, r)
}

func (m *mortal) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	series.TellIdentity(ctx, *m.disk.Load())
	return m.moody.LabelValues(ctx, name, r)
}

func (m *mortal) Exemplars(
	ctx context.Context,
	id tenant.ID,
	mint, maxt int64,
	ms ...[]*labels.Matcher,
) ([]exemplar.QueryResult, series.Warnings, error) {
	series.TellIdentity(ctx, *m.disk.Load())
	if err := m.Fail(); err != nil || len(m.Data) == 0 {
		return nil, nil, err
	}
	return m.moody.Exemplars(ctx, id, mint, maxt, ms...)
}

func (m *mortal) Metadata(
	ctx context.Context,
	id tenant.ID,
	family string,
	limit int,
) (map[string][]metadata.Metadata, series.Warnings, error) {
	series.TellIdentity(ctx, *m.disk.Load())
	if err := m.Fail(); err != nil || len(m.Data) == 0 {
		return nil, nil, err
	}
	return m.moody.Metadata(ctx, id, family, limit)
}

// readAPIs are all requests that answer with what sources hold.
func readAPIs(t *testing.T) map[string]*http.Request {
	from, to := at(4).UTC().Format(time.RFC3339), at(6).UTC().Format(time.RFC3339)
	of := func(path string, pairs ...string) *http.Request {
		form := form(append(pairs, "start", from, "end", to)...)
		return httptest.NewRequest(http.MethodGet, "/api/v1"+path+"?"+form.Encode(), nil)
	}
	read := readRequest(readBody(t, prompb.ReadRequest_SAMPLES, at(6).UnixMilli()), string(tenant.Default))
	return map[string]*http.Request{
		"query":                   of("/query", "query", "up", "time", at(5).UTC().Format(time.RFC3339)),
		"query_range":             of("/query_range", "query", "up", "step", "60"),
		"series":                  of("/series", "match[]", "up"),
		"labels":                  of("/labels"),
		"labels that match":       of("/labels", "match[]", "up"),
		"label values":            of("/label/job/values"),
		"label values that match": of("/label/job/values", "match[]", "up"),
		"metadata":                of("/metadata"),
		"exemplars":               of("/query_exemplars", "query", "up"),
		"remote read":             read,
	}
}

// TestNotKnowing goes through all read APIs and all ways of not knowing what there is: each answer says so, and with
// partial_response=false each is an error.
func TestNotKnowing(t *testing.T) {
	ways := []struct {
		name, want string
		endpoints  func(a, b *mortal) []Endpoint
		then       func(b *mortal) // after the first poll
		rf         int             // 0 = nothing is known of a ring
	}{
		{name: "dead", want: "receive b did not answer: connection refused", then: func(b *mortal) { b.dead.Store(true) }},
		{name: "dead member", want: "receivers b did not answer and may hold the only copies",
			then: func(b *mortal) { b.dead.Store(true) }, rf: 1},
		{name: "unresolved", want: "unknown dns+nowhere:10901 did not answer: no such host",
			endpoints: func(a, _ *mortal) []Endpoint {
				return []Endpoint{{Name: "a", Source: a},
					{Name: "dns+nowhere:10901", Source: series.FailedSource(errs.E(errs.Unavailable, "no such host"))}}
			}},
		{name: "nobody", want: "nobody to ask is known", endpoints: func(_, _ *mortal) []Endpoint { return nil }},
		{name: "back empty", want: "receivers b did not answer and may hold the only copies",
			then: func(b *mortal) { b.comeBackEmpty(7) }, rf: 1},
		{name: "slow", want: "did not answer", then: func(b *mortal) { b.silence.Store(int64(forGood)) }},
	}
	for _, way := range ways {
		for api, r := range readAPIs(t) {
			for _, partial := range []bool{true, false} {
				during(t, fmt.Sprintf("%s, %s, partial %t", way.name, api, partial), func(t *testing.T) {
					a, b := newMortal("a", 1), newMortal("b", 1)
					endpoints := []Endpoint{{Name: "a", Source: a}, {Name: "b", Source: b}}
					if way.endpoints != nil {
						endpoints = way.endpoints(a, b)
					}
					opts := DefaultOptions()
					opts.Now = func() time.Time { return at(5.1) }
					if way.rf > 0 {
						opts.Membership = func(tenant.ID) Membership {
							return Membership{ReplicationFactor: way.rf,
								History: []ring.Incarnation{incarnation("a", "", 1, 0, false), incarnation("b", "", 1, 0, false)}}
						}
					}
					q, err := New(slog.New(slog.NewTextHandler(io.Discard, nil)), nil, func() []Endpoint { return endpoints }, opts)
					if err == nil {
						err = q.Open(context.Background(), nil)
					}
					if err != nil {
						t.Fatal(err)
					}
					defer q.Close()
					if way.then != nil {
						way.then(b)
					}
					r := r.Clone(t.Context())
					if !partial {
						query := r.URL.Query()
						query.Set("partial_response", "false")
						r.URL.RawQuery = query.Encode()
					}
					if api == "remote read" {
						r = readRequest(readBody(t, prompb.ReadRequest_SAMPLES, at(6).UnixMilli()), string(tenant.Default))
					}
					w := httptest.NewRecorder()
					q.Handler().ServeHTTP(w, r)
					body := w.Body.String()
					switch {
					case !strings.Contains(body, way.want):
						t.Errorf("status %d, want %q in %s", w.Code, way.want, body)
					case partial && api != "remote read" && (w.Code != 200 || !strings.Contains(body, `"warnings":["partial answer: `) || w.Header().Get("Cache-Control") != "no-store"):
						t.Errorf("status %d, want a warning: %s", w.Code, body)
					case (!partial || api == "remote read") && w.Code != 503:
						t.Errorf("status %d, want 503: %s", w.Code, body)
					}
				})
			}
		}
	}
}

// overTwo is a querier over two receivers, of which it also returns the second.
func overTwo(t *testing.T) (*Querier, *mortal) {
	t.Helper()
	a, b := newMortal("a", 1), newMortal("b", 1)
	opts := DefaultOptions()
	opts.Now = func() time.Time { return at(5.1) }
	opts.Membership = func(tenant.ID) Membership {
		return Membership{ReplicationFactor: 1,
			History: []ring.Incarnation{incarnation("a", "", 1, 0, false), incarnation("b", "", 1, 0, false)}}
	}
	q := open(t, opts, Endpoint{Name: "a", Source: a}, Endpoint{Name: "b", Source: b})
	return q, b
}

// TestKnowing: the same requests of a querier that knows all there is carry no warning.
func TestKnowing(t *testing.T) {
	q, _ := overTwo(t)
	for api, r := range readAPIs(t) {
		w := httptest.NewRecorder()
		q.Handler().ServeHTTP(w, r)
		if w.Code != 200 || strings.Contains(w.Body.String(), "warnings") {
			t.Errorf("%s: status %d: %s", api, w.Code, w.Body)
		}
	}
}

// TestAddressTaken: an answer of another process than the one that was polled at the address does not count for it.
func TestAddressTaken(t *testing.T) {
	q, b := overTwo(t)
	b.disk.Store(&series.Identity{Instance: "c", Since: at(1)})
	code, body, _ := get(t, q, "/api/v1/query", form("query", "up", "time", at(5).UTC().Format(time.RFC3339)))
	check(t, code, body, 200, `"value"`, "receivers b did not answer")
}

// TestExemplarWarnings: a source that warns keeps its exemplars and metadata, and the answer says what it said.
func TestExemplarWarnings(t *testing.T) {
	m := newMortal("a", 1)
	q := open(t, DefaultOptions(), Endpoint{Name: "a", Source: warning{m}})
	for path, want := range map[string]string{"/api/v1/query_exemplars": `"seriesLabels":{"__name__":"up"}`, "/api/v1/metadata": `"help":"h"`} {
		code, body, _ := get(t, q, path, url.Values{"query": {"up"}})
		check(t, code, body, 200, want, `"warnings":["half of it is missing"]`)
		code, body, _ = get(t, q, path, url.Values{"query": {"up"}, "partial_response": {"false"}})
		check(t, code, body, 503, "half of it is missing")
	}
	for query, want := range map[string]string{"up{": "parse error", "": "no expression"} {
		code, body, _ := get(t, q, "/api/v1/query_exemplars", url.Values{"query": {query}})
		check(t, code, body, 400, `"errorType":"bad_data"`, want)
	}
	if code, body, _ := get(t, q, "/api/v1/query_exemplars", url.Values{"query": {"1"}}); code != 204 || body != "" {
		t.Errorf("without a selector: %d %s", code, body)
	}
	for _, times := range []url.Values{{"start": {"x"}}, {"start": {"2"}, "end": {"1"}}} {
		times.Set("query", "up")
		code, body, _ := get(t, q, "/api/v1/query_exemplars", times)
		check(t, code, body, 400, `"errorType":"bad_data"`)
	}
}

type warning struct{ *mortal }

func (w warning) Exemplars(
	ctx context.Context,
	id tenant.ID,
	mint, maxt int64,
	ms ...[]*labels.Matcher,
) ([]exemplar.QueryResult, series.Warnings, error) {
	found, _, err := w.mortal.Exemplars(ctx, id, mint, maxt, ms...)
	return found, series.Warnings{"half of it is missing"}, err
}

func (w warning) Metadata(
	ctx context.Context,
	id tenant.ID,
	family string,
	limit int,
) (map[string][]metadata.Metadata, series.Warnings, error) {
	found, _, err := w.mortal.Metadata(ctx, id, family, limit)
	return found, series.Warnings{"half of it is missing"}, err
}

// TestNeverHeard: what a store has that never answered is not known, so no label of storeMatch[] leaves it out; and
// what one has that is away for long grows meanwhile.
func TestNeverHeard(t *testing.T) {
	r := &series.Request{Tenant: tenant.Default, MinTime: at(5).UnixMilli(), MaxTime: at(6).UnixMilli()}
	match := func(name, value string) [][]*labels.Matcher {
		return [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, name, value)}}
	}
	f := func(name string, m *endpoint, storeMatch [][]*labels.Matcher, want bool) {
		t.Helper()
		m.Name = "x"
		if p := choose([]*endpoint{m}, r, storeMatch); (len(p.down) > 0) != want {
			t.Errorf("%s: %+v", name, p)
		}
	}
	down := errs.E(errs.Unavailable, "down")
	f("never heard, a label", &endpoint{err: down}, match("cluster", "c"), true)
	f("never heard, its address", &endpoint{err: down}, match(addressLabel, "x"), true)
	f("never heard, another address", &endpoint{err: down}, match(addressLabel, "y"), false)
	old := series.Info{MinTime: at(1).UnixMilli(), MaxTime: at(4).UnixMilli(),
		Labels: []labels.Labels{labels.FromStrings("cluster", "c")}}
	f("heard lately", &endpoint{err: down, heard: true, info: old, gone: time.Minute}, nil, false)
	f("heard long ago", &endpoint{err: down, heard: true, info: old, gone: 2 * time.Hour}, nil, true)
	f("heard, another label", &endpoint{err: down, heard: true, info: old, gone: 2 * time.Hour}, match("cluster", "d"),
		false)
}
