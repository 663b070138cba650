package query

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/promapi"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Prefixes below which Handler serves the API: Prometheus's and Thanos's, and Mimir's.
const (
	apiPrefix   = "/api/v1"
	mimirPrefix = "/prometheus"
)

// Routes are the query API on the paths of Prometheus and Thanos, and of Mimir.
func (q *Querier) Routes() []httpx.Route { return RoutesTo(q.Handler()) }

// RoutesTo are the routes of a querier, answered by h. Each path is a route of its own with its class. A route that
// covered other paths would also give them its class.
func RoutesTo(h http.Handler) []httpx.Route {
	var routes []httpx.Route
	for _, prefix := range []string{apiPrefix, mimirPrefix + apiPrefix} {
		for class, paths := range apiPaths {
			for _, path := range paths {
				routes = append(routes, httpx.Route{Pattern: prefix + path, Class: class, Handler: h})
			}
		}
	}
	return routes
}

// apiPaths are the paths of the API, below its prefix. Paths that show the process, and not series, are for operators.
// The version is for everybody, since clients learn from it what they can ask.
var apiPaths = map[httpx.Class][]string{
	httpx.Tenant: {
		"/query", "/query_range", "/query_exemplars", "/format_query", "/parse_query", "/labels", "/label/{name}/values",
		"/series", "/metadata", "/stores", "/read", "/alerts", "/rules", "/alertmanagers", "/scrape_pools",
		"/scrape_pools/config", "/targets", "/targets/metadata", "/targets/relabel_steps", "/notifications",
		"/notifications/live", "/features", "/openapi.yaml", "/status/buildinfo", "/search/metric_names",
		"/search/label_names", "/search/label_values", "/status/arrivals",
	},
	httpx.Operator: {
		"/status/config", "/status/flags", "/status/runtimeinfo", "/status/tsdb", "/status/tsdb/blocks",
		"/status/walreplay", "/status/self_metrics", "/admin/tsdb/delete_series", "/admin/tsdb/clean_tombstones",
		"/admin/tsdb/snapshot",
	},
}

// Handler serves the query API, to be mounted at /api/v1/ and /prometheus/api/v1/. Paths it does not know are 404.
func (q *Querier) Handler() http.Handler {
	q.api.once.Do(func() { q.api.handler = q.newHandler() })
	return q.api.handler
}

// api is the handler. It is made at its first use.
type api struct {
	once    sync.Once
	handler http.Handler
}

func (q *Querier) newHandler() http.Handler {
	rest := q.prometheusAPI()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutPrefix(strings.TrimPrefix(r.URL.Path, mimirPrefix), apiPrefix)
		if !ok || path == "" {
			http.NotFound(w, r)
			return
		}
		next := rest
		switch {
		case r.Method == http.MethodGet && path == "/metadata":
			next = http.HandlerFunc(q.handleMetadata)
		case (r.Method == http.MethodGet || r.Method == http.MethodPost) && path == "/query_exemplars":
			next = http.HandlerFunc(q.handleExemplars)
		case r.Method == http.MethodGet && path == "/stores":
			next = http.HandlerFunc(q.handleStores)
		case r.Method == http.MethodGet && path == "/rules":
			next = q.rulesHandler(rulestate.HandleRules)
		case r.Method == http.MethodGet && path == "/alerts":
			next = q.rulesHandler(rulestate.HandleAlerts)
		case r.Method == http.MethodGet && path == "/status/buildinfo" && q.opts.Features != nil:
			next = http.HandlerFunc(q.handleBuildInfo)
		case r.Method == http.MethodGet && path == strings.TrimPrefix(promapi.ArrivalsPath, apiPrefix):
			next = http.HandlerFunc(q.handleArrivals)
		case r.Method == http.MethodGet && path == "/status/tsdb":
			next = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { promapi.WriteError(w, errNoTSDB) })
		}
		q.serve(next, w, r, path)
	})
}

// handleArrivals answers what is known of the samples of one tenant since a time.
func (q *Querier) handleArrivals(w http.ResponseWriter, r *http.Request) {
	ids := tenant.SetFrom(r.Context())
	since, err := strconv.ParseInt(r.FormValue("since"), 10, 64)
	if err != nil || len(ids) != 1 {
		promapi.WriteError(w, errs.E(errs.Invalid, "since must be a time in ms, and one tenant must be named"))
		return
	}
	found, err := q.Arrivals(r.Context(), ids[0], since)
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	httpx.WriteData(w, found)
}

