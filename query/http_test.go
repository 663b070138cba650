package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

func oneSample(v float64, pairs ...string) sourcetest.Series {
	return sourcetest.Series{Labels: labels.FromStrings(pairs...), Samples: []sourcetest.Sample{{T: 1000, V: v}}}
}

// receiver is an endpoint that holds data by tenant.
func receiver(name string, data map[tenant.ID][]sourcetest.Series) (Endpoint, *sourcetest.Memory) {
	m := &sourcetest.Memory{Data: data, About: series.Info{Instance: name, Role: "receive", MinTime: 0, MaxTime: 1 << 50}}
	return Endpoint{Name: name, Source: m}, m
}

func form(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

func check(t *testing.T, code int, body string, wantCode int, want ...string) {
	t.Helper()
	if code != wantCode {
		t.Errorf("status %d, want %d: %s", code, wantCode, body)
	}
	for _, w := range want {
		if no, absent := strings.CutPrefix(w, "!"); absent && strings.Contains(body, no) ||
			!absent && !strings.Contains(body, w) {
			t.Errorf("want %s in %s", w, body)
		}
	}
	if !json.Valid([]byte(body)) {
		t.Errorf("not JSON: %s", body)
	}
}

func TestTenants(t *testing.T) {
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{
		"a":            {oneSample(1, "__name__", "up"), oneSample(7, "__name__", "own", "tenant_id", "mine")},
		"b":            {oneSample(2, "__name__", "up", "x", "y")},
		tenant.Default: {oneSample(3, "__name__", "up")},
	})
	q := open(t, DefaultOptions(), e)
	f := func(query, header string, wantCode int, want ...string) {
		t.Helper()
		code, body, _ := get(t, q, "/api/v1/query", form("query", query, "time", "1"), header)
		check(t, code, body, wantCode, want...)
	}
	f("up", "X: y", 200, `"metric":{"__name__":"up"},"value":[1,"3"]`)
	f("up", "THANOS-TENANT: a", 200, `"metric":{"__name__":"up"},"value":[1,"1"]`)
	f("up", "X-Scope-OrgID: b", 200, `"metric":{"__name__":"up","x":"y"},"value":[1,"2"]`)
	f("up", "X-Scope-OrgID: nobody", 200, `"result":[]`)
	f("up", "X-Scope-OrgID: a|b", 200, `{"__name__":"up","tenant_id":"a"},"value":[1,"1"]`,
		`{"__name__":"up","tenant_id":"b","x":"y"},"value":[1,"2"]`)
	f("sum by (tenant_id) (up)", "X-Scope-OrgID: a|b", 200, `{"tenant_id":"a"},"value":[1,"1"]`,
		`{"tenant_id":"b"},"value":[1,"2"]`)
	f(`up{tenant_id="b"}`, "X-Scope-OrgID: a|b", 200, `"tenant_id":"b"`, `!"tenant_id":"a"`)
	f(`{tenant_id="mine"}`, "X-Scope-OrgID: a", 200, `{"__name__":"own","tenant_id":"mine"},"value":[1,"7"]`)
	f(`own`, "X-Scope-OrgID: a|b", 200, `{"__name__":"own","tenant_id":"a"}`)
	f("up", "THANOS-TENANT: ../a", 400, `"status":"error"`, `"errorType":"bad_data"`, `not allowed`)
	f("up", "X-Scope-OrgID: a||b", 400, `bad_data`)
	f("up{", "X-Scope-OrgID: a", 400, `bad_data`)

	for path, want := range map[string]string{
		"/api/v1/labels":                      `"data":["__name__","tenant_id","x"]`,
		"/api/v1/label/tenant_id/values":      `"data":["a","b"]`,
		"/api/v1/label/__name__/values":       `"data":["own","up"]`,
		"/prometheus/api/v1/label/x/values":   `"data":["y"]`,
		"/api/v1/series":                      `{"__name__":"up","tenant_id":"b","x":"y"}`,
		"/prometheus/api/v1/status/buildinfo": `"goVersion"`,
	} {
		code, body, _ := get(t, q, path, form("match[]", `{__name__=~".+"}`, "start", "0", "end", "10"), "X-Scope-OrgID: a|b")
		check(t, code, body, 200, want)
	}
	opts := DefaultOptions()
	opts.MultiTenant = false
	code, body, _ := get(t, open(t, opts, e), "/api/v1/query", form("query", "up"), "X-Scope-OrgID: a|b")
	check(t, code, body, 400, "several tenants")
}

