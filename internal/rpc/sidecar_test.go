package rpc

import (
	"context"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// strict refuses selectors as a Prometheus does behind a sidecar.
type strict struct{ *sourcetest.Memory }

func refusal(ms []*labels.Matcher) error {
	if len(ms) > 0 && !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		return errs.E(errs.Invalid, "match[] must contain at least one non-empty matcher")
	}
	return nil
}

func (s strict) Select(ctx context.Context, r *series.Request) series.Set {
	if err := refusal(r.Matchers); err != nil {
		return series.Failed(err)
	}
	return s.Memory.Select(ctx, r)
}

func (s strict) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	if err := refusal(r.Matchers); err != nil {
		return nil, nil, err
	}
	return s.Memory.LabelNames(ctx, r)
}

func (s strict) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	if err := refusal(r.Matchers); err != nil {
		return nil, nil, err
	}
	return s.Memory.LabelValues(ctx, name, r)
}

func (s strict) Exemplars(
	_ context.Context,
	_ tenant.ID,
	_, _ int64,
	ms ...[]*labels.Matcher,
) ([]exemplar.QueryResult, series.Warnings, error) {
	return []exemplar.QueryResult{
		{SeriesLabels: labels.FromStrings("asked", selector(ms[0]), "tenant_id", "mine")}}, nil, nil
}

// TestSidecar asks a peer that is a Thanos sidecar: no request may be one that its Prometheus refuses, and the series'
// own labels stay, whatever their names.
func TestSidecar(t *testing.T) {
	mem := &sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{tenant.Default: {
		{Labels: labels.FromStrings("__name__", "x", "tenant_id", "mine"), Samples: []sourcetest.Sample{{T: 1000, V: 1}}},
		{Labels: labels.FromStrings("__name__", "y"), Samples: []sourcetest.Sample{{T: 1000, V: 1}}},
	}}}
	ask := func(external labels.Labels, role string) *Client {
		return dial(t, serve(t, func(s *Server) {
			registerForeign(s, Store{Sources: map[string]series.Source{role: strict{mem}},
				External: func(tenant.ID) labels.Labels { return external }}, true)
		}), ClientOptions{})
	}
	f := func(c *Client, want, names, values string, ms ...*labels.Matcher) {
		t.Helper()
		r := &series.Request{Tenant: tenant.Default, MinTime: 0, MaxTime: 2000, Matchers: ms}
		if want != "" {
			got, _, err := collect(t, c, r)
			text := ""
			for _, s := range got {
				text += s.Labels.String()
			}
			if err != nil || text != want {
				t.Errorf("%v: series %s, %v; want %s", ms, text, err, want)
			}
		}
		found, warnings, err := c.LabelNames(context.Background(), r)
		if text := join(found); err != nil || text != names || warnings != nil {
			t.Errorf("%v: names %s, %v, %v; want %s", ms, text, warnings, err, names)
		}
		found, warnings, err = c.LabelValues(context.Background(), "__name__", r)
		if text := join(found); err != nil || text != values || warnings != nil {
			t.Errorf("%v: values %s, %v, %v; want %s", ms, text, warnings, err, values)
		}
	}
	sidecar := ask(labels.FromStrings("cluster", "c1"), "sidecar")
	cluster := matcher(labels.MatchEqual, "cluster", "c1")
	f(sidecar, "", "__name__ cluster tenant_id ", "x y ")
	f(sidecar, `{__name__="x", cluster="c1", tenant_id="mine"}{__name__="y", cluster="c1"}`, "__name__ cluster tenant_id ",
		"x y ", cluster)
	f(sidecar, `{__name__="x", cluster="c1", tenant_id="mine"}`, "__name__ cluster tenant_id ", "x ",
		matcher(labels.MatchEqual, "tenant_id", "mine"))
	f(sidecar, `{__name__="y", cluster="c1"}`, "__name__ cluster ", "y ", matcher(labels.MatchEqual, "tenant_id", ""),
		cluster)
	// Others may get streams of other tenants, and have none.
	for _, role := range []string{"query", "store", "receive"} {
		other := ask(labels.FromStrings("cluster", "c1"), role)
		f(other, "", "__name__ cluster tenant_id ", "x y ")
		f(other, `{__name__="x", cluster="c1", tenant_id="mine"}{__name__="y", cluster="c1"}`, "__name__ cluster tenant_id ",
			"x y ", cluster)
	}

	for want, ms := range map[string][]*labels.Matcher{
		`{x="1"}`: {cluster, matcher(labels.MatchEqual, "x", "1")}, `{__name__=~".+"}`: {cluster}, "": {matcher(labels.MatchEqual, "cluster", "c2")},
	} {
		got, _, err := sidecar.Exemplars(context.Background(), tenant.Default, 0, 1, ms)
		asked, own := "", "mine"
		if len(got) > 0 {
			asked, own = got[0].SeriesLabels.Get("asked"), got[0].SeriesLabels.Get("tenant_id")
		}
		if err != nil || asked != want || own != "mine" {
			t.Errorf("exemplars of %v: %v, %v, want %s", ms, got, err, want)
		}
	}
}

// TestSidecarOwner: whose the series of a Thanos sidecar are the operator says, and not a label that the owner of its
// Prometheus chose.
func TestSidecarOwner(t *testing.T) {
	mem := &sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{"victim": {
		{Labels: labels.FromStrings("__name__", "x"), Samples: []sourcetest.Sample{{T: 1000, V: 1}}},
	}}}
	for _, owner := range []tenant.ID{"", "team-b"} {
		c := dial(t, serve(t, func(s *Server) {
			registerForeign(s, Store{Sources: map[string]series.Source{"sidecar": mem}, Tenants: Tenants{All: true},
				External: func(tenant.ID) labels.Labels {
					return labels.FromStrings("cluster", "c1", "tenant_id", "victim")
				}}, true)
		}), ClientOptions{SidecarTenant: owner})
		want := owner
		if want == "" {
			want = tenant.Default
		}
		info, err := c.Info(t.Context())
		if err != nil || !slices.Equal(info.Tenants, []tenant.ID{want}) {
			t.Errorf("owner %q: %v, %v", owner, info.Tenants, err)
		}
		for _, id := range []tenant.ID{tenant.Default, "team-b", "victim"} {
			r := &series.Request{Tenant: id, MinTime: 0, MaxTime: 2000, Matchers: []*labels.Matcher{anyName}}
			got, _, err := collect(t, c, r)
			names, _, err2 := c.LabelNames(t.Context(), r)
			values, _, err3 := c.LabelValues(t.Context(), "__name__", &series.Request{Tenant: id, MaxTime: 2000})
			n := 0
			if id == want {
				n = 1
			}
			if err != nil || err2 != nil || err3 != nil || len(got) != n || len(names) != 3*n || len(values) != n {
				t.Errorf("owner %q, tenant %s: %v %v %v, %v %v %v", owner, id, got, names, values, err, err2, err3)
			}
			if len(got) == 1 && got[0].Labels.String() != `{__name__="x", cluster="c1", tenant_id="victim"}` {
				t.Errorf("owner %q: %s", owner, got[0].Labels)
			}
		}
	}
}

func join(list []string) (text string) {
	for _, s := range list {
		text += s + " "
	}
	return text
}
