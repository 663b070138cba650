package rulestate

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
)

// Type is a type of rules.
type Type uint8

// The types. The numbers are those of Thanos's RulesRequest.
const (
	AllTypes Type = iota
	Alerting
	Recording
)

// Query selects rules. The zero Query selects all.
type Query struct {
	Type Type
	// Matchers: all of one list must match the labels of a rule; none = all rules. Labels with a template do not count.
	Matchers [][]*labels.Matcher
	// Names are those of rules, Groups and Files those of groups; none = all.
	Names, Groups, Files []string
	// ExcludeAlerts leaves the active alerts out.
	ExcludeAlerts bool
}

// ParseMatchers reads selectors ({severity="page"}) for Query.Matchers. Errors: TooLarge, Invalid.
func ParseMatchers(texts []string) ([][]*labels.Matcher, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	sets, err := expr.New(0).ParseMetricSelectors(texts)
	if err != nil {
		kind := errs.KindOf(err)
		if kind == errs.Internal { // an error of the library has no kind
			kind = errs.Invalid
		}
		return nil, errs.E(kind, "%w", err)
	}
	for _, set := range sets {
		if !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return nil, errs.E(errs.Invalid, "match[] must contain at least one non-empty matcher")
		}
	}
	return sets, nil
}

// MatcherTexts is the reverse of ParseMatchers.
func (q Query) MatcherTexts() (texts []string) {
	for _, set := range q.Matchers {
		parts := make([]string, len(set))
		for i, m := range set {
			parts[i] = m.String()
		}
		texts = append(texts, "{"+strings.Join(parts, ",")+"}")
	}
	return texts
}

// Select returns the groups with the rules that q selects. Groups without such a rule are left out. The result shares
// nothing with groups but what does not change.
func (q Query) Select(groups []Group) []Group {
	var out []Group
	for _, g := range groups {
		if !among(g.Name, q.Groups) || !among(g.File, q.Files) {
			continue
		}
		rules := make([]Rule, 0, len(g.Rules))
		for _, r := range g.Rules {
			if !q.selects(&r) {
				continue
			}
			if q.ExcludeAlerts {
				r.Alerts = nil
			}
			rules = append(rules, r)
		}
		if g.Rules = rules; len(rules) > 0 {
			out = append(out, g)
		}
	}
	return out
}

func (q Query) selects(r *Rule) bool {
	isType := q.Type == AllTypes || (q.Type == Alerting) == r.Alerting
	return isType && among(r.Name, q.Names) && q.matches(r.Labels)
}

// matches reports whether a list of matchers matches ls.
func (q Query) matches(ls labels.Labels) bool {
	if len(q.Matchers) == 0 {
		return true
	}
	plain := labels.NewScratchBuilder(ls.Len())
	ls.Range(func(l labels.Label) {
		if !strings.Contains(l.Value, "{{") {
			plain.Add(l.Name, l.Value)
		}
	})
	ls = plain.Labels()
	return slices.ContainsFunc(q.Matchers, func(set []*labels.Matcher) bool {
		return !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
	})
}

// among reports whether name is one of names, or there are no names.
func among(name string, names []string) bool { return len(names) == 0 || slices.Contains(names, name) }
