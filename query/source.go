package query

import (
	"context"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

var _ series.Source = (*Querier)(nil)

// Select implements series.Source: the union of what the endpoints hold of one tenant. Selections run from the call on,
// not only from the first Next.
func (q *Querier) Select(ctx context.Context, r *series.Request) series.Set {
	s, err := q.newSelection(ctx, r)
	if err != nil {
		return series.Failed(err)
	}
	lease := s.openLease()
	ctx, cancel := context.WithCancel(ctx)
	sets := make([]series.Set, 0, len(s.plan.groups))
	for i, g := range s.plan.groups {
		set := &groupSet{asking: s.asking(i), lease: lease}
		if len(s.plan.groups) == 1 && g[0].Local {
			set.ctx = ctx
			sets = append(sets, set)
			continue
		}
		sets = append(sets, prefetch(ctx, func(ctx context.Context) series.Set {
			set.ctx = ctx
			return set
		}))
	}
	return &answerSet{Set: series.Merge(sets...), ctx: ctx, cancel: cancel, sel: s, lease: lease}
}

// known are the endpoints of the last poll and the receivers that have appeared since. A new receiver takes samples at
// once, so an answer without it would lack them.
func (q *Querier) known() []*endpoint {
	polled := q.snapshot.Load().endpoints
	all := polled[:len(polled):len(polled)]
	for _, e := range q.endpoints() {
		if e.Known.Role != series.RoleReceive {
			continue
		}
		byName := func(m *endpoint, name string) int { return strings.Compare(m.Name, name) }
		_, found := slices.BinarySearchFunc(polled, e.Name, byName)
		if !found {
			all = append(all, &endpoint{Endpoint: e, info: e.Known})
		}
	}
	return all
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

// labels asks every group of endpoints at once and unites what they know.
func (q *Querier) labels(ctx context.Context, r *series.Request, ask askLabels) ([]string, series.Warnings, error) {
	var mu sync.Mutex // guards all
	var all []string
	askOne := func(ctx context.Context, s *selection, src series.Source) (series.Warnings, error) {
		found, warnings, err := ask(ctx, src)
		if err != nil {
			return nil, err
		}
		if s.p.request != nil {
			if err := s.p.request.Grow(stringBytes(found)); err != nil {
				return nil, localError{err}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, found...)
		return warnings, nil
	}
	warnings, err := q.askAll(ctx, r, askOne)
	return series.SortedUnique(all, r.Limit), warnings, err
}

// stringBytes is what names or values take in memory: twice, since they are copied into the answer.
func stringBytes(all []string) int64 {
	size := int64(len(all)) * int64(unsafe.Sizeof(""))
	for _, s := range all {
		size += int64(len(s))
	}
	return 2 * size
}

// Info implements series.Source: the union of the endpoints' responses to the last poll.
func (q *Querier) Info(context.Context) (series.Info, error) {
	v := q.snapshot.Load()
	if n := len(v.endpoints); n == 0 {
		return v.info, errs.E(errs.Unavailable, NoEndpoints)
	} else if !slices.ContainsFunc(v.endpoints, func(m *endpoint) bool { return m.heard }) {
		return v.info, errs.E(errs.Unavailable, "none of %d endpoints has answered yet", n)
	}
	return v.info, nil
}
