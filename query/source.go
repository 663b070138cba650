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
	s, err := q.newSelection(ctx, r, false)
	if err != nil {
		return series.Failed(err)
	}
	lease := s.openLease()
	ctx, cancel := context.WithCancel(ctx)
	var sets []series.Set
	for _, g := range s.plan.groups {
		set := &groupSet{asking: s.asking(g), ctx: ctx, lease: lease}
		if len(s.plan.groups) == 1 && len(s.fills) == 0 && g.endpoints[0].Local {
			sets = append(sets, set)
			continue
		}
		sets = append(sets, set.prefetch())
	}
	for _, f := range s.fills {
		sets = append(sets, f.prefetch(ctx, lease))
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
	return q.labels(ctx, r, func(ctx context.Context, a *asking) ([]string, series.Warnings, error) {
		return a.at.Source.LabelNames(ctx, a.request())
	})
}

// LabelValues implements series.Source.
func (q *Querier) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	return q.labels(ctx, r, func(ctx context.Context, a *asking) ([]string, series.Warnings, error) {
		return a.at.Source.LabelValues(ctx, name, a.request())
	})
}

type askLabels func(context.Context, *asking) ([]string, series.Warnings, error)

// labels asks every group of endpoints at once and unites what they know.
func (q *Querier) labels(ctx context.Context, r *series.Request, ask askLabels) ([]string, series.Warnings, error) {
	s, err := q.newSelection(ctx, r, false)
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex // guards all
	var all []string
	warnings, err := q.askAll(ctx, s, func(ctx context.Context, a *asking) (series.Warnings, error) {
		found, warnings, err := ask(ctx, a)
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
	})
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
