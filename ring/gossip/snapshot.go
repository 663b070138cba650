package gossip

import (
	"context"
	"slices"
	"time"

	"github.com/grafana/dskit/kv"
	dring "github.com/grafana/dskit/ring"

	"github.com/hearth-metrics/hearth/ring"
)

// snapshot is what this process knew of the cluster at one time. It is immutable.
type snapshot struct {
	rings   map[string]roleSnapshot
	cluster *cluster
	orphans map[string]orphan  // by kind and key: entries of cluster about members that are on no ring
	shares  map[string]float64 // of the receivers, by id: the part of all series that each has a copy of, 0 to 1
}

// roleSnapshot is the ring of one role.
type roleSnapshot struct {
	entries    map[string]dring.InstanceDesc // without tombstones
	heartbeats map[string]heartbeat          // of entries
	ids        []string                      // sorted
}

// watch rebuilds the snapshot whenever a value changes, until ctx ends.
func (g *Gossip) watch(ctx context.Context) {
	follow := func(client kv.Client, key string) {
		client.WatchKey(ctx, key, func(any) bool {
			g.safely("watch", func() { g.refresh(ctx, key) })
			return true
		})
	}
	for _, role := range roles {
		g.wg.Go(func() { follow(g.rings, role) })
	}
	g.wg.Go(func() { follow(g.members, clusterKey) })
	// The next round of the heartbeat loop finds what changed before the watchers were registered.
}

// refresh reads the values of keys, or of all keys if none is named, and replaces the snapshot, and the placement if
// the receivers changed. It reads the values with the lock held, so that no caller replaces a newer snapshot by an
// older one.
func (g *Gossip) refresh(ctx context.Context, keys ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	wants := func(key string) bool { return len(keys) == 0 || slices.Contains(keys, key) }
	old := g.snapshot.Load()
	v := &snapshot{rings: make(map[string]roleSnapshot, len(roles)), cluster: old.cluster, shares: old.shares}
	for _, role := range roles {
		v.rings[role] = old.rings[role]
		if !wants(role) {
			continue
		}
		if val, err := g.rings.Get(ctx, role); err == nil {
			v.rings[role] = newRoleSnapshot(newRingValue(val), old.rings[role], g.opts.Now(), g.opts.uptime())
		}
	}
	if wants(clusterKey) {
		if val, err := g.members.Get(ctx, clusterKey); err == nil && val != nil {
			v.cluster = val.(*cluster)
		}
	}
	v.orphans = v.findOrphans(old, g.opts.uptime())
	rf := g.replicationFactor(v)
	is, was := v.rings[RoleReceive].entries, old.rings[RoleReceive].entries
	moved := rf != (*g.placement.Load()).ReplicationFactor() || !samePlaces(is, was)
	if moved {
		v.shares = ring.Shares(tokenMembers(is), rf)
	}
	g.snapshot.Store(v)
	g.logChanges(old, v)
	if moved {
		g.compile(tokenMembers(is), rf)
	}
}

// orphan is an entry of the cluster value about a member that is on no ring: the version of the entry, and when it
// was first found, by Gossip.uptime.
type orphan struct {
	version int64
	came    time.Duration
}

// findOrphans returns the orphans of v. old has those that were found before.
func (v *snapshot) findOrphans(old *snapshot, up time.Duration) map[string]orphan {
	found := map[string]orphan{}
	note := func(key string, version int64) {
		o, ok := old.orphans[key]
		if !ok || o.version != version {
			o = orphan{version, up}
		}
		found[key] = o
	}
	for id, p := range v.cluster.Processes {
		if !p.Left && !v.known(id) {
			note("process "+id, p.Updated)
		}
	}
	for key, i := range v.cluster.Incarnations {
		if _, ok := v.rings[RoleReceive].entries[i.ID]; i.Until == 0 && !ok {
			note("incarnation "+key, i.Updated)
		}
	}
	return found
}

// newRoleSnapshot makes a snapshot of value, which it keeps, at now. It takes the sorted ids from old if the tokens
// are the same.
func newRoleSnapshot(value ringValue, old roleSnapshot, now time.Time, up time.Duration) roleSnapshot {
	r := roleSnapshot{entries: value.Ingesters, heartbeats: make(map[string]heartbeat, len(value.Ingesters))}
	for id, e := range r.entries {
		if e.State == dring.LEFT {
			delete(r.entries, id)
			continue
		}
		p, met := old.heartbeats[id]
		r.heartbeats[id] = p.listen(e, met, now, up)
	}
	if sameTokens(r.entries, old.entries) {
		r.ids = old.ids
		return r
	}
	for id := range r.entries {
		r.ids = append(r.ids, id)
	}
	slices.Sort(r.ids)
	return r
}

// sameTokens reports whether a and b have the same members with the same tokens and read-only states.
func sameTokens(a, b map[string]dring.InstanceDesc) bool {
	if len(a) != len(b) {
		return false
	}
	for id, x := range a {
		y, ok := b[id]
		if !ok || x.ReadOnly != y.ReadOnly || !slices.Equal(x.Tokens, y.Tokens) {
			return false
		}
	}
	return true
}

