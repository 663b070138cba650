package endpoints

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/query"
)

// Endpoints is the list of sources that a querier asks. It is safe for concurrent use.
type Endpoints struct {
	log   *slog.Logger
	opts  Options
	names *names

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// New makes an Endpoints. No name is looked up before Open. Its metrics begin with hearth_query_endpoints_.
func New(log *slog.Logger, reg prometheus.Registerer, opts Options) *Endpoints {
	if opts.Members == nil {
		opts.Members = func() []Member { return nil }
	}
	return &Endpoints{log: log, opts: opts,
		names: newNames(log, prometheus.WrapRegistererWithPrefix("hearth_query_endpoints_", reg))}
}

// Open looks all names up, and does so again every Options.Interval. A name that cannot be looked up is no error.
func (e *Endpoints) Open(ctx context.Context, _ func(error)) error {
	life, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.names.resolve(ctx, e.opts.Addresses)
	e.wg.Go(func() {
		tick := time.NewTicker(max(e.opts.Interval, time.Second))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				e.names.resolve(life, e.opts.Addresses)
			case <-life.Done():
				return
			}
		}
	})
	return nil
}

// Close stops looking names up.
func (e *Endpoints) Close() error {
	e.stop()
	e.wg.Wait()
	return nil
}

// Ready is nil if there is an endpoint to ask. Otherwise the error says why there is none.
func (e *Endpoints) Ready() error {
	known, unknown := e.split()
	if len(known) > 0 {
		return nil
	}
	for _, u := range unknown {
		if _, err := u.Source.Info(context.Background()); err != nil {
			return fmt.Errorf("nobody to ask is known: %s: %w", u.Name, err)
		}
	}
	return errors.New(query.NoEndpoints)
}

// List are the endpoints at the moment. The slice belongs to the caller.
func (e *Endpoints) List() []query.Endpoint {
	known, unknown := e.split()
	return append(known, unknown...)
}

// Behind are the addresses behind a name of Options.Addresses at the moment; an address is its own.
func (e *Endpoints) Behind(name string) []string {
	addresses, _ := e.names.addresses(name) // without any there is nothing to say
	return addresses
}

// Rules are those who may have rules at the moment: this process, the rulers that gossip knows, and all endpoints whose
// role is not known. These say themselves whether they have rules.
func (e *Endpoints) Rules() []query.RulePeer {
	peers := slices.Clone(e.opts.LocalRules)
	if e.opts.Rulers != nil {
		for _, m := range e.opts.Rulers() {
			source, err := e.opts.Dial(m.Addr, "")
			if rules, ok := source.(rulestate.Source); ok && err == nil {
				peers = append(peers, query.RulePeer{Name: m.Role + " " + m.Instance, Source: rules})
			}
		}
	}
	known, unknown := e.split()
	for _, k := range known {
		if rules, ok := k.Source.(rulestate.Source); ok && k.Known.Role == "" && !k.Local {
			peers = append(peers, query.RulePeer{Name: k.Name, Source: rules})
		}
	}
	for _, u := range unknown {
		peers = append(peers, query.RulePeer{Name: u.Name, Source: noAddress{u.Source}})
	}
	return peers
}

// noAddress stands for the rules of an endpoint that has no address.
type noAddress struct{ series.Source }

// Rules implements rulestate.Source. The error says why there is no address.
func (n noAddress) Rules(ctx context.Context, _ tenant.ID, _ rulestate.Query) ([]rulestate.Group, []string, error) {
	_, err := n.Info(ctx)
	return nil, nil, err
}

// split are the endpoints that have an address, and the names without one.
func (e *Endpoints) split() (known, unknown []query.Endpoint) {
	names := make([]resolved, len(e.opts.Addresses))
	for i, name := range e.opts.Addresses {
		names[i].name = name
		names[i].addresses, names[i].err = e.names.addresses(name)
	}
	found, unknown := targets(e.opts.Members(), names)
	known = slices.Clone(e.opts.Local)
	for _, t := range found {
		source, err := e.opts.Dial(t.addr, t.known.Role)
		if err != nil {
			e.log.Error("endpoint", "address", t.addr, "err", err)
			continue
		}
		known = append(known, query.Endpoint{Name: t.name, Source: source, Known: t.known})
	}
	return known, unknown
}