func TestPartialAnswers(t *testing.T) {
	data := map[tenant.ID][]sourcetest.Series{
		tenant.Default: {oneSample(1, "__name__", "up"), oneSample(1, "__name__", "up", "n", "2")}}
	a, _ := receiver("a", data)
	b, broken := receiver("b", data)
	q := open(t, DefaultOptions(), a, b)
	broken.Fail = func() error { return errs.E(errs.Unavailable, "cable cut") }
	for after := range 3 { // also in the midst of its series
		broken.FailAfter = after
		code, body, header := get(t, q, "/api/v1/query", form("query", "up", "time", "1"))
		check(t, code, body, 200, `"value":[1,"1"]`, `"n":"2"`,
			`"warnings":["partial answer: receive b did not answer: cable cut"]`)
		if header.Get("Cache-Control") != "no-store" {
			t.Error("a partial answer may be cached")
		}
	}
	for _, path := range []string{"/api/v1/labels", "/api/v1/label/n/values", "/api/v1/series", "/api/v1/query_range"} {
		code, body, header := get(t, q, path, form("match[]", "up", "query", "up", "start", "0", "end", "10", "step", "1"))
		check(t, code, body, 200, `cable cut`)
		if header.Get("Cache-Control") != "no-store" {
			t.Error("a partial answer may be cached:", path)
		}
		code, body, _ = get(t, q, path,
			form("match[]", "up", "query", "up", "start", "0", "end", "10", "step", "1", "partial_response", "false"))
		check(t, code, body, 503, `"status":"error"`, `would be incomplete`, `cable cut`)
	}
	broken.Fail = func() error { return errs.E(errs.Limited, "tenant over its limit of series") }
	code, body, _ := get(t, q, "/api/v1/query", form("query", "up", "time", "1"))
	check(t, code, body, 422, "over its limit")

	broken.Fail = nil
	code, body, header := get(t, q, "/api/v1/query", form("query", "up", "time", "1"))
	check(t, code, body, 200, `"value":[1,"1"]`, "!warnings")
	if header.Get("Cache-Control") != "" {
		t.Error("a whole answer may not be cached")
	}
}

func TestStandIn(t *testing.T) {
	var data []sourcetest.Series
	for i := range 600 {
		data = append(data, oneSample(1, "__name__", "up", "n", fmt.Sprintf("%03d", i)))
	}
	gateway := func(name string) (Endpoint, *sourcetest.Memory) {
		e, m := receiver(name, map[tenant.ID][]sourcetest.Series{tenant.Default: data})
		m.About.Role, m.About.Blocks = "store", whole("bucket")
		return e, m
	}
	one, m1 := gateway("s1")
	two, m2 := gateway("s2")
	other, _ := receiver("r", map[tenant.ID][]sourcetest.Series{})
	q := open(t, DefaultOptions(), one, two, other)
	for _, broken := range []*sourcetest.Memory{m1, m2} {
		for _, after := range []int{0, 1, 300, 600} {
			broken.Fail, broken.FailAfter = func() error { return errs.E(errs.Unavailable, "cable cut") }, after
			code, body, _ := get(t, q, "/api/v1/query", form("query", "count(up)", "time", "1"))
			check(t, code, body, 200, `[1,"600"]`, "!warnings")
		}
		code, body, _ := get(t, q, "/api/v1/label/n/values", form("start", "0", "end", "10", "limit", "2"))
		check(t, code, body, 200, `"data":["000","001"]`, "!partial")
		broken.Fail = nil
	}
	fail := func() error { return errs.E(errs.Unavailable, "cable cut") }
	m1.Fail, m2.Fail, m1.FailAfter, m2.FailAfter = fail, fail, 0, 0
	code, body, _ := get(t, q, "/api/v1/query", form("query", "count(up)", "time", "1"))
	check(t, code, body, 200, `partial answer`)
}

