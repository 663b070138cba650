package query

import (
	"hash/maphash"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// group is endpoints that hold the same, in the order in which they are to be asked. Only one of them needs to answer.
// Most groups have one endpoint.
type group []*endpoint

// plan is which endpoints a selection asks.
type plan struct {
	groups []group
	// down are endpoints that would have been asked, had they answered the last poll and query.
	down []*endpoint
	// empty says that there is no endpoint at all, so that it is not known what there should be.
	empty bool
}

// seed makes different tenants prefer different gateways. Within a process a tenant always prefers the same gateway.
var seed = maphash.MakeSeed()

// choose plans a selection for r. If storeMatch is not empty, an endpoint is asked only if its external labels match
// one of its alternatives; the label __address__ stands for the name of the endpoint.
//
// All of Hearth's own endpoints are asked, whatever their Info says of times and tenants, since blocks and series move
// between them faster than they are polled. A foreign store is left out if its Info or its external labels exclude what
// r asks for. Nothing is known of an endpoint that has never answered, so only its name can exclude it.
func choose(endpoints []*endpoint, r *series.Request, storeMatch [][]*labels.Matcher) plan {
	var p plan
	seen := map[[2]string]int{} // instance and role -> position in eligible
	var eligible []*endpoint
	for _, m := range endpoints {
		if !matchesStore(m, storeMatch) || m.info.Instance == "" && m.heard && !mayHold(m.latest(), r) {
			continue
		}
		if m.info.Instance != "" {
			key := [2]string{m.info.Instance, m.info.Role}
			if at, found := seen[key]; found {
				if better(m, eligible[at]) {
					eligible[at] = m
				}
				continue
			}
			seen[key] = len(eligible)
		}
		eligible = append(eligible, m)
	}
	buckets := map[string]int{} // bucket -> position in p.groups
	for _, m := range eligible {
		if m.down() != nil {
			p.down = append(p.down, m)
			continue
		}
		if held := m.info.Blocks; held.Whole && held.Bucket != "" {
			if at, found := buckets[held.Bucket]; found {
				p.groups[at] = append(p.groups[at], m)
				continue
			}
			buckets[held.Bucket] = len(p.groups)
		}
		p.groups = append(p.groups, group{m})
	}
	for _, g := range p.groups {
		prefer(g, r.Tenant)
	}
	return p
}

// better reports whether a is to be asked instead of b, which is the same process under another name.
func better(a, b *endpoint) bool {
	if up := a.down() == nil; up != (b.down() == nil) {
		return up
	}
	return a.Local && !b.Local
}

// prefer orders a group: local endpoints first, then an order by tenant, so that a tenant's queries find its index in
// the cache of the gateway that they asked before.
func prefer(g group, id tenant.ID) {
	if len(g) < 2 {
		return
	}
	at := int(maphash.String(seed, string(id)) % uint64(len(g)))
	rotated := slices.Concat(g[at:], g[:at])
	copy(g, rotated)
	slices.SortStableFunc(g, func(a, b *endpoint) int {
		switch {
		case a.Local == b.Local:
			return 0
		case a.Local:
			return -1
		}
		return 1
	})
}

// mayHold reports whether a foreign store that says info can hold what r asks for.
func mayHold(info series.Info, r *series.Request) bool {
	if !info.Covers(r.Tenant, r.MinTime, r.MaxTime) {
		return false
	}
	matches := func(ext labels.Labels) bool { return mayMatch(ext, r.Matchers) }
	return len(info.Labels) == 0 || slices.ContainsFunc(info.Labels, matches)
}

// mayMatch reports whether series of a stream with external labels ext can match ms. Labels that ext lacks may be in
// the series.
func mayMatch(ext labels.Labels, ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return ext.Has(m.Name) && !m.Matches(ext.Get(m.Name)) })
}

const addressLabel = "__address__"

// matchesStore reports whether one alternative of storeMatch allows to ask m.
func matchesStore(m *endpoint, storeMatch [][]*labels.Matcher) bool {
	if len(storeMatch) == 0 {
		return true
	}
	sets := m.info.Labels
	if !m.heard {
		storeMatch = onAddress(storeMatch)
	}
	if len(sets) == 0 {
		sets = []labels.Labels{labels.EmptyLabels()}
	}
	for _, ms := range storeMatch {
		for _, set := range sets {
			excludes := func(ma *labels.Matcher) bool {
				if ma.Name == addressLabel {
					return !ma.Matches(m.Name)
				}
				return !ma.Matches(set.Get(ma.Name))
			}
			if !slices.ContainsFunc(ms, excludes) {
				return true
			}
		}
	}
	return false
}

// onAddress is storeMatch with only the matchers on the address, for an endpoint whose labels are not known.
func onAddress(storeMatch [][]*labels.Matcher) [][]*labels.Matcher {
	out := make([][]*labels.Matcher, len(storeMatch))
	for i, ms := range storeMatch {
		out[i] = slices.DeleteFunc(slices.Clone(ms), func(m *labels.Matcher) bool { return m.Name != addressLabel })
	}
	return out
}
