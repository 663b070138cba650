package gossip

import (
	"context"
	"runtime/debug"
	"slices"
	"time"

	dring "github.com/grafana/dskit/ring"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// register makes this process a member: it writes its entries, whatever they were before. It does not wait until
// others have seen them.
func (g *Gossip) register(ctx context.Context) error {
	g.mu.Lock()
	g.wanted = dring.InstanceDesc{
		Id:                  g.opts.Instance.ID,
		Addr:                g.local.advertised(g.opts.GRPCAddress),
		Zone:                g.opts.Zone,
		State:               dring.ACTIVE,
		RegisteredTimestamp: g.opts.Instance.Since.Unix(),
	}
	entry := g.wanted
	g.mu.Unlock()
	entry.Timestamp = g.opts.Now().Unix()
	self := g.self()
	valid := validEntry(entry.Id, &entry, entry.Timestamp) && self.valid(entry.Timestamp)
	if len(g.opts.Roles) > 0 && !valid {
		return errs.E(errs.Invalid, "ring: others would leave out what this process says of itself: "+
			"address %.400q, HTTP address %.400q, zone %q, clock %s",
			self.Addr, self.HTTPAddr, self.Zone, g.opts.Now())
	}
	for _, role := range g.opts.Roles {
		if err := g.writeEntry(ctx, role); err != nil {
			return err
		}
	}
	if err := g.dropOldRoles(ctx); err != nil {
		return err
	}
	if err := g.loadHistory(ctx); err != nil {
		return err
	}
	if err := g.publishSelf(ctx); err != nil {
		return err
	}
	g.refresh(ctx)
	return nil
}

// dropOldRoles removes this process's entries from the rings of roles that it had before it was restarted and no
// longer has.
func (g *Gossip) dropOldRoles(ctx context.Context) error {
	if len(g.opts.Roles) == 0 {
		return nil
	}
	for _, role := range roles {
		if slices.Contains(g.opts.Roles, role) {
			continue
		}
		if err := g.drop(ctx, role, g.opts.Instance.ID, func(heartbeat) bool { return true }); err != nil {
			return err
		}
	}
	return nil
}

// writeEntry writes this process's entry in a role's ring as want says, with a heartbeat. Nothing else writes such an
// entry, except drop.
func (g *Gossip) writeEntry(ctx context.Context, role string) error {
	return g.rings.CAS(ctx, role, func(in any) (any, bool, error) {
		desc := newRingValue(in)
		want := g.want(role) // read within the transaction, so that a heartbeat does not undo a Leave that came in between
		old, ok := desc.Ingesters[want.Id]
		p, met := g.snapshot.Load().rings[role].heartbeats[want.Id]
		due := !met || p.silence(g.opts.uptime()) >= time.Second
		next, changed := nextEntry(old, ok, want, g.opts.Now().Unix(), due)
		if !changed {
			return nil, false, nil
		}
		desc.Ingesters[want.Id] = next
		return desc, true, nil
	})
}

// want is the entry that this process should have in a role's ring, without the heartbeat.
func (g *Gossip) want(role string) dring.InstanceDesc {
	g.mu.Lock()
	defer g.mu.Unlock()
	want := g.wanted
	if role == RoleReceive && want.State != dring.LEFT {
		want.Tokens = g.opts.Instance.tokens()
	}
	if role == RoleReceive && g.foreignSince != 0 && !want.ReadOnly {
		want.ReadOnly, want.ReadOnlyUpdatedTimestamp = true, g.foreignSince
	}
	return want
}

// nextEntry returns the entry that replaces old, with the content of want and a heartbeat at now, in Unix seconds. ok
// says that old exists. The store keeps the entry with the newer heartbeat, which counts whole seconds. So a changed
// entry always gets a newer heartbeat than old, if need be one in the future. A heartbeat without another change
// waits for the next second (changed is false) unless it is due: a second or more after the last one. So heartbeats
// still come after the clock was set back.
func nextEntry(
	old dring.InstanceDesc, ok bool, want dring.InstanceDesc, now int64, due bool,
) (next dring.InstanceDesc, changed bool) {
	next = want
	next.Timestamp = now
	if !ok {
		return next, want.State != dring.LEFT
	}
	if old.State == dring.LEFT && want.State == dring.LEFT {
		return old, false
	}
	if subset(old.Tokens, want.Tokens) { // do not claim again the tokens that another member had too and kept
		next.Tokens = old.Tokens
	}
	if next.State != old.State || next.ReadOnly != old.ReadOnly || next.Addr != old.Addr || next.Zone != old.Zone ||
		next.RegisteredTimestamp != old.RegisteredTimestamp || !slices.Equal(next.Tokens, old.Tokens) {
		next.Timestamp = max(now, old.Timestamp+1)
		return next, true
	}
	next.Timestamp = max(now, old.Timestamp+1)
	return next, now > old.Timestamp || due
}

// subset reports whether b has every token of a and a is not empty. Both are sorted.
func subset(a, b []uint32) bool {
	if len(a) == 0 || len(a) > len(b) {
		return false
	}
	for _, t := range a {
		if _, ok := slices.BinarySearch(b, t); !ok {
			return false
		}
	}
	return true
}

// heartbeatLoop writes heartbeats until ctx ends. With each of them it also checks this process's membership and
// clock, forgets members that are gone, and saves the history.
func (g *Gossip) heartbeatLoop(ctx context.Context) {
	tick := time.NewTicker(g.opts.HeartbeatPeriod)
	defer tick.Stop()
	down, kept, last := map[string]bool{}, "", time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-g.beatNow:
		}
		now := time.Now()
		if now.Sub(last) > g.opts.HeartbeatTimeout {
			g.resumed = g.opts.uptime()
		}
		last = now
		g.safely("keep", func() {
			g.refresh(ctx)
			g.checkClock()
			g.beat(ctx)
			g.checkMembership()
			down = g.logDown(down)
			if len(g.opts.Roles) > 0 {
				g.forgetGone(ctx)
			}
			kept = g.saveHistory(kept)
		})
	}
}