func TestParams(t *testing.T) {
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{tenant.Default: {
		oneSample(1, "__name__", "up", "prometheus", "p", "replica", "0"),
		oneSample(1, "__name__", "up", "prometheus", "p", "replica", "1"),
		oneSample(5, "__name__", "up", "zone", "z"),
	}})
	opts := DefaultOptions()
	opts.ReplicaLabels = []string{"replica"}
	opts.MaxSeries = 3
	q := open(t, opts, e)
	f := func(wantCode int, want []string, pairs ...string) {
		t.Helper()
		code, body, _ := get(t, q, "/api/v1/query", form(append(pairs, "time", "1")...))
		check(t, code, body, wantCode, want...)
	}
	f(200, []string{`[1,"2"]`}, "query", "count(up)")
	f(200, []string{`[1,"3"]`}, "query", "count(up)", "dedup", "false")
	f(200, []string{`[1,"3"]`}, "query", "count(up)", "replicaLabels[]", "zone")
	f(200, []string{`[1,"2"]`}, "query", "count(up)", "replicaLabels[]", "zone", "replicaLabels[]", "replica")
	f(200, []string{`"result":[]`}, "query", "up", "storeMatch[]", `{__address__="x"}`)
	f(200, []string{`[1,"2"]`}, "query", "count(up)", "storeMatch[]", `{__address__="r"}`)
	f(200, []string{`[1,"2"]`}, "query", "count(up)", "max_source_resolution", "auto")
	f(200, []string{`[1,"2"]`}, "query", "count(up)", "max_source_resolution", "5m")
	f(400, []string{"max_source_resolution"}, "query", "up", "max_source_resolution", "x")
	f(400, []string{"dedup"}, "query", "up", "dedup", "maybe")
	f(400, []string{"storeMatch"}, "query", "up", "storeMatch[]", "{")
	f(422, []string{"more than 3 series", "limit on series per query"}, "query", "up + on () group_left vector(1) or up")
	if code, body, _ := get(t, q, "/api/v2/query", nil); code != 404 {
		t.Errorf("unknown path: %d %s", code, body)
	}
}

// TestAutoResolution: a query that does not name its resolution reads data of a fifth of its step where the process is
// set so.
func TestAutoResolution(t *testing.T) {
	opts := DefaultOptions()
	opts.AutoResolution = true
	q := open(t, opts)
	f := func(said string, step, want int64) {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?max_source_resolution="+said, nil)
		p, err := q.parseParams(r, "/query_range")
		if err != nil {
			t.Fatal(err)
		}
		if got := p.resolution(step); got != want {
			t.Errorf("max_source_resolution=%s, steps of %d ms: %d ms, want %d", said, step, got, want)
		}
	}
	f("", 3_600_000, 720_000)
	f("", 0, 0) // an instant query
	f("auto", 3_600_000, 720_000)
	f("5m", 3_600_000, 300_000)
	f("0s", 3_600_000, 0)
}

// TestOtherEndpoints: what a querier has nothing of is a valid empty answer.
func TestOtherEndpoints(t *testing.T) {
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{})
	q := open(t, DefaultOptions(), e)
	for path, want := range map[string]string{
		"/api/v1/rules": `"groups":[]`, "/api/v1/alerts": `"alerts":[]`, "/api/v1/targets": `"activeTargets":[]`, "/api/v1/alertmanagers": `"activeAlertmanagers":[]`,
		"/api/v1/status/flags": `"data":{}`, "/api/v1/status/runtimeinfo": `"startTime"`, "/api/v1/status/config": `"yaml"`, "/api/v1/metadata": `"data":{}`,
		"/api/v1/stores": `"receive":[{"name":"r","lastCheck":`, "/api/v1/format_query": `"data":"up"`, "/api/v1/query_exemplars": `"data":[]`, "/api/v1/features": `success`, "/api/v1/notifications": `success`,
	} {
		code, body, _ := get(t, q, path, form("query", "up", "start", "0", "end", "1"))
		check(t, code, body, 200, want)
	}
	for path, want := range map[string]string{ // never null, which clients that expect a list or a map fail at
		"/api/v1/targets": `"droppedTargetCounts":{}`, "/api/v1/scrape_pools": `"scrapePools":[]`, "/api/v1/notifications": `"data":[]`,
		"/api/v1/status/tsdb/blocks": `"blocks":[]`, "/api/v1/stores": `"labelSets":[]`,
	} {
		code, body, _ := get(t, q, path, nil)
		check(t, code, body, 200, want)
	}
	code, body, _ := get(t, q, "/api/v1/status/tsdb", nil)
	check(t, code, body, 422, "no TSDB", `"errorType":"execution"`)
	code, body, _ = get(t, q, "/api/v1/scrape_pools/config", form("scrapePool", "x"))
	check(t, code, body, 400, "bad_data", "not found")
}

