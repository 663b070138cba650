package rpc

import (
	"cmp"
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

// Requests to a Thanos store differ from requests to a Hearth process. Tenant and replica are labels there. A sidecar
// passes selectors on to a Prometheus, which refuses those that select everything.
//
// In the responses of a Thanos store, a stream's external label and a label of the series itself look alike. The
// store's Info tells them apart: the label is external if one of the label sets there has it with the same value, and
// agrees with the other labels of the series. docs/design/019 says more.

// peerOf reads an Info of the peer.
func (c *Client) peerOf(in *infopb.InfoResponse) *peer {
	p := &peer{
		hearth: in.Hearth != nil, without: in.Store.GetSupportsWithoutReplicaLabels(),
		exemplars: in.Exemplars != nil, metadata: in.MetricMetadata != nil, rules: in.Rules != nil,
		external: labelSets(in), names: map[string]bool{},
		tenants: announced{name: c.opts.TenantLabel}, replicas: announced{name: c.opts.ReplicaLabel},
	}
	if p.hearth {
		return p
	}
	p.owner = c.opts.ownerOf(in)
	for _, set := range p.external {
		set.Range(func(l labels.Label) { p.names[l.Name] = true })
		if p.owner == "" {
			p.tenants.add(set)
			p.replicas.add(set)
		}
	}
	// The label set of a sidecar or ruler is that of one Prometheus or ruler, and does not change while it runs. Other
	// processes may get streams of other tenants at any time.
	p.single = (in.ComponentType == series.RoleSidecar || in.ComponentType == series.RoleRule) && len(p.external) < 2
	return p
}

// ownerOf returns the tenant of all series of a Thanos process that stands for one Prometheus. The owner of that
// Prometheus chooses its external labels, so none of them may name a tenant. For other processes it returns "": their
// labels of tenants are those of Thanos's receivers.
func (o *ClientOptions) ownerOf(in *infopb.InfoResponse) tenant.ID {
	if in.ComponentType != series.RoleSidecar {
		return ""
	}
	return cmp.Or(o.SidecarTenant, tenant.Default)
}

// announced holds the label sets of a peer that have the label name, by its value. with and without count the label
// sets that have the label and those that do not.
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

// alike reports whether a and b lead to the same request: the label has the same values, and in both cases all streams
// have it or only some do.
func (a *announced) alike(b *announced) bool {
	same := maps.EqualFunc(a.sets, b.sets, func(_, _ []labels.Labels) bool { return true })
	return same && a.mixed() == b.mixed()
}

// everywhere reports whether all streams have the label. No series can have a label of its own with that name then.
func (a *announced) everywhere() bool { return a.with > 0 && a.without == 0 }

// mixed reports whether some streams have the label and others do not.
func (a *announced) mixed() bool { return a.with > 0 && a.without > 0 }

// isExternal reports whether the label of the series is an external label of its stream. It is false when the series
// does not have the label. Labels that the series lacks are not compared: the peer may have dropped them.
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

// labels reports whether a stream of the peer has an external label of that name.
func (p *peer) labels(name string) bool { return p.names[name] }

// anyName matches all series. It is sent to stores that refuse selectors without a matcher that excludes something.
var anyName = labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".+")

// maxDenied bounds the matcher that excludes the streams of other tenants, in bytes.
const maxDenied = 16 << 10

// matchersFor returns the matchers to send. For a Thanos store the tenant is one more label. No matcher is sent without
// need, since a store serves label values without matchers from memory.
func (c *Client) matchersFor(p *peer, id tenant.ID, ms []*labels.Matcher) []*labels.Matcher {
	if p.hearth {
		return ms
	}
	ms = slices.Clip(ms)
	switch {
	case p.owner == id:
	case p.owner != "": // no series has a metric name and none
		return []*labels.Matcher{anyName, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, "")}
	case id != tenant.Default:
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, c.opts.TenantLabel, string(id)))
	case p.tenants.with == 0: // the peer has series of the default tenant only
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

// notOthers selects the series of the default tenant: those of streams that name it, and those of streams without a
// tenant label. Series of the latter may have a label of their own with the name of the tenant label. notOthers
// selects these too, unless it would have to name too many other tenants.
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

// withoutFor returns the labels that the peer shall drop. A Thanos store shall also drop the labels of tenant and
// replica if all its streams have them: Hearth does not keep these as labels of series.
func (c *Client) withoutFor(p *peer, without []string) []string {
	if p.hearth {
		return without
	}
	return append(slices.Clip(without), p.attributes((*announced).everywhere)...)
}

// attributes returns the names of the labels of tenant and replica for which is returns true.
func (p *peer) attributes(is func(*announced) bool) (names []string) {
	for _, a := range []*announced{&p.tenants, &p.replicas} {
		if is(a) {
			names = append(names, a.name)
		}
	}
	return names
}

// strip removes the labels of tenant and replica that are external labels of the stream.
func (p *peer) strip(b *labels.Builder, series labels.Labels) labels.Labels {
	b.Reset(series)
	for _, a := range []*announced{&p.tenants, &p.replicas} {
		if a.isExternal(series) {
			b.Del(a.name)
		}
	}
	return b.Labels()
}

// foreign reports whether the series is of a stream of another tenant than id.
func (p *peer) foreign(id tenant.ID, series labels.Labels) bool {
	return p.tenants.isExternal(series) && series.Get(p.tenants.name) != string(id)
}

// current returns what the client knows about the peer after a response to a request that was made by was. It calls
// Info again when the peer may have got streams meanwhile: a Thanos store announces the stream of another tenant
// before it sends a series of it, so that this Info names every stream in the response.
func (c *Client) current(ctx context.Context, was *peer) (*peer, error) {
	if was.hearth || was.single || was.tenants.everywhere() {
		return was, nil
	}
	if _, err := c.Info(ctx); err != nil {
		return nil, err
	}
	return c.peer.Load(), nil
}

// withKnownStreams calls f, which makes a request for labels by what the client knows about the peer. It calls f
// again, at most twice, when the streams of the peer have changed by the time of the response.
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

// exemplarSelector returns the matchers to send for exemplars. It returns false when nothing of the peer can match.
// The matchers of external labels are resolved here for a sidecar, since the Prometheus behind it does not know these
// labels.
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
