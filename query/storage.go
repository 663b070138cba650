package query

import (
	"context"
	"errors"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var _ storage.SampleAndChunkQueryable = (*Querier)(nil)

// Querier implements storage.Queryable. Its selections are over the tenants of their contexts (tenant.WithSet), or over
// the default tenant. mint and maxt are inclusive Unix ms.
func (q *Querier) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{q: q, mint: mint, maxt: maxt, whole: true}, nil
}

// ChunkQuerier implements storage.ChunkQueryable. It selects as Querier does, and encodes the samples again, as chunks
// that do not overlap.
func (q *Querier) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return chunkQuerier{&querier{q: q, mint: mint, maxt: maxt}}, nil
}

func (q *Querier) scope(ctx context.Context) scope {
	ids := tenant.SetFrom(ctx)
	if len(ids) == 0 {
		ids = []tenant.ID{tenant.Default}
	}
	return scopeOf(ids, q.opts.TenantLabel)
}

type querier struct {
	q          *Querier
	mint, maxt int64
	whole      bool // its reader holds all samples at once, so that they must be counted

	mu      sync.Mutex // guards closers
	closers []func() error
}

func (q *querier) Select(ctx context.Context, _ bool, hints *storage.SelectHints,
	ms ...*labels.Matcher) storage.SeriesSet {
	if len(ms) == 0 { // a remote read may have no matchers; in Prometheus it then selects nothing
		return storage.EmptySeriesSet()
	}
	p := q.q.paramsFrom(ctx)
	r := q.request(p, hints)
	stop := series.NewStopFlag(ctx)
	reading := &series.Reading{
		Counter: expr.OfCounter(r.Hints.Func), MinTime: r.MinTime, MaxTime: r.MaxTime,
		Resolution: r.MaxResolution, Stop: stop,
	}
	if hints != nil && hints.DisableTrimming {
		reading.MinTime, reading.MaxTime = q.mint, q.maxt
	}
	var vague string
	selectors := selectorsFrom(ctx)
	if r.MaxResolution >= series.FiveMinutes {
		vague = selectors.apply(reading, ms)
		r.Aggregates = reading.Pick.Aggregates()
	}
	if r.Hints.Range == 0 { // the engine looks back further for the whole query, also for selectors of raw data
		reading.Lookback = selectors.rawLookback()
	}
	scope, own := q.q.scope(ctx).narrow(ms)
	r.Matchers = own
	set := q.q.selectTenants(ctx, r, scope)
	q.mu.Lock()
	q.closers = append(q.closers, set.Close, stop.Close)
	q.mu.Unlock()
	if r.MaxResolution >= series.FiveMinutes {
		set = &coarseSet{Set: set, reading: reading, vague: vague, length: r.Hints.Range}
	}
	out := series.Storage(set, reading)
	if len(p.replicaLabels) > 0 {
		out = series.Dedup(set, series.DedupOptions{
			ReplicaLabels: p.replicaLabels, Budget: q.q.opts.SortBudget, Reading: reading,
		})
	}
	if p.answer != nil && q.whole {
		out = &countedSet{SeriesSet: out, p: p}
	}
	return out
}

// request is what a selection asks of sources, without the tenant and the matchers.
func (q *querier) request(p *params, hints *storage.SelectHints) *series.Request {
	r := &series.Request{MinTime: q.mint, MaxTime: q.maxt}
	if hints == nil {
		r.MaxResolution = p.resolution(0)
		return r
	}
	r.MinTime, r.MaxTime = hints.Start, hints.End
	r.SkipChunks = hints.Func == seriesFunc
	r.MaxResolution = p.resolution(hints.Step)
	r.Shard = series.Shard{Index: hints.ShardIndex, Count: hints.ShardCount}
	r.Hints = series.Hints{Step: hints.Step, Range: hints.Range, Func: hints.Func, Grouping: hints.Grouping, By: hints.By}
	if len(p.replicaLabels) == 0 {
		r.Limit = hints.Limit // with dedup, the sources would count more series than the answer has
	}
	return r
}

