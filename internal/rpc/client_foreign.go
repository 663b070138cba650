package rpc

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/grafana/regexp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// What a Thanos store is asked differs from what a Hearth process is asked: tenant and replica are labels there, and a
// sidecar passes selectors on to a Prometheus, which refuses those that select everything.
//
// In what it answers, a stream's external label and a series' own one look alike. Which it is, its Info tells: the label is
// external if one of the label sets there has that value of it, and agrees with the series. docs/design/019 says more.

// peerOf is what an Info says of the other side.
func (c *Client) peerOf(in *infopb.InfoResponse) *peer {
	p := &peer{
		hearth: in.Hearth != nil, without: in.Store.GetSupportsWithoutReplicaLabels(),
		exemplars: in.Exemplars != nil, metadata: in.MetricMetadata != nil, external: labelSets(in), names: map[string]bool{},
		tenants: announced{name: c.opts.TenantLabel}, replicas: announced{name: c.opts.ReplicaLabel},
	}
	if p.hearth {
		return p
	}
	for _, set := range p.external {
		set.Range(func(l labels.Label) { p.names[l.Name] = true })
		p.tenants.add(set)
		p.replicas.add(set)
	}
	// The label set of these is one Prometheus's or one ruler's, and does not grow while they run. Other processes may get
	// streams of other tenants at any time.
	p.single = (in.ComponentType == series.RoleSidecar || in.ComponentType == series.RoleRule) && len(p.external) < 2
	return p
}

// announced are the label sets of a peer that have one label, by its value, and how many have it.
type announced struct {
	name    string
	sets    map[string][]labels.Labels
	with    int
	without int
}

func (a *announced) add(set labels.Labels) {
	if !set.Has(a.name) {
		a.without++
		return
	}
	if a.with++; a.sets == nil {
		a.sets = map[string][]labels.Labels{}
	}
	value := set.Get(a.name)
	a.sets[value] = append(a.sets[value], set)
}

// alike reports whether a and b lead to the same question: the same tenants, and all streams or only some have the label.
func (a *announced) alike(b *announced) bool {
	same := maps.EqualFunc(a.sets, b.sets, func(_, _ []labels.Labels) bool { return true })
	return same && a.mixed() == b.mixed()
}

// everywhere reports that all streams have the label, so that no series can have one of its own.
func (a *announced) everywhere() bool { return a.with > 0 && a.without == 0 }

// mixed reports that some streams have the label and others do not.
func (a *announced) mixed() bool { return a.with > 0 && a.without > 0 }

// isExternal reports whether the label is the stream's and not the series' own. It is neither when it is not there. Other
// labels of a set may have been taken off the series already.
func (a *announced) isExternal(series labels.Labels) bool {
	value := series.Get(a.name)
	return value != "" && slices.ContainsFunc(a.sets[value], func(set labels.Labels) bool {
		within := true
		set.Range(func(l labels.Label) {
			if v := series.Get(l.Name); v != "" && v != l.Value {
				within = false
			}
		})
		return within
	})
}

// labels reports whether a stream of the peer has the external label.
func (p *peer) labels(name string) bool { return p.names[name] }

// anyName is for those who refuse to select everything.
var anyName = labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".+")

// maxDenied bounds the matcher that leaves out the streams of other tenants, in bytes.
const maxDenied = 16 << 10

// matchersFor are the matchers to send: for a Thanos store the tenant is one more label. A matcher that is not needed is not
// sent, since a store answers questions for label values without matchers from memory.
func (c *Client) matchersFor(p *peer, id tenant.ID, ms []*labels.Matcher) []*labels.Matcher {
	if p.hearth {
		return ms
	}
	ms = slices.Clip(ms)
	switch {
	case id != tenant.Default:
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, c.opts.TenantLabel, string(id)))
	case p.tenants.with == 0: // all there is are series of the default tenant
	default:
		ms = append(ms, c.notOthers(p))
	}
	selects := func(m *labels.Matcher) bool {
		return !m.Matches("") && !p.labels(m.Name) && m.Name != c.opts.TenantLabel
	}
	if len(ms) > 0 && !slices.ContainsFunc(ms, selects) {
		ms = append(ms, anyName)
	}
	return ms
}

// notOthers selects the default tenant's series: those of streams with its name, and of streams without any, which may have
// a label of that name of their own. Where too many tenants would have to be named it selects none of the latter.
func (c *Client) notOthers(p *peer) *labels.Matcher {
	if p.tenants.mixed() {
		var others []string
		size := 0
		for value := range p.tenants.sets {
			if value != string(tenant.Default) {
				others = append(others, regexp.QuoteMeta(value))
				size += len(value) + 1
			}
		}
		if slices.Sort(others); size <= maxDenied {
			return labels.MustNewMatcher(labels.MatchNotRegexp, c.opts.TenantLabel, strings.Join(others, "|"))
		}
	}
	return labels.MustNewMatcher(labels.MatchRegexp, c.opts.TenantLabel, "|"+regexp.QuoteMeta(string(tenant.Default)))
}

// withoutFor are the labels that the peer is asked to drop: of a Thanos store also those of tenant and replica that all its
// streams have, which are attributes here.
func (c *Client) withoutFor(p *peer, without []string) []string {
	if p.hearth {
		return without
	}
	return append(slices.Clip(without), p.attributes((*announced).everywhere)...)
}

// attributes are the labels of tenant and replica for which is is true.
func (p *peer) attributes(is func(*announced) bool) (names []string) {
	for _, a := range []*announced{&p.tenants, &p.replicas} {
		if is(a) {
			names = append(names, a.name)
		}
	}
	return names
}

// strip takes off the labels of tenant and replica that are the stream's and not the series' own.
func (p *peer) strip(b *labels.Builder, series labels.Labels) labels.Labels {
	b.Reset(series)
	for _, a := range []*announced{&p.tenants, &p.replicas} {
		if a.isExternal(series) {
			b.Del(a.name)
		}
	}
	return b.Labels()
}

// foreign reports whether a series is of a stream of another tenant than the one that was asked for.
func (p *peer) foreign(id tenant.ID, series labels.Labels) bool {
	return p.tenants.isExternal(series) && series.Get(p.tenants.name) != string(id)
}

// current is what is known of the peer once an answer has come that was asked for by what was known before, was. A stream of
// another tenant that came meanwhile was announced before its first series was sent.
func (c *Client) current(ctx context.Context, was *peer) (*peer, error) {
	if was.hearth || was.single || was.tenants.everywhere() {
		return was, nil
	}
	if _, err := c.Info(ctx); err != nil {
		return nil, err
	}
	return c.peer.Load(), nil
}

// ask calls f, which asks for labels by what is known of the peer, until nothing else is known when it has been answered.
func (c *Client) withKnownStreams(ctx context.Context, f func(*peer) error) error {
	p, err := c.known(ctx)
	for range 3 {
		if err != nil {
			return err
		}
		if err := f(p); err != nil {
			return err
		}
		was := p
		if p, err = c.current(ctx, was); err == nil && p.tenants.alike(&was.tenants) {
			return nil
		}
	}
	if err == nil {
		err = errs.E(errs.Unavailable, "%s: its streams change all the time", c.addr)
	}
	return err
}

// exemplarSelector are the matchers to send for exemplars, false when nothing of the peer can match: behind a sidecar
// nobody knows the external labels.
func (c *Client) exemplarSelector(p *peer, id tenant.ID, ms []*labels.Matcher) ([]*labels.Matcher, bool) {
	if !p.single || p.tenants.with > 0 {
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
