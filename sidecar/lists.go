package sidecar

import (
	"context"
	"slices"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// LabelNames implements series.Source.
func (s *Sidecar) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	return view{Sidecar: s}.LabelNames(ctx, r)
}

// LabelNames implements series.Source. The names of external labels count if there is any series.
func (v view) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	q, ok, err := v.plan(r)
	if err != nil || !ok {
		return nil, nil, err
	}
	limit := r.Limit
	if len(q.without) > 0 {
		limit = 0
	}
	names, warnings, err := v.client.LabelNames(ctx, q.matchers, q.mint, q.maxt, limit)
	if err != nil || len(names) == 0 {
		v.failed(ctx, err)
		return nil, warnings, err
	}
	q.added.Range(func(l labels.Label) { names = append(names, l.Name) })
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(q.without, name) })
	return series.SortedUnique(names, r.Limit), warnings, nil
}

// LabelValues implements series.Source.
func (s *Sidecar) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	return view{Sidecar: s}.LabelValues(ctx, name, r)
}

// LabelValues implements series.Source. An external label has its one value if there is any series.
func (v view) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	q, ok, err := v.plan(r)
	switch {
	case err != nil || !ok || slices.Contains(q.without, name):
		return nil, nil, err
	case !q.added.Has(name):
		values, warnings, err := v.client.LabelValues(ctx, name, q.matchers, q.mint, q.maxt, r.Limit)
		v.failed(ctx, err)
		return series.SortedUnique(values, r.Limit), warnings, err
	}
	names, warnings, err := v.client.LabelNames(ctx, q.matchers, q.mint, q.maxt, 1)
	if err != nil || len(names) == 0 {
		v.failed(ctx, err)
		return nil, warnings, err
	}
	return []string{q.added.Get(name)}, warnings, nil
}

// Exemplars implements series.ExemplarSource.
func (s *Sidecar) Exemplars(ctx context.Context, id tenant.ID, mint, maxt int64,
	matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, series.Warnings, error) {
	return view{Sidecar: s}.Exemplars(ctx, id, mint, maxt, matchers...)
}

// Exemplars implements series.ExemplarSource. Series have the external labels of Prometheus.
func (v view) Exemplars(ctx context.Context, id tenant.ID, mint, maxt int64,
	matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, series.Warnings, error) {
	q, ok, err := v.plan(&series.Request{Tenant: id, MinTime: mint, MaxTime: maxt})
	if err != nil || !ok {
		return nil, nil, err
	}
	var sets [][]*labels.Matcher
	for _, ms := range matchers {
		if rest, ok := series.Resolve(ms, q.added); ok {
			sets = append(sets, rest)
		}
	}
	if len(sets) == 0 {
		return nil, nil, nil
	}
	found, err := v.client.Exemplars(ctx, q.mint, q.maxt, sets...)
	if err != nil {
		v.failed(ctx, err)
		return nil, nil, err
	}
	relabel := series.Relabeler(q.added)
	for i := range found {
		found[i].SeriesLabels = relabel(found[i].SeriesLabels)
	}
	slices.SortStableFunc(found, func(a, b exemplar.QueryResult) int {
		return labels.Compare(a.SeriesLabels, b.SeriesLabels)
	})
	return found, nil, nil
}

// Metadata implements series.MetadataSource.
func (s *Sidecar) Metadata(ctx context.Context, id tenant.ID, family string,
	limit int) (map[string][]metadata.Metadata, series.Warnings, error) {
	if id != s.opts.Tenant {
		return nil, nil, nil
	}
	if _, err := s.known(); err != nil {
		return nil, nil, err
	}
	found, err := s.client.Metadata(ctx, family, limit)
	s.failed(ctx, err)
	return found, nil, err
}

// Targets are what Prometheus scrapes and what it dropped, with the external labels that Thanos callers see. A tenant
// whose Prometheus it is not has none.
func (s *Sidecar) Targets(ctx context.Context, id tenant.ID) (promv1.TargetsResult, labels.Labels, error) {
	known, err := s.known()
	if id != s.opts.Tenant || err != nil {
		return promv1.TargetsResult{}, labels.EmptyLabels(), err
	}
	all, err := s.client.Targets(ctx)
	s.failed(ctx, err)
	return all, view{s, true}.external(known), err
}

// maxStatistics is the longest list that Prometheus gives.
const maxStatistics = 10_000

// Statistics are those of Prometheus's head, with lists of at most limit entries; 0 = Prometheus's default. The
// matchers choose a Prometheus by its external labels: it cannot count a part of its series.
func (s *Sidecar) Statistics(ctx context.Context, id tenant.ID, limit int, matchers []*labels.Matcher) (
	all promv1.TSDBResult, found bool, err error) {
	known, err := s.known()
	if id != s.opts.Tenant || err != nil {
		return all, false, err
	}
	external := view{s, true}.external(known)
	if slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(external.Get(m.Name)) }) {
		return all, false, nil
	}
	all, err = s.client.TSDB(ctx, min(limit, maxStatistics))
	s.failed(ctx, err)
	return all, err == nil, err
}

// Rules implements rulestate.Source. Rules and alerts have the external labels of Prometheus, which its own API does
// not show.
func (s *Sidecar) Rules(ctx context.Context, id tenant.ID, q rulestate.Query) ([]rulestate.Group, []string, error) {
	known, err := s.known()
	if id != "" && id != s.opts.Tenant || err != nil {
		return nil, nil, err
	}
	groups, err := s.client.Rules(ctx)
	if err != nil {
		s.failed(ctx, err)
		return nil, nil, err
	}
	relabel := series.Relabeler(known.labels)
	for i := range groups {
		groups[i].Tenant = s.opts.Tenant
		for k := range groups[i].Rules {
			rule := &groups[i].Rules[k]
			rule.Labels = relabel(rule.Labels)
			for j := range rule.Alerts {
				rule.Alerts[j].Labels = relabel(rule.Alerts[j].Labels)
			}
		}
	}
	return q.Select(groups), nil, nil
}

// ExternalLabels are those that callers from Thanos see on series and rules of tenant id.
func (s *Sidecar) ExternalLabels(tenant.ID) labels.Labels {
	known, err := s.known()
	if err != nil {
		return labels.EmptyLabels()
	}
	return view{s, true}.external(known)
}
