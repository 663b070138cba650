package query

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// scope is the tenants a selection is over.
type scope struct {
	ids []tenant.ID
	// label is what series are given to tell their tenants apart; "" when the query names one tenant.
	label string
}

// narrow resolves matchers on the tenant label: the tenants left, and the matchers on the series' own labels. A query
// over one tenant has no tenant label, so that a label of that name is the series' own.
func (s scope) narrow(ms []*labels.Matcher) (scope, []*labels.Matcher) {
	if s.label == "" {
		return s, ms
	}
	var own []*labels.Matcher
	ids := slices.Clone(s.ids)
	for _, m := range ms {
		if m.Name != s.label {
			own = append(own, m)
			continue
		}
		ids = slices.DeleteFunc(ids, func(id tenant.ID) bool { return !m.Matches(string(id)) })
	}
	if len(own) == 0 && len(ms) > 0 {
		own = []*labels.Matcher{series.Everything} // no matchers at all may mean nothing
	}
	return scope{ids, s.label}, own
}

func scopeOf(ids []tenant.ID, label string) scope {
	if len(ids) == 1 {
		label = ""
	}
	return scope{ids, label}
}