// handleBuildInfo answers as Prometheus does, and adds Options.Features.
func (q *Querier) handleBuildInfo(w http.ResponseWriter, _ *http.Request) {
	s := httpx.Status{Version: q.opts.Version, Revision: q.opts.Revision, Features: q.opts.Features}
	httpx.WriteData(w, s.Build())
}

// rulesHandler answers for the rules of the tenants of a request.
func (q *Querier) rulesHandler(answer func(http.ResponseWriter, *http.Request, rulestate.View)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, rulestate.View{Source: q, Tenants: tenant.SetFrom(r.Context()), TenantLabel: q.opts.TenantLabel})
	})
}

// serve answers one request to path, with its tenants and parameters in the context.
func (q *Querier) serve(next http.Handler, w http.ResponseWriter, r *http.Request, path string) {
	begin := time.Now()
	out := &answerWriter{ResponseWriter: w, status: http.StatusOK, reads: path == readPath}
	if ctx, done, err := q.admit(out, r, path); err != nil {
		promapi.WriteError(out, err)
	} else {
		defer done()
		r2 := r.WithContext(ctx)
		u := *r.URL
		u.Path, u.RawPath = path, strings.TrimPrefix(strings.TrimPrefix(u.RawPath, mimirPrefix), apiPrefix)
		r2.URL = &u
		next.ServeHTTP(out, r2)
	}
	q.m.requests.WithLabelValues(handlerOf(path), strconv.Itoa(out.status/100)+"xx").Observe(time.Since(begin).Seconds())
}

// readPath is that of remote read.
const readPath = "/read"

// admit finds the tenants and parameters of a request, and waits until it may run. The caller calls done when the
// request is answered: it gives back all that the request holds.
func (q *Querier) admit(out *answerWriter, r *http.Request, path string) (_ context.Context, done func(), err error) {
	// These paths show no tenant's series, so an operator needs no tenants for them.
	if slices.Contains(apiPaths[httpx.Operator], path) {
		return r.Context(), func() {}, nil
	}
	ids, err := q.tenants(r)
	if err != nil {
		return nil, nil, err
	}
	if path == readPath {
		r.PostForm = url.Values{} // its body is no form, whatever its header says
	} else {
		promapi.BoundForm(out, r, cmp.Or(q.opts.MaxExpressionBytes, expr.DefaultMaxBytes))
	}
	if out.p, err = q.parseParams(r, path); err != nil {
		return nil, nil, err
	}
	ctx := withParams(tenant.WithSet(r.Context(), ids), out.p)
	switch name := handlerOf(path); {
	case path == readPath:
		// The body is read before the gate: a slow sender must not keep a place in it.
		if err := boundRead(out, r); err != nil {
			return nil, nil, err
		}
		// The wait is bounded, since clients that read their answers slowly keep their places for long.
		waiting, cancel := context.WithTimeout(ctx, q.opts.Timeout)
		leave, err := q.reads.Enter(waiting, ids[0])
		cancel()
		if err != nil {
			return nil, nil, err
		}
		out.p.answer = q.answers.Open(ids[0])
		out.p.request = out.p.answer
		return ctx, func() { out.p.answer.Close(); leave() }, nil
	case name == "query", name == "query_range", path == "/status/buildinfo": // the engine has a gate of its own
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, q.opts.Timeout)
	leave, err := q.lookups.Enter(ctx, ids[0])
	if err != nil {
		cancel()
		return nil, nil, err
	}
	out.p.request = q.selects.Open(ids[0])
	return ctx, func() { out.p.request.Close(); leave(); cancel() }, nil
}

// tenants are the tenants that a request names. It is an error if it names more than it may.
func (q *Querier) tenants(r *http.Request) ([]tenant.ID, error) {
	resolver := q.opts.Tenant
	resolver.MaxTenants = q.opts.MaxTenants
	ids, err := resolver.Read(r)
	for _, id := range ids {
		httpx.NoteTenant(r.Context(), string(id))
	}
	if err == nil && len(ids) > 1 && !q.opts.MultiTenant {
		err = errs.E(errs.Invalid, "queries over several tenants are not allowed here")
	}
	return ids, err
}