// samePlaces reports whether a and b compile to the same placement.
func samePlaces(a, b map[string]dring.InstanceDesc) bool {
	if !sameTokens(a, b) {
		return false
	}
	for id, x := range a {
		if y := b[id]; x.Addr != y.Addr || x.Zone != y.Zone {
			return false
		}
	}
	return true
}

// compile makes a new placement and puts it in the place of the old one. mu is held.
func (g *Gossip) compile(members []ring.TokenMember, rf int) {
	var p ring.Placement
	if g.opts.Sharding != nil {
		p = ring.NewShuffled(members, rf, g.opts.Sharding)
	} else {
		p = ring.NewTokens(members, rf)
	}
	g.placement.Store(&p)
	g.metrics.compiled.Inc()
}

// tokenMembers converts entries for package ring.
func tokenMembers(entries map[string]dring.InstanceDesc) []ring.TokenMember {
	members := make([]ring.TokenMember, 0, len(entries))
	for id, e := range entries {
		members = append(members, ring.TokenMember{Member: memberOf(id, e), Tokens: e.Tokens, ReadOnly: e.ReadOnly})
	}
	return members
}

// logChanges logs the members that joined, left, or changed their address or state.
func (g *Gossip) logChanges(old, v *snapshot) {
	for _, role := range roles {
		was, is := old.rings[role].entries, v.rings[role].entries
		for id, e := range is {
			o, ok := was[id]
			switch {
			case id == g.opts.Instance.ID:
			case !ok:
				g.log.Info("member joined", "role", role, "member", id, "address", e.Addr, "zone", e.Zone)
			case o.Addr != e.Addr:
				g.log.Info("member moved", "role", role, "member", id, "address", e.Addr, "was", o.Addr)
			case o.State != e.State || o.ReadOnly != e.ReadOnly:
				state := stateOf(e, v.rings[role].heartbeats[id], g.opts.uptime(), g.opts.HeartbeatTimeout)
				g.log.Info("member changed", "role", role, "member", id, "state", state.String())
			}
		}
		for id := range was {
			if _, ok := is[id]; !ok {
				g.log.Info("member left", "role", role, "member", id)
			}
		}
	}
}

// Members returns the members of a role's ring as this process sees them now, sorted by id. The caller owns the
// slice.
func (g *Gossip) Members(role string) []ring.Status {
	v, now, up := g.snapshot.Load(), g.opts.Now(), g.opts.uptime()
	r := v.rings[role]
	out := make([]ring.Status, 0, len(r.ids))
	for _, id := range r.ids {
		e, p := r.entries[id], r.heartbeats[id]
		share := 0.
		if role == RoleReceive {
			share = v.shares[id]
		}
		out = append(out, ring.Status{
			Member:    memberOf(id, e),
			State:     stateOf(e, p, up, g.opts.HeartbeatTimeout),
			HTTPAddr:  v.cluster.Processes[id].HTTPAddr,
			Bucket:    v.cluster.Processes[id].Bucket,
			Contents:  v.cluster.Processes[id].Contents,
			Heartbeat: p.heard(now, up),
			Since:     time.Unix(e.RegisteredTimestamp, 0),
			Share:     share,
		})
	}
	return out
}

// Bucket is the identity of the bucket that receivers use, "" if they have none or none is known.
func (g *Gossip) Bucket() string {
	for _, p := range g.snapshot.Load().cluster.Processes {
		if p.Bucket != "" && !p.Left && slices.Contains(p.Roles, RoleReceive) {
			return p.Bucket // processes with different buckets do not work in one cluster (disagreement)
		}
	}
	return ""
}

// ReplicationFactor is the number of copies of each series: the configured one, else that of most live processes of
// the cluster, 1 until one is known.
func (g *Gossip) ReplicationFactor() int { return g.replicationFactor(g.snapshot.Load()) }

func (g *Gossip) replicationFactor(v *snapshot) int {
	if g.opts.ReplicationFactor > 0 {
		return g.opts.ReplicationFactor
	}
	votes, best := map[int]int{}, 1
	for id, p := range v.cluster.Processes {
		if p.RF > 0 && v.alive(id, g.opts.uptime(), g.opts.HeartbeatTimeout) {
			votes[p.RF]++
		}
	}
	if len(votes) == 0 { // no live process is known: keep the one in use
		return (*g.placement.Load()).ReplicationFactor()
	}
	for rf, n := range votes {
		if n > votes[best] || n == votes[best] && rf > best {
			best = rf
		}
	}
	return best
}

func memberOf(id string, e dring.InstanceDesc) ring.Member {
	return ring.Member{ID: id, Addr: e.Addr, Zone: e.Zone}
}

// stateOf is the state of a member with entry e and heartbeat p. It is down if no heartbeat came within timeout,
// whatever its entry says.
func stateOf(e dring.InstanceDesc, p heartbeat, up, timeout time.Duration) ring.State {
	switch {
	case !p.fresh(up, timeout):
		return ring.Down
	case e.State == dring.LEAVING:
		return ring.Leaving
	case e.ReadOnly:
		return ring.ReadOnly
	}
	return ring.Active
}

// alive reports whether a process has a fresh heartbeat on any ring.
func (v *snapshot) alive(id string, up, timeout time.Duration) bool {
	for _, r := range v.rings {
		if p, ok := r.heartbeats[id]; ok && p.fresh(up, timeout) {
			return true
		}
	}
	return false
}
