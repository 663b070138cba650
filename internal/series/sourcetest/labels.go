package sourcetest

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/series"
)

func parse(t *testing.T, selector string) []*labels.Matcher {
	t.Helper()
	ms, err := expr.New(0).ParseMetricSelector(selector)
	if err != nil {
		t.Fatalf("%s: %v", selector, err)
	}
	return ms
}

func (s *suite) labelNames(t *testing.T) {
	for _, sel := range append(selectors, "") {
		req := s.labelRequest(t, sel)
		want := map[string]bool{}
		for _, in := range s.expect(req) {
			in.Labels.Range(func(l labels.Label) { want[l.Name] = true })
		}
		got, warnings, err := s.src.LabelNames(context.Background(), req)
		s.checkStrings(t, "names of "+sel, got, want, warnings, err)
	}
	req := s.labelRequest(t, "")
	req.Limit = 2
	if got, _, err := s.src.LabelNames(context.Background(), req); err != nil || len(got) != 2 {
		t.Errorf("limit 2: names %q, error %v", got, err)
	}
}

func (s *suite) labelValues(t *testing.T) {
	for _, sel := range append(selectors, "") {
		for _, name := range []string{"__name__", "env", "zone", "tenant_id", "receive_replica", "absent"} {
			req := s.labelRequest(t, sel)
			want := map[string]bool{}
			for _, in := range s.expect(req) {
				if v := in.Labels.Get(name); v != "" {
					want[v] = true
				}
			}
			got, warnings, err := s.src.LabelValues(context.Background(), name, req)
			s.checkStrings(t, "values of "+name+" in "+sel, got, want, warnings, err)
		}
	}
	req := s.labelRequest(t, "")
	req.Limit = 2
	if got, _, err := s.src.LabelValues(context.Background(), "__name__", req); err != nil || len(got) != 2 {
		t.Errorf("limit 2: values %q, error %v", got, err)
	}
}

func (s *suite) labelRequest(t *testing.T, selector string) *series.Request {
	req := &series.Request{Tenant: owner, MinTime: s.mint, MaxTime: s.maxt}
	if selector != "" {
		req.Matchers = parse(t, selector)
	}
	return req
}

func (s *suite) checkStrings(
	t *testing.T, what string, got []string, want map[string]bool, warnings series.Warnings, err error,
) {
	t.Helper()
	if err != nil || len(warnings) > 0 {
		t.Errorf("%s: error %v, warnings %q", what, err, warnings)
		return
	}
	if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("%s: got %q, want %q", what, got, slices.Sorted(maps.Keys(want)))
	}
}
