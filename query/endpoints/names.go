package endpoints

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/grafana/dskit/dns"
	"github.com/grafana/dskit/dns/godns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/gokit"
)

// names looks up the addresses behind names such as dns+name:port, and remembers which names it could not look up.
type names struct {
	log      *slog.Logger
	resolver dns.Resolver

	mu    sync.Mutex // guards found
	found map[string]lookup

	lookups, failures prometheus.Counter
	results           *prometheus.GaugeVec // by name
}

// lookup is what is known of a name: the addresses of the last lookup that found some, and why the latest lookup
// failed.
type lookup struct {
	addresses []string
	err       error
}

// newNames registers its metrics in reg, under the names that dskit's provider has for them.
func newNames(log *slog.Logger, reg prometheus.Registerer) *names {
	f := promauto.With(reg)
	return &names{
		log: log, resolver: dns.NewResolver(&godns.Resolver{Resolver: net.DefaultResolver}, gokit.NewQuiet(log, "dns")),
		found:   map[string]lookup{},
		lookups: f.NewCounter(prometheus.CounterOpts{Name: "dns_lookups_total", Help: "Lookups of names."}),
		failures: f.NewCounter(prometheus.CounterOpts{Name: "dns_failures_total",
			Help: "Lookups of names that found nothing."}),
		results: f.NewGaugeVec(prometheus.GaugeOpts{Name: "dns_provider_results", Help: "Addresses known for each name."},
			[]string{"addr"}),
	}
}

// resolve looks all names up, concurrently. A name that cannot be looked up keeps its last addresses.
func (n *names) resolve(ctx context.Context, all []string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, name := range all {
		if kind, host := dns.GetQTypeName(name); kind != "" {
			wg.Go(func() { n.resolveOne(ctx, name, dns.QType(kind), host) })
		}
	}
	wg.Wait()
}

func (n *names) resolveOne(ctx context.Context, name string, kind dns.QType, host string) {
	n.lookups.Inc()
	addresses, err := n.resolver.Resolve(ctx, host, kind)
	if err == nil && len(addresses) == 0 {
		err = errs.E(errs.NotFound, "the name has no addresses")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.found[name]
	if err != nil {
		n.failures.Inc()
		addresses = was.addresses
	}
	if err != nil && was.err == nil {
		n.log.Warn("resolving --endpoint", "name", name, "err", err)
	}
	n.found[name] = lookup{addresses, err}
	n.results.WithLabelValues(name).Set(float64(len(addresses)))
}

// addresses are the known addresses of name. If name is itself an address, it is the only one. If there are none, err
// says why.
func (n *names) addresses(name string) (known []string, err error) {
	if kind, _ := dns.GetQTypeName(name); kind == "" {
		return []string{name}, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	l, ok := n.found[name]
	switch {
	case len(l.addresses) > 0:
		return l.addresses, nil
	case !ok:
		return nil, errs.E(errs.Unavailable, "its name was not looked up yet")
	}
	return nil, errs.E(errs.Unavailable, "its name cannot be resolved: %w", l.err)
}
