package gossip

import (
	"context"
	"maps"
	"slices"
	"time"

	dring "github.com/grafana/dskit/ring"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/ring"
)

// forgettable returns, by role, the ids of the members to take off that role's ring: those from which this process
// has waited for a heartbeat for longer than after. It returns none for a role when this process sees too few live
// members, since it may be cut off from the others itself. To forget a receiver moves series and removes one holder
// of acknowledged samples, so a quorum of the receivers must be alive. For the other roles a quorum of all members is
// enough, whatever their roles.
func forgettable(v *snapshot, up, timeout, after time.Duration) map[string][]string {
	all, alive := map[string]bool{}, 0
	for _, r := range v.rings {
		for id := range r.entries {
			if !all[id] && v.alive(id, up, timeout) {
				alive++
			}
			all[id] = true
		}
	}
	out := map[string][]string{}
	for role, r := range v.rings {
		see, of := alive, len(all)
		if role == RoleReceive {
			see, of = 0, len(r.entries)
			for _, p := range r.heartbeats {
				if p.fresh(up, timeout) {
					see++
				}
			}
		}
		if see < ring.Quorum(of) {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(r.entries)) {
			if r.heartbeats[id].silence(up) > after {
				out[role] = append(out[role], id)
			}
		}
	}
	return out
}

// forgettableNow is forgettable of v, and nothing within ForgetAfter of a pause of this process. While it was paused
// it waited for nobody. Members that were paused with it, such as those of one host, come back one after the other.
func (g *Gossip) forgettableNow(v *snapshot) map[string][]string {
	up := g.opts.uptime()
	if g.resumed > 0 && up-g.resumed <= g.opts.ForgetAfter {
		return nil
	}
	return forgettable(v, up, g.opts.HeartbeatTimeout, g.opts.ForgetAfter)
}

// forgetGone forgets the members that are gone, and ends their entries in the cluster value. Every member does so. It
// is harmless that several do it at once.
func (g *Gossip) forgetGone(ctx context.Context) {
	if g.isSilent() {
		return
	}
	gone := g.forgettableNow(g.snapshot.Load())
	for _, role := range slices.Sorted(maps.Keys(gone)) {
		for _, id := range gone[role] {
			err := g.drop(ctx, role, id, func(p heartbeat) bool { return p.silence(g.opts.uptime()) > g.opts.ForgetAfter })
			if err != nil && ctx.Err() == nil {
				g.log.Warn("member not forgotten", "role", role, "member", id, "err", err)
			}
		}
	}
	err := g.edit(ctx, func(c *cluster, now time.Time) bool { return g.endOrphans(c, now) })
	if err != nil && ctx.Err() == nil {
		g.log.Warn("cluster value not tidied", "err", err)
	}
}

// endOrphans ends entries of c about members that have been on no ring for longer than ForgetAfter: a late message
// may have brought such an entry back.
func (g *Gossip) endOrphans(c *cluster, now time.Time) (changed bool) {
	v, up := g.snapshot.Load(), g.opts.uptime()
	orphaned := func(key string, version int64) bool {
		o, ok := v.orphans[key]
		return ok && o.version == version && up-o.came > g.opts.ForgetAfter
	}
	for id, p := range c.Processes {
		if orphaned("process "+id, p.Updated) && !p.Left {
			changed = c.leave(id, now) || changed
		}
	}
	for key, i := range c.Incarnations {
		if orphaned("incarnation "+key, i.Updated) && i.Until == 0 {
			c.end(key, now.Unix(), false, now, g.opts.HistoryRetention)
			changed = true
		}
	}
	return changed
}

// known reports whether a member is on any ring.
func (v *snapshot) known(id string) bool {
	for _, r := range v.rings {
		if _, ok := r.entries[id]; ok {
			return true
		}
	}
	return false
}

// drop takes a member off a role's ring, if it is on it and cond holds for its heartbeat. A receiver's incarnation
// ends now and not with its last heartbeat: it had a place until now, so writes may have reached it although its
// heartbeats did not reach this process.
//  1. The incarnation is closed. If this process crashes then, queries count the member as missing for longer than
//     needed.
//  2. The ring entry becomes a tombstone.
func (g *Gossip) drop(ctx context.Context, role, id string, cond func(heartbeat) bool) error {
	r := g.snapshot.Load().rings[role]
	e, ok := r.entries[id]
	if !ok || !cond(r.heartbeats[id]) {
		return nil
	}
	if role == RoleReceive {
		err := g.edit(ctx, func(c *cluster, now time.Time) bool {
			return c.endAll(id, now.Unix(), false, now, g.opts.HistoryRetention)
		})
		if err != nil {
			return err
		}
	}
	dropped := false
	err := g.rings.CAS(ctx, role, func(in any) (any, bool, error) {
		desc := newRingValue(in)
		now, ok := desc.Ingesters[id]
		// An entry that changed since the snapshot was made has a new heartbeat: the member is alive.
		if dropped = ok && now.State != dring.LEFT && now.Timestamp == e.Timestamp; !dropped {
			return nil, false, nil
		}
		desc.Ingesters[id] = tombstone(now, g.opts.Now().Unix())
		return desc, true, nil
	})
	if err != nil || !dropped {
		return err
	}
	g.metrics.forgotten.Inc()
	g.log.Warn("member forgotten", "role", role, "member", id, "address", e.Addr,
		"heard", r.heartbeats[id].heard(g.opts.Now(), g.opts.uptime()))
	g.refresh(ctx, role)
	if g.snapshot.Load().known(id) {
		return nil
	}
	return g.edit(ctx, func(c *cluster, now time.Time) bool { return c.leave(id, now) })
}

// tombstone returns the entry that removes e from the rings of all members. now is Unix seconds.
func tombstone(e dring.InstanceDesc, now int64) dring.InstanceDesc {
	e.State, e.Tokens, e.Timestamp = dring.LEFT, nil, max(now, e.Timestamp+1)
	return e
}

// Forget takes a member that is down off all rings now, without asking for a quorum: an operator knows that it will
// not return. It returns errs.NotFound for an unknown member, errs.Conflict for one that is alive, and
// errs.Unavailable before Open.
func (g *Gossip) Forget(ctx context.Context, id string) error {
	if err := g.available(); err != nil {
		return err
	}
	v := g.snapshot.Load()
	if !v.known(id) {
		return errs.E(errs.NotFound, "ring: no member %q", id)
	}
	if v.alive(id, g.opts.uptime(), g.opts.HeartbeatTimeout) {
		return errs.E(errs.Conflict, "ring: member %q is alive; only members that are down can be forgotten", id)
	}
	for _, role := range roles {
		err := g.drop(ctx, role, id, func(p heartbeat) bool { return !p.fresh(g.opts.uptime(), g.opts.HeartbeatTimeout) })
		if err != nil {
			return err
		}
	}
	return nil
}