// safely calls f and recovers from a panic in it. A value from another member may cause one; it must not end this
// process.
func (g *Gossip) safely(what string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			g.metrics.panics.Inc()
			g.log.Error("gossip failed, and goes on", "during", what, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	f()
}

// requestBeat wakes the heartbeat loop now. It does not wait for it.
func (g *Gossip) requestBeat() {
	select {
	case g.beatNow <- struct{}{}:
	default:
	}
}

// beat writes all entries of this process, with a heartbeat.
func (g *Gossip) beat(ctx context.Context) {
	if g.isSilent() || g.givesWay() {
		return
	}
	for _, role := range g.opts.Roles {
		if err := g.writeEntry(ctx, role); err != nil && ctx.Err() == nil {
			g.metrics.failed.Inc()
			g.log.Warn("heartbeat not written", "role", role, "err", err)
		}
	}
	if err := g.publishSelf(ctx); err != nil && ctx.Err() == nil {
		g.metrics.failed.Inc()
		g.log.Warn("cluster value not written", "err", err)
	}
}

func (g *Gossip) isSilent() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.silent
}

// logDown logs the members that went down or came back since the last call, and returns those that are down. was is
// what the last call returned.
func (g *Gossip) logDown(was map[string]bool) (is map[string]bool) {
	now, up, v := g.opts.Now(), g.opts.uptime(), g.snapshot.Load()
	is = map[string]bool{}
	for _, role := range roles {
		for id, e := range v.rings[role].entries {
			key, p := role+"/"+id, v.rings[role].heartbeats[id]
			switch {
			case !p.fresh(up, g.opts.HeartbeatTimeout):
				is[key] = true
				if !was[key] {
					g.log.Warn("member is down", "role", role, "member", id, "address", e.Addr, "heard", p.heard(now, up))
				}
			case was[key]:
				g.log.Info("member is back", "role", role, "member", id)
			}
		}
	}
	return is
}