// handlerOf is path as a metric label. It has few values, so that clients cannot make new metric series with invented
// paths.
func handlerOf(path string) string {
	name := strings.Trim(path, "/")
	switch {
	case slices.Contains([]string{"query", "query_range", "query_exemplars", "series", "labels", "metadata", "stores",
		"read"}, name):
		return name
	case strings.HasPrefix(name, "label/"):
		return "label_values"
	}
	return "other"
}

// answerWriter forbids the caching of answers that failed or may be incomplete. It also corrects the status and the
// type of an error, and says when another try may succeed.
type answerWriter struct {
	http.ResponseWriter
	p      *params
	status int
	wrote  bool
	reads  bool // it answers a remote read; the library does not know the kinds of its errors
	typed  bool // the type of the error has been corrected
}

func (w *answerWriter) WriteHeader(status int) {
	if !w.wrote {
		if w.p != nil {
			status = w.explain(status)
		}
		w.wrote, w.status = true, status
		if status >= http.StatusBadRequest || w.p != nil && w.p.incomplete.Load() {
			w.Header().Set("Cache-Control", "no-store")
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// explain is the status that belongs to why the request failed, where the library says only that it failed.
func (w *answerWriter) explain(status int) int {
	failure := w.p.failure.Load()
	if failure == nil || status < http.StatusInternalServerError {
		return status
	}
	if w.reads {
		if known, ok := promapi.Status(*failure); ok {
			status = known
		}
	}
	if status == http.StatusServiceUnavailable {
		promapi.SetRetryAfter(w, *failure)
	}
	return status
}

func (w *answerWriter) Write(b []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	if w.status < http.StatusBadRequest || w.typed {
		return w.ResponseWriter.Write(b)
	}
	w.typed = true
	if _, err := w.ResponseWriter.Write(w.retype(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// retype corrects the type of an error in b, the beginning of its body. The library says "execution" for every query
// that failed, also where memory or a source was missing. Clients take that for an error that never goes away.
func (w *answerWriter) retype(b []byte) []byte {
	if w.p == nil || w.p.failure.Load() == nil {
		return b
	}
	typ := errorType(*w.p.failure.Load())
	for _, wrong := range []string{promapi.Execution, promapi.Internal} {
		old := `"errorType":"` + wrong + `"`
		if at := bytes.Index(b[:min(len(b), 64)], []byte(old)); at >= 0 {
			return slices.Concat(b[:at], []byte(`"errorType":"`+typ+`"`), b[at+len(old):])
		}
	}
	return b
}

// Flush implements http.Flusher, which streamed remote read asks for.
func (w *answerWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap gives http.ResponseController the writer below.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// maxReplicaLabels is how many labels a request may name for dedup. Each is looked up in every series.
const maxReplicaLabels = 100

// parseParams reads the parameters that Thanos's API has beyond Prometheus's.
func (q *Querier) parseParams(r *http.Request, path string) (*params, error) {
	if err := promapi.ParseForm(r); err != nil {
		return nil, err
	}
	if text := r.FormValue("query"); text != "" {
		httpx.NoteQuery(r.Context(), text)
	}
	p := q.defaultParams()
	if path == readPath {
		p.partial = false // the answer of a remote read cannot carry a warning
		// Its reader would take the values of windows for samples.
		p.maxResolution, p.autoResolve = 0, false
	}
	if names := r.Form["replicaLabels[]"]; len(names) > maxReplicaLabels {
		return nil, errs.E(errs.TooLarge, "replicaLabels[] has %d names, and may have %d", len(names), maxReplicaLabels)
	} else if len(names) > 0 {
		p.replicaLabels = names
	}
	dedup, err := promapi.Bool(r, "dedup", true)
	if err != nil {
		return nil, err
	}
	if !dedup {
		p.replicaLabels = nil
	}
	if p.partial, err = promapi.Bool(r, "partial_response", p.partial); err != nil {
		return nil, err
	}
	if text := r.FormValue("max_source_resolution"); text != "" {
		coarsest, auto, err := promapi.Resolution(text)
		if err != nil {
			return nil, err
		}
		if p.autoResolve = auto; !auto {
			p.maxResolution = coarsest
		}
	}
	if p.storeMatch, err = q.parser.ParseMetricSelectors(r.Form["storeMatch[]"]); err != nil {
		kind := errs.KindOf(err)
		if kind == errs.Internal { // an error of the library has no kind
			kind = errs.Invalid
		}
		return nil, errs.E(kind, "storeMatch[]: %w", err)
	}
	return p, nil
}

// storeStatus is an endpoint in the answer of /stores, as Thanos shows it.
type storeStatus struct {
	Name      string          `json:"name"`
	LastCheck time.Time       `json:"lastCheck"`
	LastError *string         `json:"lastError"`
	LabelSets []labels.Labels `json:"labelSets"`
	MinTime   int64           `json:"minTime"`
	MaxTime   int64           `json:"maxTime"`
}

func (q *Querier) handleStores(w http.ResponseWriter, r *http.Request) {
	grant := tenant.GrantFrom(r.Context())
	byRole := map[string][]storeStatus{}
	for _, m := range q.snapshot.Load().endpoints {
		s := storeStatus{
			Name: m.Name, LastCheck: m.checked, LabelSets: q.visible(m.info.Labels, grant),
			MinTime: m.info.MinTime, MaxTime: m.info.MaxTime,
		}
		if m.err != nil {
			text := "no answer; operators see why"
			if grant.Operator() {
				text = m.err.Error()
			}
			s.LastError = &text
		}
		byRole[m.role()] = append(byRole[m.role()], s)
	}
	httpx.WriteData(w, byRole)
}

// visible are the label sets that a user may see: those of streams of the user's tenants. A stream without a tenant
// label is the default tenant's.
func (q *Querier) visible(sets []labels.Labels, g *tenant.Grant) []labels.Labels {
	seen := []labels.Labels{}
	for _, set := range sets {
		id := tenant.ID(cmp.Or(set.Get(q.opts.TenantLabel), string(cmp.Or(q.opts.Tenant.Default, tenant.Default))))
		if g.Sees(id) {
			seen = append(seen, set)
		}
	}
	return seen
}

func (q *Querier) handleMetadata(w http.ResponseWriter, r *http.Request) {
	limit, err := promapi.Int(r, "limit")
	perFamily := 0
	if err == nil {
		perFamily, err = promapi.Int(r, "limit_per_metric")
	}
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	found, missing, err := q.metadata(r.Context(), r.FormValue("metric"), limit, perFamily)
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	if limit == 0 { // as in Prometheus: here 0 means no families, not all
		clear(found)
	}
	httpx.WriteData(w, found, missing...)
}

// handleExemplars answers as Prometheus does, and adds warnings about what may be missing. Prometheus's own handler
// cannot give warnings.
func (q *Querier) handleExemplars(w http.ResponseWriter, r *http.Request) {
	start, end, selectors, err := q.parseExemplars(r)
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	if len(selectors) == 0 {
		w.WriteHeader(http.StatusNoContent) // as Prometheus
		return
	}
	found, warnings, err := q.exemplars(r.Context(), start, end, selectors...)
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	codec := v1.JSONCodec{} // exemplars have a form of their own
	body, err := codec.Encode(&v1.Response{Status: "success", Data: found, Warnings: warnings})
	if err != nil {
		promapi.WriteError(w, errs.E(errs.Internal, "exemplars as JSON: %w", err))
		return
	}
	w.Header().Set("Content-Type", codec.ContentType().String())
	_, _ = w.Write(body) // an error means that the client is gone
}

// parseExemplars reads a request for exemplars: the times in Unix ms, both inclusive, and the selectors of the series.
func (q *Querier) parseExemplars(r *http.Request) (start, end int64, selectors [][]*labels.Matcher, err error) {
	if start, err = promapi.Time(r, "start", math.MinInt64); err != nil {
		return 0, 0, nil, err
	}
	if end, err = promapi.Time(r, "end", math.MaxInt64); err != nil {
		return 0, 0, nil, err
	}
	if end < start {
		return 0, 0, nil, errs.E(errs.Invalid, "end timestamp must not be before start timestamp")
	}
	selectors, err = expr.SelectorsOf(q.parser, r.FormValue("query"))
	return start, end, selectors, err
}