// selectTenants are the series of all tenants in s, with the tenant label if s has one.
func (q *Querier) selectTenants(ctx context.Context, r *series.Request, s scope) series.Set {
	sets := make([]series.Set, 0, len(s.ids))
	for _, id := range s.ids {
		of := *r
		of.Tenant = id
		set := q.Select(ctx, &of)
		if s.label != "" {
			set = series.Relabel(set, labels.FromStrings(s.label, string(id)), nil, q.opts.SortBudget)
		}
		sets = append(sets, set)
	}
	return series.Merge(sets...)
}

func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints,
	ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	scope, r := q.labelRequest(ctx, hints, ms)
	names, warnings, err := q.eachTenant(ctx, scope, r, func(r *series.Request) ([]string, series.Warnings, error) {
		return q.q.LabelNames(ctx, r)
	})
	if len(names) > 0 && scope.label != "" {
		names = series.SortedUnique(append(names, scope.label), r.Limit)
	}
	return names, warnings, err
}

func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints,
	ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	scope, r := q.labelRequest(ctx, hints, ms)
	ask := func(r *series.Request) ([]string, series.Warnings, error) { return q.q.LabelValues(ctx, name, r) }
	if name == scope.label && name != "" {
		ask = func(r *series.Request) ([]string, series.Warnings, error) {
			one := *r
			one.Limit = 1
			names, warnings, err := q.q.LabelNames(ctx, &one)
			if len(names) > 0 {
				names = []string{string(r.Tenant)}
			}
			return names, warnings, err
		}
	}
	return q.eachTenant(ctx, scope, r, ask)
}

func (q *querier) labelRequest(ctx context.Context, hints *storage.LabelHints,
	ms []*labels.Matcher) (scope, *series.Request) {
	scope, own := q.q.scope(ctx).narrow(ms)
	r := &series.Request{MinTime: q.mint, MaxTime: q.maxt, Matchers: own}
	if hints != nil {
		r.Limit = hints.Limit
	}
	return scope, r
}

// eachTenant calls ask for each tenant of s and unites the names or values.
func (q *querier) eachTenant(ctx context.Context, s scope, r *series.Request,
	ask func(*series.Request) ([]string, series.Warnings, error)) ([]string, annotations.Annotations, error) {
	var all []string
	var notes annotations.Annotations
	for _, id := range s.ids {
		of := *r
		of.Tenant = id
		found, warnings, err := ask(&of)
		if err != nil {
			q.q.paramsFrom(ctx).fail(err)
			return nil, notes, err
		}
		all = append(all, found...)
		for _, w := range warnings {
			notes.Add(errors.New(w))
		}
	}
	return series.SortedUnique(all, r.Limit), notes, ctx.Err()
}

// Close frees all that was selected.
func (q *querier) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := make([]error, len(q.closers))
	for i, end := range q.closers {
		all[i] = end()
	}
	q.closers = nil
	if err := errors.Join(all...); err != nil {
		return errs.E(errs.Internal, "close selected series: %w", err)
	}
	return nil
}

type chunkQuerier struct{ *querier }

func (q chunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints,
	ms ...*labels.Matcher) storage.ChunkSeriesSet {
	set := q.querier.Select(ctx, sorted, hints, ms...)
	if hints != nil && hints.Func == seriesFunc {
		return labelsOnly{set, chunks.Meta{Chunk: chunkenc.NewXORChunk(), MinTime: q.mint, MaxTime: q.maxt}}
	}
	return storage.NewSeriesSetToChunkSet(set)
}

// seriesFunc as the function in the hints asks for labels alone. A Prometheus that reads from Hearth sends it for
// /api/v1/series.
const seriesFunc = "series"

// labelsOnly are the series of a selection without samples. Each has one empty chunk, since a streamed remote read
// leaves out series without a chunk.
type labelsOnly struct {
	storage.SeriesSet
	none chunks.Meta
}

// At implements storage.ChunkSeriesSet.
func (s labelsOnly) At() storage.ChunkSeries {
	return &storage.ChunkSeriesEntry{
		Lset: s.SeriesSet.At().Labels(),
		ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator {
			return storage.NewListChunkSeriesIterator(s.none)
		},
	}
}
