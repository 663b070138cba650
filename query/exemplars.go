package query

import (
	"context"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var _ series.ExemplarSource = (*Querier)(nil)

// Exemplars implements series.ExemplarSource.
func (q *Querier) Exemplars(ctx context.Context, id tenant.ID, mint, maxt int64,
	ms ...[]*labels.Matcher) ([]exemplar.QueryResult, series.Warnings, error) {
	var mu sync.Mutex // guards all
	var all []exemplar.QueryResult
	s, err := q.newSelection(ctx, &series.Request{Tenant: id, MinTime: mint, MaxTime: maxt}, true)
	if err != nil {
		return nil, nil, err
	}
	warnings, err := q.askAll(ctx, s, func(ctx context.Context, a *asking) (series.Warnings, error) {
		src, ok := a.at.Source.(series.ExemplarSource)
		if !ok { // it has no exemplars
			return nil, nil
		}
		mine := make([][]*labels.Matcher, len(ms))
		for i := range ms {
			mine[i] = slices.Clone(ms[i]) // as in asking.request
		}
		found, warnings, err := src.Exemplars(ctx, id, mint, maxt, mine...)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, found...)
		return warnings, err
	})
	return uniteExemplars(all), warnings, err
}

// uniteExemplars makes one result of all results for one series. Results are in the order of their labels, exemplars in
// the order of time, and equal exemplars come once.
func uniteExemplars(all []exemplar.QueryResult) []exemplar.QueryResult {
	slices.SortStableFunc(all, func(a, b exemplar.QueryResult) int {
		return labels.Compare(a.SeriesLabels, b.SeriesLabels)
	})
	out := []exemplar.QueryResult{}
	for _, r := range all {
		if n := len(out); n > 0 && labels.Equal(out[n-1].SeriesLabels, r.SeriesLabels) {
			out[n-1].Exemplars = slices.Concat(out[n-1].Exemplars, r.Exemplars)
			continue
		}
		out = append(out, r)
	}
	for i := range out {
		slices.SortStableFunc(out[i].Exemplars, exemplar.Compare)
		out[i].Exemplars = slices.CompactFunc(out[i].Exemplars, func(a, b exemplar.Exemplar) bool { return a.Equals(b) })
	}
	return out
}

// exemplars are the exemplars of the tenants of ctx from start to end (ms, inclusive). Where the query asks for dedup,
// an HA pair is one series.
func (q *Querier) exemplars(ctx context.Context, start, end int64, ms ...[]*labels.Matcher) ([]exemplar.QueryResult,
	series.Warnings, error) {
	whole, replicaLabels := q.scope(ctx), q.paramsFrom(ctx).replicaLabels
	var all []exemplar.QueryResult
	var warnings series.Warnings
	for _, id := range whole.ids {
		one := scope{[]tenant.ID{id}, whole.label}
		var own [][]*labels.Matcher
		for _, m := range ms {
			if left, rest := one.narrow(m); len(left.ids) > 0 {
				own = append(own, rest)
			}
		}
		if len(own) == 0 {
			continue
		}
		found, w, err := q.Exemplars(ctx, id, start, end, own...)
		if err != nil {
			return nil, nil, err
		}
		warnings = append(warnings, w...)
		b := labels.NewBuilder(labels.EmptyLabels())
		for i := range found {
			b.Reset(found[i].SeriesLabels)
			b.Del(replicaLabels...)
			if whole.label != "" {
				b.Set(whole.label, string(id))
			}
			found[i].SeriesLabels = b.Labels()
		}
		all = append(all, found...)
	}
	slices.Sort(warnings)
	return uniteExemplars(all), slices.Compact(warnings), nil
}
