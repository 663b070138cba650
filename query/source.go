package query

import (
	"context"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var _ series.Source = (*Querier)(nil)

// Select implements series.Source: the union of what the endpoints hold of one tenant. Selections run from the call on,
// not only from the first Next.
func (q *Querier) Select(ctx context.Context, r *series.Request) series.Set {
	p := q.paramsFrom(ctx)
	if err := p.selecting(r.Tenant); err != nil {
		return series.Failed(err)
	}
	plan := q.plan(r, p)
	col := new(collector)
	watch := q.newWatch(r, p, col, plan)
	lease := q.openLease(p, r.Tenant)
	ctx, cancel := context.WithCancel(ctx)
	sets := make([]series.Set, 0, len(plan.groups))
	for i, g := range plan.groups {
		set := &groupSet{q: q, req: r, col: col, left: g, call: watch.calls[i], lease: lease}
		if len(plan.groups) == 1 && g[0].Local {
			set.ctx = ctx
			sets = append(sets, set)
			continue
		}
		sets = append(sets, prefetch(ctx, func(ctx context.Context) series.Set {
			set.ctx = ctx
			return set
		}))
	}
	return &answerSet{
		Set: series.Merge(sets...), ctx: ctx, cancel: cancel, watch: watch, q: q, p: p, req: r, lease: lease,
		judge: func(early bool) []string { return q.judgement(r, p, col, plan, early) },
	}
}

// openLease opens a lease for a selection of a request with params p.
func (q *Querier) openLease(p *params, id tenant.ID) *memory.Lease {
	if p.request != nil {
		return q.selects.OpenFor(p.request)
	}
	return q.selects.Open(id)
}

// endpoints are those of the last poll and the receivers that have come since: what they take counts from their first
// moment on, and so they must be asked from then on.
func (q *Querier) known() []*endpoint {
	polled := q.snapshot.Load().endpoints
	all := polled[:len(polled):len(polled)]
	for _, e := range q.endpoints() {
		if e.Known.Role != series.RoleReceive {
			continue
		}
		_, found := slices.BinarySearchFunc(polled, e.Name, func(m *endpoint, name string) int { return strings.Compare(m.Name, name) })
		if !found {
			all = append(all, &endpoint{Endpoint: e, info: e.Known})
		}
	}
	return all
}

// plan decides whom to ask. Members that did not answer the last poll are asked only if the answer would be incomplete
// without them.
func (q *Querier) plan(r *series.Request, p *params) plan {
	known := q.known()
	plan := choose(known, r, p.storeMatch)
	plan.nobody = len(known) == 0
	if len(plan.down) == 0 {
		return plan
	}
	if len(q.judgement(r, p, new(collector), plan, true)) > 0 {
		for _, m := range plan.down {
			plan.groups = append(plan.groups, group{m})
		}
		plan.down = nil
	}
	return plan
}

// LabelNames implements series.Source.
func (q *Querier) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	return q.labels(ctx, r, func(ctx context.Context, src series.Source) ([]string, series.Warnings, error) {
		return src.LabelNames(ctx, own(r))
	})
}

// LabelValues implements series.Source.
func (q *Querier) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	return q.labels(ctx, r, func(ctx context.Context, src series.Source) ([]string, series.Warnings, error) {
		return src.LabelValues(ctx, name, own(r))
	})
}

type askLabels func(context.Context, series.Source) ([]string, series.Warnings, error)

// labels asks every group of sources at once and unites the answers.
func (q *Querier) labels(ctx context.Context, r *series.Request, ask askLabels) ([]string, series.Warnings, error) {
	p := q.paramsFrom(ctx)
	if err := p.selecting(r.Tenant); err != nil {
		return nil, nil, err
	}
	plan := q.plan(r, p)
	col := new(collector)
	watch := q.newWatch(r, p, col, plan)
	defer watch.stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards what follows
	var all []string
	var warnings series.Warnings
	var failed error
	var wg sync.WaitGroup
	for i, g := range plan.groups {
		wg.Go(func() {
			found, w, err := q.groupLabels(ctx, g, watch.calls[i], col, ask)
			if err == nil && p.request != nil {
				err = p.request.Grow(stringBytes(found))
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failed == nil {
				failed = err
				cancel()
			}
			all, warnings = append(all, found...), append(warnings, w...)
		})
	}
	wg.Wait()
	if failed != nil {
		return nil, nil, failed
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if r.Limit > 0 && len(all) > r.Limit {
		all = all[:r.Limit]
	}
	missing := q.judgement(r, p, col, plan, false)
	err := q.settle(p, append(slices.Clone(warnings), missing...))
	for _, m := range missing {
		warnings = append(warnings, partialPrefix+m)
	}
	slices.Sort(warnings)
	return all, slices.Compact(warnings), err
}

// stringBytes is what names or values take in memory, and once more in an answer.
func stringBytes(all []string) int64 {
	size := int64(len(all)) * int64(unsafe.Sizeof(""))
	for _, s := range all {
		size += int64(len(s))
	}
	return 2 * size
}

func (q *Querier) groupLabels(ctx context.Context, g group, c *call, col *collector, ask askLabels) ([]string, series.Warnings, error) {
	c.step()
	defer c.step()
	for i, m := range g {
		q.m.asked.WithLabelValues(m.role()).Inc()
		asking := c.begin(ctx, q, col, m, len(g)-i-1)
		found, warnings, err := ask(asking, m.Source)
		switch err = outcome(ctx, asking, err); {
		case err == nil:
			col.answer(m)
			return found, warnings, nil
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case final(err):
			return nil, nil, err
		}
		q.m.failed.WithLabelValues(m.role()).Inc()
		col.fail(m, err)
	}
	return nil, nil, nil
}

// Info implements series.Source: the union of the endpoints' answers to the last poll.
func (q *Querier) Info(context.Context) (series.Info, error) {
	v := q.snapshot.Load()
	if n := len(v.endpoints); n == 0 {
		return v.info, errs.E(errs.Unavailable, nobody)
	} else if !slices.ContainsFunc(v.endpoints, func(m *endpoint) bool { return m.heard }) {
		return v.info, errs.E(errs.Unavailable, "none of %d endpoints has answered yet", n)
	}
	return v.info, nil
}
