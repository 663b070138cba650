package gossip

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/hearth-metrics/hearth/ring"
)

// History returns every incarnation of a receiver that may hold samples of the last HistoryRetention, open ones
// included, sorted by start. The caller owns the slice.
func (g *Gossip) History() []ring.Incarnation {
	c, now := g.snapshot.Load().cluster, g.opts.Now()
	out := make([]ring.Incarnation, 0, len(c.Incarnations))
	for _, i := range c.Incarnations {
		if i.Until != 0 && i.Until < now.Add(-g.opts.HistoryRetention).Unix() {
			continue
		}
		r := ring.Incarnation{
			Member:  ring.Member{ID: i.ID, Addr: i.Addr, Zone: i.Zone},
			Since:   time.Unix(i.Since, 0),
			Drained: i.Drained,
		}
		if r.Off = i.Off; i.Off { // a wrong clock does not say since when it had a place
			i.Placed = 0
		}
		for _, at := range []struct {
			to *time.Time
			is int64
		}{{&r.Until, i.Until}, {&r.Placed, i.Placed}, {&r.ReadOnly, i.ReadOnly}} {
			if at.is != 0 {
				*at.to = time.Unix(at.is, 0)
			}
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b ring.Incarnation) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// self is what this process says of itself in the cluster value.
func (g *Gossip) self() process {
	broken := 0
	if g.opts.Quarantined != nil { // called without the lock: it has locks of its own
		broken = len(g.opts.Quarantined())
	}
	bucket, _ := g.opts.bucket()
	contents := ""
	if g.opts.Contents != nil && bucket == "" {
		contents = g.opts.Contents()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return process{
		ID: g.opts.Instance.ID, Addr: g.wanted.Addr, HTTPAddr: g.local.advertised(g.opts.HTTPAddress), Zone: g.opts.Zone,
		Roles: slices.Clone(g.opts.Roles), RF: g.opts.ReplicationFactor, Bucket: bucket,
		Contents: contents,
		Since:    g.opts.Instance.Since.Unix(),
		ReadOnly: cmp.Or(g.wanted.ReadOnlyUpdatedTimestamp, g.foreignSince),
		Broken:   broken, Off: g.clock.Load().off,
	}
}

// publishSelf brings the entries about this process in the cluster value up to date. It writes only if one is out of
// date.
func (g *Gossip) publishSelf(ctx context.Context) error {
	if len(g.opts.Roles) == 0 {
		return nil
	}
	self, version := g.self(), g.version()
	return g.edit(ctx, func(c *cluster, now time.Time) bool {
		if g.isSilent() { // read within the transaction, so that a heartbeat does not undo a Leave that came in between
			return false
		}
		changed := c.setProcess(self, now)
		if slices.Contains(self.Roles, RoleReceive) {
			changed = c.begin(self, g.opts.Instance.Since.Unix(), now, g.opts.HistoryRetention) || changed
		}
		if places(self) {
			common, keep := g.clock.Load().common(g.opts.Now()), g.opts.HistoryRetention
			changed = recordUsage(c.Shardings, version, common, keep) || changed
			if self.RF > 0 && g.conflict.Load() == nil { // else this process places nothing by it
				changed = recordUsage(c.Factors, strconv.Itoa(self.RF), common, keep) || changed
			}
		}
		return changed
	})
}

// places reports whether p is a process that places series.
func places(p process) bool {
	return slices.Contains(p.Roles, RoleReceive) || slices.Contains(p.Roles, RoleDistributor)
}

// edit changes the cluster value by f. f reports whether it changed anything; it is first tried on a copy of the
// snapshot, and nothing is written if it changes nothing there. now, which f gets, is wallClock.latest.
func (g *Gossip) edit(ctx context.Context, f func(c *cluster, now time.Time) bool) error {
	latest := func() time.Time { return g.clock.Load().latest(g.opts.Now()) }
	if !f(g.snapshot.Load().cluster.clone(), latest()) {
		return nil
	}
	// The store would try a change that it cannot take, because a bound is reached, for ten seconds, and heartbeats
	// would wait for it.
	ctx, cancel := context.WithTimeout(ctx, g.opts.HeartbeatTimeout/4)
	defer cancel()
	err := g.members.CAS(ctx, clusterKey, func(in any) (any, bool, error) {
		c, _ := in.(*cluster)
		if c == nil {
			c = newCluster()
		}
		if !f(c, latest()) {
			return nil, false, nil
		}
		return c, true, nil
	})
	if err == nil {
		g.refresh(ctx, clusterKey)
	}
	return err
}

// setProcess makes p's record say what p says.
func (c *cluster) setProcess(p process, now time.Time) (changed bool) {
	old, ok := c.Processes[p.ID]
	p.Updated = old.Updated
	if ok && slices.Equal(p.Roles, old.Roles) {
		p.Roles = old.Roles
		if string(mustJSON(p)) == string(mustJSON(old)) {
			return false
		}
	}
	p.Updated = version(now, old.Updated)
	c.Processes[p.ID] = p
	return true
}

// leave makes a tombstone of a process's record.
func (c *cluster) leave(id string, now time.Time) (changed bool) {
	p, ok := c.Processes[id]
	if !ok || p.Left {
		return false
	}
	c.Processes[id] = process{ID: id, Left: true, Updated: version(now, p.Updated)}
	return true
}

// begin opens the incarnation of p that began at since, and closes the others of p: its disk was replaced, so that
// data is gone. They end now, since nobody knows when exactly the disk was lost, and since may come from another
// clock.
func (c *cluster) begin(p process, since int64, now time.Time, keep time.Duration) (changed bool) {
	key := incarnationKey(p.ID, since)
	for k, i := range c.Incarnations {
		if i.ID != p.ID || k == key || i.Until != 0 {
			continue
		}
		c.end(k, now.Unix(), false, now, keep)
		changed = true
	}
	old, ok := c.Incarnations[key]
	next := incarnation{ID: p.ID, Addr: p.Addr, Zone: p.Zone, Since: since, Placed: old.Placed, ReadOnly: p.ReadOnly,
		Off: old.Off || p.Off}
	if !ok || old.Until != 0 || old.Zone != p.Zone || old.ReadOnly != 0 && p.ReadOnly == 0 {
		next.Placed = now.Unix() // it did not have this place before
	}
	if next.Updated = old.Updated; ok && next == old {
		return changed
	}
	next.Updated = version(now, old.Updated)
	c.Incarnations[key] = next
	return true
}

// end closes an incarnation at until. keep is for how long it is remembered after that.
func (c *cluster) end(key string, until int64, drained bool, now time.Time, keep time.Duration) {
	i := c.Incarnations[key]
	i.Until, i.Drained = max(until, i.Since), drained
	i.Expires = i.Until + int64(keep/time.Second)
	i.Updated = version(now, i.Updated)
	c.Incarnations[key] = i
}

// endAll closes the open incarnations of a member.
func (c *cluster) endAll(id string, until int64, drained bool, now time.Time, keep time.Duration) (changed bool) {
	for k, i := range c.Incarnations {
		if i.ID == id && i.Until == 0 {
			c.end(k, until, drained, now, keep)
			changed = true
		}
	}
	return changed
}
