package query

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// scope is the tenants that a selection reads.
type scope struct {
	ids []tenant.ID
	// label is the label that names the tenant of each series; "" when the query names one tenant.
	label string
}

// narrow resolves matchers on the tenant label. It returns the tenants that match, and the matchers on the series' own
// labels. In a query over one tenant there is no tenant label, so a label of that name belongs to the series.
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
		own = []*labels.Matcher{series.Everything} // a source may take an empty list of matchers for an error
	}
	return scope{ids, s.label}, own
}

func scopeOf(ids []tenant.ID, label string) scope {
	if len(ids) == 1 {
		label = ""
	}
	return scope{ids, label}
}
