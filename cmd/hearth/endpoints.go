package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/query"
	"github.com/hearth-metrics/hearth/ring/gossip"
)

// endpointFlags name StoreAPIs by address.
type endpointFlags struct {
	addresses   []string
	dnsInterval time.Duration
	oldNames    map[string]*moreAddresses
}

func (f *endpointFlags) bind(c *kingpin.CmdClause) {
	f.dnsInterval = 30 * time.Second
	c.Flag("endpoint", "host:port of a StoreAPI to query: Hearth's or Thanos's; also dns+name:port, dnssrv+name. May "+
		"be given several times. Members seen by gossip need not be named.").
		SetValue(addressList{&f.addresses, endpointAddress})
	f.oldNames = map[string]*moreAddresses{}
	for _, name := range []string{"store", "store-strict", "rule", "target", "metadata", "exemplar", "endpoint-strict",
		"endpoint-group", "endpoint-group-strict"} {
		f.oldNames[name] = &moreAddresses{to: &f.addresses, group: strings.HasPrefix(name, "endpoint-group")}
		c.Flag(name, "Another name of --endpoint.").Hidden().NoEnvar().SetValue(f.oldNames[name])
	}
	durationFlag(c, "store.sd-dns-interval", "How often names in --endpoint are resolved again.", &f.dnsInterval)
}

// warnNames says in one line which other names of --endpoint were used.
func (f *endpointFlags) warnNames(p *process) {
	var used []string
	for _, name := range slices.Sorted(maps.Keys(f.oldNames)) {
		if len(f.oldNames[name].given) > 0 {
			used = append(used, "--"+name)
		}
	}
	if len(used) > 0 {
		p.log.Warn("flags of Thanos are taken as --endpoint: every address is asked, and stays listed while it does not "+
			"answer", "flags", strings.Join(used, ", "))
	}
}

// moreAddresses is the value of a flag that Thanos has or had beside --endpoint.
type moreAddresses struct {
	to    *[]string
	group bool // a name stands for all of its addresses
	given []string
}

// Set adds an address; an empty one is none, as charts leave it.
func (m *moreAddresses) Set(s string) error {
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	m.given = append(m.given, s)
	if m.group && !strings.Contains(s, "+") {
		s = "dns+" + s
	}
	*m.to = append(*m.to, s)
	return nil
}

// String is the addresses that this flag was given.
func (m *moreAddresses) String() string { return strings.Join(m.given, ",") }

// IsCumulative lets the flag be given several times.
func (m *moreAddresses) IsCumulative() bool { return true }

// endpoints are all sources that a query may ask: this process's own, those seen by gossip, and the configured ones.
type endpoints struct {
	p       *process
	cluster *cluster
	clients *clients
	local   []query.Endpoint
	flags   *endpointFlags
	names   *names

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newEndpoints(p *process, c *cluster, clients *clients, f *endpointFlags) *endpoints {
	// --endpoint= is none
	f.addresses = slices.DeleteFunc(f.addresses, func(a string) bool { return strings.TrimSpace(a) == "" })
	reg := prometheus.WrapRegistererWithPrefix("hearth_query_endpoints_", p.reg)
	return &endpoints{p: p, cluster: c, clients: clients, flags: f, names: newNames(p.log, reg)}
}

// addLocal adds a source of this process.
func (e *endpoints) addLocal(name string, src series.Source) {
	e.local = append(e.local, query.Endpoint{Name: name, Source: src, Local: true})
}

func (e *endpoints) open(ctx context.Context, _ func(error)) error {
	run, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.names.resolve(ctx, e.flags.addresses)
	e.wg.Go(func() {
		tick := time.NewTicker(max(e.flags.dnsInterval, time.Second))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				e.names.resolve(run, e.flags.addresses)
			case <-run.Done():
				return
			}
		}
	})
	return nil
}

func (e *endpoints) close() error {
	e.cancel()
	e.wg.Wait()
	return nil
}

// ready reports that there is nobody to ask.
func (e *endpoints) ready() error {
	if known, unknown := e.split(); len(known) == 0 {
		for _, u := range unknown {
			if _, err := u.Source.Info(context.Background()); err != nil {
				return fmt.Errorf("nobody to ask is known: %s: %w", u.Name, err)
			}
		}
		return errors.New("nobody to ask is known: --endpoint and --gossip.join name some")
	}
	return nil
}

// list is the endpoints at the moment. A name without an address is one that does not answer: what is behind it is not
// known, and answers must say so.
func (e *endpoints) list() []query.Endpoint {
	known, unknown := e.split()
	return append(known, unknown...)
}

// split is the endpoints that have an address, and the names without one.
func (e *endpoints) split() (all, unknown []query.Endpoint) {
	all = append([]query.Endpoint(nil), e.local...)
	for _, role := range []string{gossip.RoleReceive, gossip.RoleStore} {
		for _, m := range e.cluster.members(role) {
			if m.ID != e.cluster.self.ID {
				all = e.remote(all, m.Addr, series.Info{Instance: m.ID, Role: role})
			}
		}
	}
	seen := map[string]bool{}
	for _, name := range e.flags.addresses {
		addresses, err := e.names.addresses(name)
		if err != nil && !seen[name] {
			unknown = append(unknown, query.Endpoint{Name: name, Source: series.Unanswered(err)})
			seen[name] = true
		}
		for _, addr := range addresses {
			if !seen[addr] {
				all = e.remote(all, addr, series.Info{})
				seen[addr] = true
			}
		}
	}
	return all, unknown
}

// remote adds the endpoint at addr. known is what gossip says of it: with a role, only that source of it is meant.
func (e *endpoints) remote(all []query.Endpoint, addr string, known series.Info) []query.Endpoint {
	client, err := e.clients.get(addr, known.Role)
	if err != nil {
		e.p.log.Error("endpoint", "address", addr, "err", err)
		return all
	}
	name := addr
	if known.Role != "" {
		name = known.Role + " " + known.Instance
	}
	return append(all, query.Endpoint{Name: name, Source: client, Known: known})
}
