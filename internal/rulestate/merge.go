package rulestate

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Merge unites groups that several Sources returned, sorted by file, name and tenant. Groups of one tenant with the
// same file and name become one. Rules of it that differ in nothing but replica labels and how their evaluation went
// become one, too: that with the more critical state counts, then that with the later evaluation. A rule that one
// Source has twice stays there twice.
func Merge(replicaLabels []string, lists ...[]Group) []Group {
	type key struct{ tenant, file, name string }
	var out []Group
	at := map[key]int{}
	for _, list := range lists {
		for _, g := range list {
			g.Rules = withoutLabels(g.Rules, replicaLabels)
			k := key{string(g.Tenant), g.File, g.Name}
			i, known := at[k]
			if !known {
				at[k] = len(out)
				out = append(out, g)
				continue
			}
			rules := unite(out[i].Rules, g.Rules)
			if g.LastEvaluation.After(out[i].LastEvaluation) {
				out[i] = g
			}
			out[i].Rules = rules
		}
	}
	Sort(out)
	return out
}

// Sort sorts groups as answers have them.
func Sort(groups []Group) {
	slices.SortStableFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Tenant, b.Tenant))
	})
}

// withoutLabels returns a copy of rules without labels of these names.
func withoutLabels(rules []Rule, names []string) []Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		if slices.ContainsFunc(names, rules[i].Labels.Has) {
			rules[i].Labels = labels.NewBuilder(rules[i].Labels).Del(names...).Labels()
		}
	}
	return rules
}

// identity is all by which rules of a group differ from each other.
type identity struct {
	alerting            bool
	name, query, labels string
	wait                time.Duration
}

func identityOf(r *Rule, buf []byte) identity {
	return identity{r.Alerting, r.Name, r.Query, string(r.Labels.Bytes(buf)), r.For}
}

// unite adds more to rules. The n-th rule of an identity in more is the n-th of it in rules. It changes rules.
func unite(rules, more []Rule) []Rule {
	var buf []byte
	at := map[identity][]int{}
	for i := range rules {
		id := identityOf(&rules[i], buf)
		at[id] = append(at[id], i)
	}
	for _, r := range more {
		id := identityOf(&r, buf)
		same := at[id]
		if len(same) == 0 {
			rules = append(rules, r)
			continue
		}
		at[id] = same[1:]
		have := &rules[same[0]]
		if r.State > have.State || r.State == have.State && r.LastEvaluation.After(have.LastEvaluation) {
			*have = r
		}
	}
	return rules
}