// TestStoresOfTenants: a user of one tenant does not learn of others by the list of stores.
func TestStoresOfTenants(t *testing.T) {
	q := open(t, DefaultOptions())
	set := func(id string) labels.Labels { return labels.FromStrings("tenant_id", id, "receive_replica", "r") }
	q.stop() // else a poll may replace the snapshot
	q.wg.Wait()
	q.snapshot.Store(&snapshot{endpoints: []*endpoint{
		{Endpoint: Endpoint{Name: "r", Known: series.Info{Role: "receive"}},
			info: series.Info{Role: "receive", Labels: []labels.Labels{
				set("acme"), set("rival"), labels.FromStrings("cluster", "of-the-default")}}},
		{Endpoint: Endpoint{Name: "s", Known: series.Info{Role: "store"}}, info: series.Info{Role: "store"},
			err: errors.New("tenant rival is broken")},
	}})
	f := func(g *tenant.Grant, has ...string) {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, "/api/v1/stores", nil)
		r.Header.Set("X-Scope-OrgID", "acme")
		if g != nil {
			r = r.WithContext(tenant.WithGrant(r.Context(), g))
		}
		w := httptest.NewRecorder()
		q.Handler().ServeHTTP(w, r)
		for _, word := range []string{"acme", "rival", "of-the-default", "broken", "operators see why", `"labelSets":[]`} {
			if got := strings.Contains(w.Body.String(), word); got != slices.Contains(has, word) {
				t.Errorf("%+v: %q is there: %v, in %s", g, word, got, w.Body)
			}
		}
	}
	f(nil, "acme", "rival", "of-the-default", "broken", `"labelSets":[]`)
	f(tenant.Exactly("alice", "acme"), "acme", "operators see why", `"labelSets":[]`)
	f(tenant.Exactly("bob", "acme", tenant.Default), "acme", "of-the-default", "operators see why", `"labelSets":[]`)
}

// TestRoutes: every path of the API that is served is a route of its own, with a class.
func TestRoutes(t *testing.T) {
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{})
	q := open(t, DefaultOptions(), e)
	seen := map[string]bool{}
	for _, r := range q.Routes() {
		if seen[r.Pattern] || strings.HasSuffix(r.Pattern, "/") || r.Class != httpx.Tenant && r.Class != httpx.Operator {
			t.Errorf("%s, %s: it covers more than itself, or is there twice", r.Pattern, r.Class)
		}
		seen[r.Pattern] = true
		path := strings.TrimPrefix(strings.Replace(r.Pattern, "{name}", "job", 1), mimirPrefix)
		if path == "/api/v1/notifications/live" { // it lasts
			continue
		}
		w := httptest.NewRecorder()
		q.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code == 404 {
			t.Errorf("the API has no %s: %s", path, w.Body)
		}
	}
}

type rich struct {
	*sourcetest.Memory
	exemplars []exemplar.QueryResult
	metadata  map[string][]metadata.Metadata
}

func (r *rich) Exemplars(
	context.Context,
	tenant.ID,
	int64,
	int64,
	...[]*labels.Matcher,
) ([]exemplar.QueryResult, series.Warnings, error) {
	return r.exemplars, nil, nil
}

