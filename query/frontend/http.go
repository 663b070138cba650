package frontend

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/util/httputil"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/promapi"
	"github.com/hearth-metrics/hearth/internal/series"
)

// Frontend answers range queries in pieces. It is safe for concurrent use.
type Frontend struct {
	log     *slog.Logger
	opts    Options
	next    http.Handler
	parser  expr.Parser
	owner   *memory.Owner
	changes *changes
	flights flights
	m       *metrics
}

// New makes a Frontend over next, which evaluates. Requests get to next with their form parsed, and no body. Its
// metrics begin with hearth_query_frontend_ and thanos_.
func New(log *slog.Logger, reg prometheus.Registerer, next http.Handler, opts Options) (*Frontend, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	opts.MaxExpressionBytes = cmp.Or(opts.MaxExpressionBytes, expr.DefaultMaxBytes)
	f := &Frontend{log: log, opts: opts, next: next, parser: expr.New(opts.MaxExpressionBytes),
		owner: opts.Memory.Owner("query-frontend", 0), m: newMetrics(reg, opts.Cache)}
	if opts.Cache != nil {
		f.changes = newChanges(opts.Changes, opts.Now)
	}
	return f, nil
}

// Wrap puts the frontend before the routes of a query API: range queries go through it, and all others past it.
func (f *Frontend) Wrap(routes []httpx.Route) []httpx.Route {
	out := make([]httpx.Route, len(routes))
	for i, r := range routes {
		if out[i] = r; strings.HasSuffix(r.Pattern, "/query_range") {
			out[i].Handler = f
		}
	}
	return out
}

// ServeHTTP implements http.Handler for range queries.
func (f *Frontend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, ok, err := f.read(w, r)
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	if !ok {
		f.next.ServeHTTP(w, r)
		return
	}
	if most := f.opts.MaxLength.Milliseconds(); most > 0 && q.to-q.from > most {
		promapi.WriteError(w, errs.E(errs.Invalid, "the query time range exceeds the limit: %s, and may be %s (limit "+
			"--query-range.max-query-length)", time.Duration(q.to-q.from)*time.Millisecond, f.opts.MaxLength))
		return
	}
	interval := widened(f.opts.SplitInterval.Milliseconds(), q.step)
	pieces := cut(q.from, q.to, q.step, interval)
	if len(pieces) == 1 && !f.keeps(q, interval) {
		f.next.ServeHTTP(w, r)
		return
	}
	httpx.NoteQuery(r.Context(), q.text)
	f.m.split(len(pieces))
	lease := f.owner.Open(q.tenants[0])
	defer lease.Close()
	e := &evaluation{f: f, r: r, q: q, lease: lease}
	httputil.SetCORS(w, promapi.AnyOrigin, r)
	httputil.CompressionHandler{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		e.answer(w, pieces, interval)
	})}.ServeHTTP(w, r)
}

// keeps reports whether any step of q may come from the cache or go there.
func (f *Frontend) keeps(q request, interval int64) bool {
	if f.opts.Cache == nil || interval == 0 || !q.read && !q.write {
		return false
	}
	settled := f.opts.Now().Add(-clockSlack).UnixMilli() - series.DelayedAfter.Milliseconds()
	_, ok := until(q.reach, piece{q.from, q.to}, q.step, settled)
	return ok
}

// read reads a request. ok is false for one that goes past the frontend. The error is of a form that cannot be read.
func (f *Frontend) read(w http.ResponseWriter, r *http.Request) (q request, ok bool, err error) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		return q, false, nil
	}
	promapi.BoundForm(w, r, f.opts.MaxExpressionBytes)
	if err := promapi.ParseForm(r); err != nil {
		return q, false, err
	}
	tenants, err := f.opts.Tenant.Read(r)
	if err != nil {
		return q, false, nil // who evaluates says the same
	}
	for _, id := range tenants { // an answer from the cache alone is noted nowhere else
		httpx.NoteTenant(r.Context(), string(id))
	}
	q, ok = parse(r, tenants, f.parser)
	return q, ok, nil
}

// answer evaluates all pieces, a few at a time, and writes the answer. If one fails its answer is that of the
// request.
func (e *evaluation) answer(w http.ResponseWriter, pieces []piece, interval int64) {
	ctx, cancel := context.WithCancel(e.r.Context())
	defer cancel()
	results := make([]result, len(pieces))
	places := make(chan struct{}, e.f.opts.Parallel)
	var wg sync.WaitGroup
	for i, p := range pieces {
		wg.Go(func() {
			select {
			case places <- struct{}{}:
				defer func() { <-places }()
			case <-ctx.Done():
				results[i].err = errs.Wrap(errs.Unavailable, context.Cause(ctx))
				return
			}
			if results[i] = e.piece(ctx, p, interval); results[i].failed() {
				cancel()
			}
		})
	}
	wg.Wait()
	all := make([]matrix, len(results))
	var warnings []string
	for i := range results {
		all[i], warnings = results[i].matrix, union(warnings, results[i].warnings)
	}
	if failed := firstFailure(results, e.r.Context().Err() != nil); failed != nil {
		failed.write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if len(warnings) > 0 {
		w.Header().Set("Cache-Control", "no-store")
	}
	out := jsoniter.NewStream(jsoniter.ConfigCompatibleWithStandardLibrary, w, 1<<17)
	answer{join(all), warnings}.write(out)
	_ = out.Flush() // an error means that the client is gone
}

// firstFailure is the failure to tell, nil if there is none: the earliest one that is not an effect of another one.
func firstFailure(results []result, left bool) (failed *result) {
	for i := range results {
		r := &results[i]
		switch {
		case !r.failed():
		case r.reply != nil, left, !errors.Is(r.err, context.Canceled):
			return r
		case failed == nil:
			failed = r
		}
	}
	return failed
}

// write answers with a failure.
func (r *result) write(w http.ResponseWriter) {
	if r.reply == nil {
		promapi.WriteError(w, r.err)
		return
	}
	for _, name := range []string{"Content-Type", "Cache-Control", "Retry-After"} {
		if values := r.reply.header.Values(name); len(values) > 0 {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(r.reply.status)
	_, _ = w.Write(r.reply.body.Bytes()) // an error means that the client is gone
}
