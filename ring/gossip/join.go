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

// locality is this process's address and what it takes to tell it from others'.
type locality struct {
	endpoint
	ips []netip.Addr // of this machine
	dns *dns.Provider
}

// others resolves the members to join and leaves this process itself out. faults say what did not resolve: without any,
// and with no address left, this process is all there is to join.
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

// join tries all members to join once, exchanging the whole state with each that answers. It returns how many did, how
// many there were to try, and what is wrong with those that did not.
func (g *Gossip) join(ctx context.Context) (met, of int, faults []string) {
	if len(g.opts.Join) == 0 {
		return 0, 0, nil
	}
	addrs, faults := g.local.others(ctx, g.opts.Join)
	for _, a := range addrs {
		if ctx.Err() != nil {
			break
		}
		if n, err := g.store.JoinMembers([]string{a}); err != nil {
			faults = append(faults, reachFault(a, err))
		} else {
			met += n
		}
	}
	switch {
	case met > 0:
		g.metrics.joins.WithLabelValues("reached").Inc()
		g.settled.Store(true)
	case len(faults) > 0:
		g.metrics.joins.WithLabelValues("failed").Inc()
	default: // all of Join is this process
		g.settled.Store(true)
	}
	return met, len(addrs), faults
}

// joinPatience is how long no other member may be met before the log says so: members that start together meet each other
// one after the other.
const joinWarnAfter = 5 * time.Second

// rejoin goes on joining: quickly until the first member was met, then from time to time, so that halves of a cluster
// that was split, or started apart, find each other.
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
		var n, of int
		var faults []string
		g.safely("join", func() { n, of, faults = g.join(ctx) })
		waited := time.Since(start)
		switch {
		case n > 0 && !met:
			met = true
			g.log.Info("met the first members", "members_met", n, "of", of)
			g.requestBeat()
		case ctx.Err() != nil:
			return
		case !g.settled.Load() && waited > g.opts.JoinTimeout:
			g.log.Warn("no member to join was reached: serving alone, and trying on", "join", g.opts.Join, "faults", faults)
			g.settled.Store(true)
		case !g.settled.Load() && waited > joinWarnAfter && !warned:
			warned = true
			g.log.Warn("no member to join is reached, trying on", "join", g.opts.Join, "faults", faults)
		}
	}
}