func (r *rich) Metadata(
	_ context.Context,
	_ tenant.ID,
	family string,
	_ int,
) (map[string][]metadata.Metadata, series.Warnings, error) {
	if family != "" {
		return map[string][]metadata.Metadata{family: r.metadata[family]}, nil, nil
	}
	return r.metadata, nil, nil
}

func TestExemplarsAndMetadata(t *testing.T) {
	l := labels.FromStrings("__name__", "x")
	ex := func(ts int64) exemplar.Exemplar {
		return exemplar.Exemplar{Labels: labels.FromStrings("trace", fmt.Sprint(ts)), Ts: ts, Value: 1, HasTs: true}
	}
	var endpoints []Endpoint
	for i, times := range [][]int64{{1, 2}, {2, 3}} {
		e, m := receiver(fmt.Sprint("r", i), nil)
		r := &rich{Memory: m, metadata: map[string][]metadata.Metadata{
			"x": {{Type: "counter", Help: "same"}}, "y": {{Type: "gauge", Help: fmt.Sprint("from ", i)}},
		}}
		for _, ts := range times {
			r.exemplars = append(r.exemplars, exemplar.QueryResult{SeriesLabels: l, Exemplars: []exemplar.Exemplar{ex(ts)}})
		}
		e.Source = r
		endpoints = append(endpoints, e)
	}
	plain, _ := receiver("plain", nil)
	q := open(t, DefaultOptions(), append(endpoints, plain)...)
	found, _, err := q.Exemplars(context.Background(), "t", 0, 10)
	if err != nil || len(found) != 1 ||
		!slices.EqualFunc(found[0].Exemplars, []exemplar.Exemplar{ex(1), ex(2), ex(3)},
			func(a, b exemplar.Exemplar) bool { return a.Equals(b) }) {
		t.Errorf("exemplars %v, error %v", found, err)
	}
	code, body, _ := get(t, q, "/api/v1/query_exemplars", form("query", "x", "start", "0", "end", "10"),
		"X-Scope-OrgID: a|b")
	check(t, code, body, 200, `"seriesLabels":{"__name__":"x","tenant_id":"a"}`,
		`"seriesLabels":{"__name__":"x","tenant_id":"b"}`)

	for limit, want := range map[string]string{"0": `"data":{}`, "1": `"data":{"x":[`, "-1": `"y":[`} { // as in Prometheus
		code, body, _ = get(t, q, "/api/v1/metadata", form("limit", limit))
		check(t, code, body, 200, want)
	}

	// HA pairs: their exemplars are one series', unless the query says no.
	opts := DefaultOptions()
	opts.ReplicaLabels = []string{"replica"}
	pair := open(t, opts, endpoints...)
	for i, e := range endpoints {
		r := e.Source.(*rich)
		for j := range r.exemplars {
			r.exemplars[j].SeriesLabels = labels.FromStrings("__name__", "x", "replica", fmt.Sprint(i))
		}
	}
	code, body, _ = get(t, pair, "/api/v1/query_exemplars", form("query", "x", "start", "0", "end", "10"))
	check(t, code, body, 200, `"data":[{"seriesLabels":{"__name__":"x"},`)
	if n := strings.Count(body, `"trace"`); n != 3 {
		t.Errorf("%d exemplars of the pair, want 3: %s", n, body)
	}
	code, body, _ = get(t, pair, "/api/v1/query_exemplars",
		form("query", "x", "start", "0", "end", "10", "dedup", "false"))
	check(t, code, body, 200, `{"__name__":"x","replica":"1"}`)

	f := func(want string, pairs ...string) {
		t.Helper()
		code, body, _ := get(t, q, "/api/v1/metadata", form(pairs...))
		check(t, code, body, 200, want)
	}
	f(`"x":[{"type":"counter","unit":"","help":"same"}]`)
	f(`"data":{"x":[{"type":"counter","unit":"","help":"same"}]}`, "limit", "1")
	f(`"data":{"x":[{"type":"counter","unit":"","help":"same"}]}`, "metric", "x")
	f(`from 0`, "limit_per_metric", "1")
	code, body, _ = get(t, q, "/api/v1/metadata", form("limit", "many"))
	check(t, code, body, 400, "bad_data")
}
