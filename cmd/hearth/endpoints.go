package main

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/query"
	"github.com/hearth-metrics/hearth/query/endpoints"
	"github.com/hearth-metrics/hearth/ring"
)

// endpointFlags name StoreAPIs by address.
type endpointFlags struct {
	addresses   []string
	dnsInterval time.Duration
	oldNames    map[string]*moreAddresses
	tenants     map[string]tenant.ID // of Thanos sidecars, by what --endpoint names
	localRules  []query.RulePeer     // of this process; the role sets them
}

func (f *endpointFlags) bind(c *kingpin.CmdClause) {
	f.dnsInterval = 30 * time.Second
	c.Flag("endpoint", "host:port of a StoreAPI to query: Hearth's or Thanos's; also dns+name:port, dnssrv+name. May "+
		"be given several times. Members seen by gossip need not be named.").
		SetValue(addressList{&f.addresses, endpointAddress})
	f.tenants = map[string]tenant.ID{}
	c.Flag("endpoint.sidecar-tenant", "ENDPOINT=TENANT: whose the series of the Thanos sidecars are that --endpoint "+
		"names so, or of the one at the address host:port behind a name. Without it they are "+string(tenant.Default)+
		"'s, whatever their labels say. May be given several times.").
		SetValue(addressTenants{f.tenants})
	f.oldNames = map[string]*moreAddresses{}
	for _, name := range []string{"store", "store-strict", "rule", "target", "metadata", "exemplar", "endpoint-strict",
		"endpoint-group", "endpoint-group-strict"} {
		f.oldNames[name] = &moreAddresses{to: &f.addresses, group: strings.HasPrefix(name, "endpoint-group")}
		c.Flag(name, "Another name of --endpoint.").Hidden().NoEnvar().SetValue(f.oldNames[name])
	}
	durationFlag(c, "store.sd-dns-interval", "How often names in --endpoint are resolved again.", &f.dnsInterval)
}

// addressTenants is a repeatable flag value: an address and a tenant.
type addressTenants struct{ to map[string]tenant.ID }

// Set adds a pair.
func (a addressTenants) Set(s string) error {
	address, name, _ := strings.Cut(s, "=")
	if err := endpointAddress(address); err != nil || address == "" {
		return fmt.Errorf("%q: want host:port=TENANT, dns+name:port=TENANT or dnssrv+name=TENANT", s)
	}
	id, err := tenant.Parse(name)
	if err != nil {
		return err
	}
	if was, ok := a.to[address]; ok && was != id {
		return fmt.Errorf("%s has two tenants, %s and %s", address, was, id)
	}
	a.to[address] = id
	return nil
}

// String is all pairs.
func (a addressTenants) String() string {
	var all []string
	for _, address := range slices.Sorted(maps.Keys(a.to)) {
		all = append(all, address+"="+string(a.to[address]))
	}
	return strings.Join(all, ",")
}

// IsCumulative lets the flag be given several times.
func (a addressTenants) IsCumulative() bool { return true }

// warnNames says in one line which other names of --endpoint were used.
func (f *endpointFlags) warnNames(log *slog.Logger) {
	var used []string
	for _, name := range slices.Sorted(maps.Keys(f.oldNames)) {
		if len(f.oldNames[name].given) > 0 {
			used = append(used, "--"+name)
		}
	}
	if len(used) > 0 {
		log.Warn("flags of Thanos are taken as --endpoint: every address is asked, and stays listed while it does not "+
			"answer", "flags", strings.Join(used, ", "))
	}
}

// moreAddresses is the value of a flag that Thanos has or had beside --endpoint.
type moreAddresses struct {
	to    *[]string
	group bool // a name stands for all of its addresses
	given []string
}

// Set checks and adds an address. An empty one is none, since charts leave the flag so.
func (m *moreAddresses) Set(s string) error {
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	given := s
	if m.group && !strings.Contains(s, "+") {
		s = "dns+" + s
	}
	if err := endpointAddress(s); err != nil {
		return err
	}
	m.given = append(m.given, given)
	*m.to = append(*m.to, s)
	return nil
}

// String is the addresses that this flag was given.
func (m *moreAddresses) String() string { return strings.Join(m.given, ",") }

// IsCumulative lets the flag be given several times.
func (m *moreAddresses) IsCumulative() bool { return true }

// build makes the list of whom to ask: local, the sources of this process, then the members that gossip knows, then the
// StoreAPIs that the flags name. The querier adds it.
func (f *endpointFlags) build(b *builder, c *cluster, peers *clients, local ...query.Endpoint) *endpoints.Endpoints {
	f.warnNames(b.log)
	b.check(f.checkTenants())
	all := endpoints.New(b.log, b.reg, endpoints.Options{
		Local: local, Members: c.others, Rulers: c.rulers, LocalRules: f.localRules, Addresses: f.addresses,
		Interval: f.dnsInterval, Dial: peers.source,
	})
	peers.sidecarTenant = func(addr string) tenant.ID { return sidecarTenant(f.tenants, addr, all.Behind) }
	return all
}

// checkTenants is the error of a name with a tenant that no endpoint has. Its series would be another tenant's.
func (f *endpointFlags) checkTenants() error {
	for _, name := range slices.Sorted(maps.Keys(f.tenants)) {
		if strings.Contains(name, "+") && !slices.Contains(f.addresses, name) {
			return fmt.Errorf("--endpoint.sidecar-tenant: %s is not an --endpoint", name)
		}
	}
	return nil
}

// sidecarTenant is whose the series of a Thanos sidecar at addr are; "" = nobody says so. The address itself counts
// before the names that stand for it, and these in alphabetical order. behind gives the addresses behind a name.
func sidecarTenant(tenants map[string]tenant.ID, addr string, behind func(name string) []string) tenant.ID {
	if id, ok := tenants[addr]; ok {
		return id
	}
	for _, name := range slices.Sorted(maps.Keys(tenants)) {
		if slices.Contains(behind(name), addr) {
			return tenants[name]
		}
	}
	return ""
}

// rulers are the other members with rules that gossip knows at the moment. Those that are down or stopping are left out
// while another one is there: it has their groups, or is about to take them.
func (c *cluster) rulers() (all []endpoints.Member) {
	members := c.members(series.RoleRule)
	active := slices.ContainsFunc(members, func(m ring.Status) bool { return m.State == ring.Active })
	for _, m := range members {
		if gone := m.State == ring.Down || m.State == ring.Leaving; m.ID != c.self.ID && !(gone && active) {
			all = append(all, endpoints.Member{Instance: m.ID, Role: series.RoleRule, Addr: m.Addr})
		}
	}
	return all
}

// others are the other members with data that gossip knows at the moment.
func (c *cluster) others() []endpoints.Member {
	var all []endpoints.Member
	for _, role := range []string{series.RoleReceive, series.RoleStore} {
		for _, m := range c.members(role) {
			if m.ID != c.self.ID {
				all = append(all, endpoints.Member{Instance: m.ID, Role: role, Addr: m.Addr, Bucket: m.Bucket,
					Contents: series.ContentsOf(m.Contents)})
			}
		}
	}
	return onOneBucket(all)
}

// onOneBucket gives the members whose bucket is not known yet that of the others: gossip may bring the name of a
// process before the rest, and processes with different buckets do not work in one cluster.
func onOneBucket(all []endpoints.Member) []endpoints.Member {
	known := slices.IndexFunc(all, func(m endpoints.Member) bool { return m.Bucket != "" })
	for i := range all {
		if known >= 0 && all[i].Bucket == "" {
			all[i].Bucket = all[known].Bucket
		}
	}
	return all
}
