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

// others resolves the members to join and leaves this process itself out. complete reports that nothing failed to
// resolve: with no address left, this process is all there is to join.
func (l locality) others(ctx context.Context, join []string) (addrs []string, complete bool) {
	complete = true
	var dynamic, static []string
	for _, j := range join {
		if dns.IsDynamicNode(j) {
			dynamic = append(dynamic, j)
		} else {
			static = append(static, j)
		}
	}
	if len(dynamic) > 0 {
		complete = l.dns.Resolve(ctx, dynamic) == nil
		static = append(static, l.dns.Addresses()...)
	}
	for _, s := range static {
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			host, port = strings.Trim(s, "[]"), defaultPort
		}
		ips, err := lookupAll(ctx, host)
		if err != nil {
			complete = false
			continue
		}
		for _, ip := range ips {
			addr := net.JoinHostPort(ip.String(), port)
			if !l.isSelf(ip, port, l.ips) && !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs, complete
}

// join tries all members to join once, exchanging the whole state with each that answers. It returns how many did, and
// how many there were to try.
func (g *Gossip) join(ctx context.Context) (met, of int) {
	if len(g.opts.Join) == 0 {
		return 0, 0
	}
	addrs, complete := g.local.others(ctx, g.opts.Join)
	for _, a := range addrs {
		if ctx.Err() != nil {
			break
		}
		if n, err := g.store.JoinMembers([]string{a}); err != nil {
			g.log.Debug("member to join did not answer", "address", a, "err", err)
		} else {
			met += n
		}
	}
	switch {
	case met > 0:
		g.metrics.joins.WithLabelValues("reached").Inc()
		g.settled.Store(true)
	case len(addrs) > 0 || !complete:
		g.metrics.joins.WithLabelValues("failed").Inc()
	default: // all of Join is this process
		g.settled.Store(true)
	}
	return met, len(addrs)
}

// rejoin goes on joining: quickly until the first member was met, then from time to time, so that halves of a cluster
// that was split, or started apart, find each other.
func (g *Gossip) rejoin(ctx context.Context, met bool) {
	if len(g.opts.Join) == 0 {
		return
	}
	if !g.settled.Load() {
		g.log.Warn("no member to join answered, trying on", "join", g.opts.Join)
	}
	start, quick := time.Now(), 100*time.Millisecond
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
		g.survive("join", func() { n, of = g.join(ctx) })
		switch {
		case n > 0 && !met:
			met = true
			g.log.Info("met the first members", "members_met", n, "of", of)
			g.nudgeKeeper()
		case !g.settled.Load() && time.Since(start) > g.opts.JoinTimeout && ctx.Err() == nil:
			g.log.Warn("still no member to join answered, serving alone", "join", g.opts.Join)
			g.settled.Store(true)
		}
	}
}
