package receive

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Select returns the series with their own labels and, winning over them, the external labels but the tenant's and
// the replica's, which are attributes of the stream.
func (r *Receiver) Select(ctx context.Context, req *series.Request) series.Set {
	if r.hidden(req.Tenant) {
		return series.Empty()
	}
	if r.added.IsEmpty() {
		return r.visible().Select(ctx, req)
	}
	inner, ok := r.inner(req)
	if !ok {
		return series.Empty()
	}
	without := inner.WithoutLabels
	inner.WithoutLabels, inner.Limit = nil, 0 // adding and removing may make series equal
	return series.Limit(series.Relabel(r.visible().Select(ctx, inner), r.added, without, series.SortBudget), req.Limit)
}

// inner returns req as the TSDB gets it: matchers on added labels are decided here. False means that they select
// nothing.
func (r *Receiver) inner(req *series.Request) (*series.Request, bool) {
	inner, ok := *req, false
	inner.Matchers, ok = series.Resolve(req.Matchers, r.added)
	return &inner, ok
}

// LabelNames adds the names of the added labels if there is any series.
func (r *Receiver) LabelNames(ctx context.Context, req *series.Request) ([]string, series.Warnings, error) {
	if r.hidden(req.Tenant) {
		return nil, nil, nil
	}
	if r.added.IsEmpty() {
		return r.db.LabelNames(ctx, req)
	}
	inner, ok := r.inner(req)
	if !ok {
		return nil, nil, nil
	}
	inner.Limit = 0
	names, warnings, err := r.db.LabelNames(ctx, inner)
	if err != nil || len(names) == 0 {
		return nil, warnings, err
	}
	r.added.Range(func(l labels.Label) {
		if !slices.Contains(req.WithoutLabels, l.Name) {
			names = append(names, l.Name)
		}
	})
	return series.SortedUnique(names, req.Limit), warnings, nil
}

// LabelValues returns the one value of an added label if there is any series.
func (r *Receiver) LabelValues(ctx context.Context, name string,
	req *series.Request) ([]string, series.Warnings, error) {
	inner, ok := r.inner(req)
	switch {
	case !ok || r.hidden(req.Tenant):
		return nil, nil, nil
	case !r.added.Has(name):
		return r.db.LabelValues(ctx, name, inner)
	case slices.Contains(req.WithoutLabels, name):
		return nil, nil, nil
	}
	names, warnings, err := r.db.LabelNames(ctx, inner)
	if err != nil || len(names) == 0 {
		return nil, warnings, err
	}
	return []string{r.added.Get(name)}, warnings, nil
}

// Exemplars returns the tenant's exemplars; series labels are as Select shows them.
func (r *Receiver) Exemplars(ctx context.Context, id tenant.ID, mint, maxt int64,
	matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, series.Warnings, error) {
	if r.hidden(id) {
		return nil, nil, nil
	}
	if r.added.IsEmpty() {
		return r.visible().Exemplars(ctx, id, mint, maxt, matchers...)
	}
	var sets [][]*labels.Matcher
	for _, ms := range matchers {
		if inner, ok := r.inner(&series.Request{Matchers: ms}); ok {
			sets = append(sets, inner.Matchers)
		}
	}
	if len(matchers) > 0 && len(sets) == 0 {
		return nil, nil, nil
	}
	found, warnings, err := r.visible().Exemplars(ctx, id, mint, maxt, sets...)
	relabel := series.Relabeler(r.added)
	for i := range found {
		found[i].SeriesLabels = relabel(found[i].SeriesLabels)
	}
	slices.SortFunc(found, func(a, b exemplar.QueryResult) int {
		return labels.Compare(a.SeriesLabels, b.SeriesLabels)
	})
	return found, warnings, err
}

// Metadata returns what senders said about metric families of tenant id.
func (r *Receiver) Metadata(ctx context.Context, id tenant.ID, family string,
	limit int) (map[string][]metadata.Metadata, series.Warnings, error) {
	if r.hidden(id) {
		return nil, nil, nil
	}
	return r.db.Metadata(ctx, id, family, limit)
}

// Identity says whose data this is: this instance's, with the disk that it has now.
func (r *Receiver) Identity() series.Identity {
	return series.Identity{Instance: r.opts.Instance, Since: r.opts.Since}
}

// Info returns that of the TSDBs with this receiver's role, identity and external labels.
func (r *Receiver) Info(ctx context.Context) (series.Info, error) {
	info, err := r.db.Info(ctx)
	if err != nil {
		return info, err
	}
	info.Role, info.Instance, info.Since = series.RoleReceive, r.opts.Instance, r.opts.Since
	info.Labels = r.labelsOf(info.Tenants)
	return info, nil
}

// described are the external labels of a list of tenants, which does not change.
type described struct {
	tenants []tenant.ID
	labels  []labels.Labels
}

// labelsOf returns the external labels of the tenants. Each query asks for them, so they are kept until the list of
// tenants is another one.
func (r *Receiver) labelsOf(tenants []tenant.ID) []labels.Labels {
	if len(tenants) == 0 {
		return []labels.Labels{}
	}
	if last := r.described.Load(); last != nil && len(last.tenants) == len(tenants) && &last.tenants[0] == &tenants[0] {
		return last.labels
	}
	d := &described{tenants, make([]labels.Labels, len(tenants))}
	for i, id := range tenants {
		d.labels[i] = r.ExternalLabels(id)
	}
	r.described.Store(d)
	return d.labels
}

// Streams returns the one stream that a tenant has here, none if the tenant is not known.
func (r *Receiver) Streams(id tenant.ID) []series.Stream {
	if !r.db.Has(id) || r.hidden(id) {
		return nil
	}
	return []series.Stream{{External: r.ExternalLabels(id), Source: r.visible()}}
}

// Arrivals implements series.ArrivalSource. Of a tenant that is being deleted nothing is known: what was answered
// before does not hold.
func (r *Receiver) Arrivals(ctx context.Context, id tenant.ID, since int64) (series.Arrivals, error) {
	if r.hidden(id) {
		return series.Arrivals{Since: series.Never}, nil
	}
	a, err := r.db.Arrivals(ctx, id, since)
	return r.hides.AddTo(a, id).From(since), err
}
