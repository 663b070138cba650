package rpc

import (
	"slices"

	"github.com/grafana/regexp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// What a Thanos store is asked differs from what a Hearth process is asked: tenant and replica are labels there, and a
// sidecar passes selectors on to a Prometheus, which refuses those that select everything.

// peerOf is what an Info says of the other side.
func (c *Client) peerOf(in *infopb.InfoResponse) *peer {
	p := &peer{
		hearth: in.Hearth != nil, without: in.Store.GetSupportsWithoutReplicaLabels(),
		exemplars: in.Exemplars != nil, metadata: in.MetricMetadata != nil, external: labelSets(in), names: map[string]bool{},
	}
	for _, set := range p.external {
		set.Range(func(l labels.Label) { p.names[l.Name] = true })
	}
	// The label set of these is one Prometheus's or one ruler's, and does not grow while they run: without a tenant label
	// all is the default tenant's. Other processes may get streams of other tenants at any time.
	alone := in.ComponentType == "sidecar" || in.ComponentType == "rule"
	p.single = alone && len(p.external) < 2 && !p.labels(c.opts.TenantLabel)
	return p
}

// labels reports whether a stream of the peer has the external label.
func (p *peer) labels(name string) bool { return p.names[name] }

// anyName is for those who refuse to select everything.
var anyName = labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".+")

// matchersFor are the matchers to send: for a Thanos store the tenant is one more label.
func (c *Client) matchersFor(p *peer, id tenant.ID, ms []*labels.Matcher) []*labels.Matcher {
	if p.hearth {
		return ms
	}
	ms = slices.Clip(ms)
	switch {
	case id != tenant.Default:
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, c.opts.TenantLabel, string(id)))
	case !p.single: // also the series without a tenant label are this tenant's
		ms = append(ms, labels.MustNewMatcher(labels.MatchRegexp, c.opts.TenantLabel, "|"+regexp.QuoteMeta(string(id))))
	}
	selects := func(m *labels.Matcher) bool {
		return !m.Matches("") && !p.labels(m.Name) && m.Name != c.opts.TenantLabel
	}
	if len(ms) > 0 && !slices.ContainsFunc(ms, selects) {
		ms = append(ms, anyName)
	}
	return ms
}

// withoutFor are the labels to drop: of a Thanos store also tenant and replica, which are attributes here.
func (c *Client) withoutFor(p *peer, without []string) []string {
	if p.hearth {
		return without
	}
	return append(slices.Clip(without), c.attributes(p)...)
}

// attributes are the labels of the peer's series that are attributes here. A Prometheus's own label of such a name is
// just a label.
func (c *Client) attributes(p *peer) []string {
	names := []string{c.opts.TenantLabel, c.opts.ReplicaLabel}
	if p.single {
		names = slices.DeleteFunc(names, func(name string) bool { return !p.labels(name) })
	}
	return names
}

// exemplarSelector are the matchers to send for exemplars, false when nothing of the peer can match: behind a sidecar
// nobody knows the external labels.
func (c *Client) exemplarSelector(p *peer, id tenant.ID, ms []*labels.Matcher) ([]*labels.Matcher, bool) {
	if !p.single {
		return c.matchersFor(p, id, ms), true
	}
	if len(p.external) == 1 {
		var ok bool
		if ms, ok = series.Resolve(ms, p.external[0]); !ok {
			return nil, false
		}
	}
	if len(ms) == 0 {
		ms = []*labels.Matcher{anyName}
	}
	return c.matchersFor(p, id, ms), true
}
