package query

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// each calls f at once for all sources of kind S that tenant id's selections ask, and returns their warnings and what
// failed, or an error if the query wants that.
func each[S any](ctx context.Context, q *Querier, r *series.Request, f func(context.Context, S) (series.Warnings, error)) (series.Warnings, error) {
	p := q.paramsFrom(ctx)
	plan := q.plan(r, p)
	col := new(collector)
	watch := q.newWatch(r, p, col, plan)
	defer watch.stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards warnings
	var warnings series.Warnings
	var wg sync.WaitGroup
	for i, g := range plan.groups {
		src, ok := g[0].Source.(S)
		if !ok {
			col.answer(g[0])
			continue
		}
		wg.Go(func() {
			c := watch.calls[i]
			c.step()
			defer c.step()
			asking := c.begin(ctx, q, col, g[0], 0)
			said, err := f(asking, src)
			if err := outcome(ctx, asking, err); err != nil {
				col.fail(g[0], err)
				return
			}
			col.answer(g[0])
			mu.Lock()
			defer mu.Unlock()
			warnings = append(warnings, said...)
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	missing := q.judgement(r, p, col, plan, false)
	err := q.settle(p, append(slices.Clone(warnings), missing...))
	for _, m := range missing {
		warnings = append(warnings, partialPrefix+m)
	}
	slices.Sort(warnings)
	return slices.Compact(warnings), err
}

var _ series.ExemplarSource = (*Querier)(nil)

// Exemplars implements series.ExemplarSource.
func (q *Querier) Exemplars(ctx context.Context, id tenant.ID, mint, maxt int64, ms ...[]*labels.Matcher) ([]exemplar.QueryResult, series.Warnings, error) {
	var mu sync.Mutex // guards all
	var all []exemplar.QueryResult
	r := &series.Request{Tenant: id, MinTime: mint, MaxTime: maxt}
	warnings, err := each(ctx, q, r, func(ctx context.Context, src series.ExemplarSource) (series.Warnings, error) {
		mine := make([][]*labels.Matcher, len(ms))
		for i := range ms {
			mine[i] = slices.Clone(ms[i]) // as in own
		}
		found, warnings, err := src.Exemplars(ctx, id, mint, maxt, mine...)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, found...)
		return warnings, err
	})
	return uniteExemplars(all), warnings, err
}

// uniteExemplars makes one result of those of one series, in label order, exemplars by time, equal ones once.
func uniteExemplars(all []exemplar.QueryResult) []exemplar.QueryResult {
	slices.SortStableFunc(all, func(a, b exemplar.QueryResult) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
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

// exemplars are those of the tenants of ctx from start to end (ms, inclusive), HA pairs as one series where the query asks
// for it.
func (q *Querier) exemplars(ctx context.Context, start, end int64, ms ...[]*labels.Matcher) ([]exemplar.QueryResult, series.Warnings, error) {
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

var _ series.MetadataSource = (*Querier)(nil)

// Metadata implements series.MetadataSource.
func (q *Querier) Metadata(ctx context.Context, id tenant.ID, family string, limit int) (map[string][]metadata.Metadata, series.Warnings, error) {
	found, warnings, err := q.tenantMetadata(ctx, id, family)
	trimMetadata(found, limit, 0)
	return found, warnings, err
}

func (q *Querier) tenantMetadata(ctx context.Context, id tenant.ID, family string) (map[string][]metadata.Metadata, series.Warnings, error) {
	var mu sync.Mutex // guards all
	all := map[string][]metadata.Metadata{}
	now := q.now().UnixMilli()
	r := &series.Request{Tenant: id, MinTime: now, MaxTime: now}
	warnings, err := each(ctx, q, r, func(ctx context.Context, src series.MetadataSource) (series.Warnings, error) {
		found, warnings, err := src.Metadata(ctx, id, family, 0)
		mu.Lock()
		defer mu.Unlock()
		addMetadata(all, found)
		return warnings, err
	})
	return all, warnings, err
}

// metadata is what the tenants of ctx said of families, within limits (0 and less: none).
func (q *Querier) metadata(ctx context.Context, family string, limit, perFamily int) (map[string][]metadata.Metadata, series.Warnings, error) {
	all := map[string][]metadata.Metadata{}
	var warnings series.Warnings
	for _, id := range q.scope(ctx).ids {
		found, w, err := q.tenantMetadata(ctx, id, family)
		if err != nil {
			return nil, nil, err
		}
		addMetadata(all, found)
		warnings = append(warnings, w...)
	}
	trimMetadata(all, limit, perFamily)
	slices.Sort(warnings)
	return all, slices.Compact(warnings), nil
}

// addMetadata adds what all does not have yet. Two members may know different texts of a family, after a change.
func addMetadata(all, found map[string][]metadata.Metadata) {
	for family, ms := range found {
		for _, m := range ms {
			if !slices.Contains(all[family], m) {
				all[family] = append(all[family], m)
			}
		}
	}
}

func trimMetadata(all map[string][]metadata.Metadata, limit, perFamily int) {
	if limit > 0 && len(all) > limit {
		for _, family := range slices.Sorted(maps.Keys(all))[limit:] {
			delete(all, family)
		}
	}
	for family, ms := range all {
		slices.SortFunc(ms, func(a, b metadata.Metadata) int { // sources answer in any order
			return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Help, b.Help))
		})
		if perFamily > 0 && len(ms) > perFamily {
			all[family] = ms[:perFamily]
		}
	}
}
