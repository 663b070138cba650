package gossip

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/grafana/dskit/dns"
)

// locality is this process's address, and what is needed to recognise it among others.
type locality struct {
	endpoint
	ips []netip.Addr // of this machine
	dns *dns.Provider
}

// others resolves the members to join and leaves out this process itself. faults say which names did not resolve. If
// there are no faults and no addresses, this process is the only one to join.
func (l locality) others(ctx context.Context, join []string) (addrs, faults []string) {
	var dynamic, static []string
	for _, j := range join {
		if dns.IsDynamicNode(j) {
			dynamic = append(dynamic, j)
		} else {
			static = append(static, j)
		}
	}
	for _, d := range dynamic {
		if err := l.dns.Resolve(ctx, []string{d}); err != nil {
			faults = append(faults, d+": the name has no address: "+strings.Join(strings.Fields(err.Error()), " "))
		}
		static = append(static, l.dns.Addresses()...)
	}
	for _, s := range static {
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			host, port = strings.Trim(s, "[]"), defaultPort
		}
		ips, err := lookupAll(ctx, host)
		if err != nil {
			faults = append(faults, s+": the name has no address: "+err.Error())
			continue
		}
		for _, ip := range ips {
			addr := net.JoinHostPort(ip.String(), port)
			if !l.isSelf(ip, port, l.ips) && !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs, faults
}

// joined is the outcome of an attempt to join.
type joined struct {
	met, of int      // members that answered, and addresses
	refused int      // addresses at which nothing listens
	faults  []string // what is wrong with names and with members that did not answer
}

// nobody reports whether there is certainly no member to join at present: each machine says that nothing listens.
func (j joined) nobody() bool { return j.of > 0 && j.refused == j.of && len(j.faults) == j.refused }

// join tries once to reach every member to join, and exchanges the whole state with each that answers.
func (g *Gossip) join(ctx context.Context) (j joined) {
	if len(g.opts.Join) == 0 {
		return j
	}
	addrs, faults := g.local.others(ctx, g.opts.Join)
	j.of, j.faults = len(addrs), faults
	for _, a := range addrs {
		if ctx.Err() != nil {
			break
		}
		if n, err := g.store.JoinMembers([]string{a}); err != nil {
			j.faults = append(j.faults, reachFault(a, err))
			if refused(err) {
				j.refused++
			}
		} else {
			j.met += n
		}
	}
	switch {
	case j.met > 0:
		g.metrics.joins.WithLabelValues("reached").Inc()
		g.settled.Store(true)
	case len(j.faults) > 0:
		g.metrics.joins.WithLabelValues("failed").Inc()
	default: // all of Join is this process
		g.settled.Store(true)
	}
	return j
}

// joinWarnAfter is for how long no other member may be met before the log says so. Members that start together meet
// after a moment, and that is not worth a warning. If nothing listens at any address by then, nobody is waited for.
const joinWarnAfter = 5 * time.Second

// rejoin goes on joining until ctx ends: quickly until the first member was met, then every RejoinInterval, so that
// the halves of a cluster that was split or started apart find each other.
func (g *Gossip) rejoin(ctx context.Context, met bool) {
	if len(g.opts.Join) == 0 {
		return
	}
	start, quick, warned := time.Now(), 100*time.Millisecond, false
	for {
		wait := g.opts.RejoinInterval
		if !met {
			quick = min(2*quick, 2*time.Second)
			wait = min(wait, quick)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		var j joined
		g.safely("join", func() { j = g.join(ctx) })
		waited := time.Since(start)
		switch {
		case j.met > 0 && !met:
			met = true
			g.log.Info("met the first members", "members_met", j.met, "of", j.of)
			g.requestBeat()
		case ctx.Err() != nil:
			return
		case !g.settled.Load() && (waited > g.opts.JoinTimeout || waited > joinWarnAfter && j.nobody()):
			g.log.Warn("no member to join was reached: serving alone, and trying on", "join", g.opts.Join, "faults", j.faults)
			g.settled.Store(true)
		case !g.settled.Load() && waited > joinWarnAfter && !warned:
			warned = true
			g.log.Warn("no member to join is reached, trying on", "join", g.opts.Join, "faults", j.faults)
		}
	}
}
