package query

import (
	"cmp"
	"hash/maphash"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// group is endpoints of which only one needs to answer, in the order in which they are to be asked. Most groups have
// one endpoint.
type group struct {
	endpoints []*endpoint
	// blocks is what a store gateway is asked for. With Primary it is for the first endpoint only: the others are asked
	// for what that one said that it serves.
	blocks series.BlockRequest
}

// bucket is the bucket of a group of store gateways, "" for all other endpoints.
func (g *group) bucket() string { return g.endpoints[0].info.Blocks.Bucket }

// bucketPlan is what is known of a bucket before its gateways are asked.
type bucketPlan struct {
	view     series.View       // the newest that any of its gateways is known to have
	gateways []*endpoint       // those that serve a part of it and may be asked
	contents []series.Contents // what its gateways found in it, if it has no id
}

// plan is which endpoints a selection asks.
type plan struct {
	groups []*group
	// buckets are those of the endpoints, by id.
	buckets map[string]*bucketPlan
	// part says that the request names the endpoints to ask, so that no others are asked for what these lack.
	part bool
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
	p := plan{buckets: map[string]*bucketPlan{}, part: len(storeMatch) > 0}
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
	for _, m := range eligible {
		p.note(m)
	}
	whole := map[string]*group{} // by bucket
	for _, m := range eligible {
		held := m.info.Blocks
		switch {
		case m.down() != nil:
			p.down = append(p.down, m)
		case held.Whole && whole[held.Bucket] != nil:
			whole[held.Bucket].endpoints = append(whole[held.Bucket].endpoints, m)
		default:
			p.add(m)
			if held.Whole && held.Bucket != "" {
				whole[held.Bucket] = p.groups[len(p.groups)-1]
			}
		}
	}
	var groups []*group
	for _, g := range p.groups {
		if !g.blocks.Primary {
			prefer(g.endpoints, r.Tenant)
		}
		if len(g.endpoints) > 1 && g.endpoints[0].info.Blocks.Contents != "" && !g.blocks.Primary {
			groups = append(groups, divide(g)...)
		} else {
			groups = append(groups, g)
		}
	}
	p.groups = groups
	return p
}

// note takes up what m says of its bucket.
func (p *plan) note(m *endpoint) {
	held := m.info.Blocks
	if held.Bucket == "" {
		return
	}
	if p.buckets[held.Bucket] == nil {
		p.buckets[held.Bucket] = new(bucketPlan)
	}
	b := p.buckets[held.Bucket]
	if held.Contents != "" {
		b.contents = append(b.contents, held.Contents)
	}
	if cmp.Or(cmp.Compare(held.View.Number, b.view.Number), cmp.Compare(held.View.Hash, b.view.Hash)) > 0 {
		b.view = held.View
	}
	if m.down() == nil {
		p.join(m)
	}
}

// join makes m one of the gateways that may be asked for blocks of their bucket, if it is one.
func (p *plan) join(m *endpoint) {
	if b := p.buckets[m.info.Blocks.Bucket]; b != nil && !m.info.Blocks.Whole {
		b.gateways = append(b.gateways, m)
	}
}

// add adds a group for m. All gateways of a bucket that serve a part of it are asked, each for the blocks of which it
// is the first owner. So each block is read once. If one of them fails in the midst of its response, another one goes
// on.
func (p *plan) add(m *endpoint) {
	g := &group{endpoints: []*endpoint{m}}
	if b := p.buckets[m.info.Blocks.Bucket]; b != nil {
		g.blocks.View = b.view
		if g.blocks.Primary = !m.info.Blocks.Whole && !p.part; g.blocks.Primary {
			g.endpoints = startingWith(m, b.gateways)
		}
	}
	p.groups = append(p.groups, g)
}

// attempts is how many gateways are asked for a block.
const attempts = 3

// startingWith is m and the gateways that follow it in all, up to attempts.
func startingWith(m *endpoint, all []*endpoint) []*endpoint {
	out := []*endpoint{m}
	at := slices.Index(all, m)
	for i := 1; i <= len(all) && len(out) < attempts; i++ {
		if next := all[(at+i)%len(all)]; next != m {
			out = append(out, next)
		}
	}
	return out
}

// better reports whether a is to be asked instead of b, which is the same process under another name.
func better(a, b *endpoint) bool {
	if up := a.down() == nil; up != (b.down() == nil) {
		return up
	}
	return a.Local && !b.Local
}

// prefer orders endpoints that hold the same: local endpoints first, then an order by tenant, so that a tenant's
// queries find its index in the cache of the gateway that they asked before.
func prefer(g []*endpoint, id tenant.ID) {
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
