package gossip

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	dring "github.com/grafana/dskit/ring"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// admit returns errs.Conflict if this process does not belong to the cluster that it met: the cluster has another
// replication factor or bucket, or its id is in use there.
func (g *Gossip) admit(ctx context.Context) error {
	g.refresh(ctx)
	if err := disagreement(g.candidate(), g.peers(), 0); err != nil {
		return err
	}
	if len(g.opts.Roles) == 0 {
		return nil
	}
	return g.awaitPredecessor(ctx)
}

// candidate is what this process says of itself, without what it has only after register.
func (g *Gossip) candidate() process {
	id, known := g.opts.bucket()
	return process{ID: g.opts.Instance.ID, Addr: g.local.advertised(g.opts.GRPCAddress), Roles: g.opts.Roles,
		RF: g.opts.ReplicationFactor, Bucket: id, unnamed: known && id == ""}
}

// peers returns the other processes that are alive, sorted by id.
func (g *Gossip) peers() []process {
	v := g.snapshot.Load()
	var out []process
	for _, id := range slices.Sorted(maps.Keys(v.cluster.Processes)) {
		if id != g.opts.Instance.ID && v.alive(id, g.opts.uptime(), g.opts.HeartbeatTimeout) {
			out = append(out, v.cluster.Processes[id])
		}
	}
	return out
}

// disagreement returns an error if self has another setting than the cluster of peers, else nil. If peers disagree
// with each other too, the setting of the majority is the cluster's. votes is the number of votes of self, 0 or 1.
func disagreement(self process, peers []process, votes int) error {
	if self.RF > 0 {
		agree, against, one := countAgreement(peers, func(p process) bool { return p.RF > 0 },
			func(p process) bool { return p.RF == self.RF })
		if against > 0 && against >= agree+votes {
			return errs.E(errs.Conflict, "ring: this instance (%s) has replication factor %d, but %s at %s has %d: %s",
				self.ID, self.RF, one.ID, one.Addr, one.RF, remedy("--receive.replication-factor", agree+votes, against))
		}
	}
	agree, against, one := countAgreement(peers, func(p process) bool { return mustShareBucket(self, p) },
		func(p process) bool { return p.Bucket == self.Bucket })
	if against > 0 && against >= agree+votes {
		return errs.E(errs.Conflict, "ring: this instance (%s) uses %s, but %s at %s uses %s: %s",
			self.ID, bucketName(self), one.ID, one.Addr, bucketName(one),
			remedy("the bucket of --objstore.config", agree+votes, against))
	}
	return nil
}

// remedy says what to do when agree processes, this one included, have one value of a setting, and against processes
// have another.
func remedy(setting string, agree, against int) string {
	if agree == against {
		return fmt.Sprintf("as many processes (%d) have the one as the other, so neither side takes writes; "+
			"decide which is right, and restart those of the other side with %s of the first", agree, setting)
	}
	return fmt.Sprintf("all members of a cluster need the same; restart this process with %s as %d others have it",
		setting, against)
}

// countAgreement counts the peers that matter by whether they agree; one is the first that does not agree.
func countAgreement(peers []process, matters, agrees func(process) bool) (agree, against int, one process) {
	for _, p := range peers {
		switch {
		case !matters(p):
		case agrees(p):
			agree++
		default:
			if against == 0 {
				one = p
			}
			against++
		}
	}
	return agree, against, one
}

// mustShareBucket reports whether a and b must name the same bucket. They must if both name one, or if one of them
// writes blocks and names none while the other works with blocks. A receiver without the bucket of its cluster would
// drop old blocks that nobody else has. A store gateway always has a bucket. It may name none because it has not heard
// of its bucket yet, so only the gateway itself can say that it uses another one than b.
func mustShareBucket(a, b process) bool {
	return a.Bucket != "" && b.Bucket != "" || lacksBucket(a, b) || lacksBucket(b, a) || onUnnamedBucket(a, b)
}

// onUnnamedBucket reports whether a is a gateway on a bucket without an identity, and b's bucket has one.
func onUnnamedBucket(a, b process) bool {
	return a.unnamed && hasRole(a, RoleStore) && b.Bucket != "" && hasRole(b, RoleReceive, RoleCompact, RoleStore)
}

// lacksBucket reports whether a has no bucket and must have one if b has one.
func lacksBucket(a, b process) bool {
	return a.Bucket == "" && hasRole(a, RoleReceive, RoleCompact) && hasRole(b, RoleReceive, RoleCompact, RoleStore)
}

func hasRole(p process, roles ...string) bool {
	return slices.ContainsFunc(p.Roles, func(r string) bool { return slices.Contains(roles, r) })
}

func bucketName(p process) string {
	switch {
	case p.Bucket != "":
		return "bucket " + p.Bucket
	case p.unnamed && hasRole(p, RoleStore):
		return "a bucket without an identity"
	}
	return "no bucket"
}

// awaitPredecessor waits until nobody at another address uses this process's id. A process that was killed and
// started again elsewhere finds its own last heartbeat, which grows old. If two new heartbeats come instead, another
// process uses the id: errs.Conflict.
func (g *Gossip) awaitPredecessor(ctx context.Context) error {
	tick := time.NewTicker(max(g.opts.HeartbeatPeriod/4, 50*time.Millisecond))
	defer tick.Stop()
	var seen []int64 // the heartbeats seen of the other process
	for {
		e, there := g.sameIDEntry()
		if !there || e.State == dring.LEAVING {
			return nil
		}
		if !slices.Contains(seen, e.Timestamp) {
			seen = append(seen, e.Timestamp)
		}
		if len(seen) > 2 {
			return errs.E(errs.Conflict, "ring: instance id %q of this process (%s) is in use by a live member at %s: "+
				"give one of them another id and data directory",
				g.opts.Instance.ID, g.local.advertised(g.opts.GRPCAddress), e.Addr)
		}
		if len(seen) == 1 {
			g.log.Info("waiting for an earlier process with this id to be gone",
				"instance", g.opts.Instance.ID, "address", e.Addr)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("ring: wait for the earlier process at %s: %w", e.Addr, ctx.Err())
		case <-tick.C:
			g.refresh(ctx)
		}
	}
}

// sameIDEntry returns the newest live entry that has this process's id and another address.
func (g *Gossip) sameIDEntry() (e dring.InstanceDesc, there bool) {
	v, id, addr := g.snapshot.Load(), g.opts.Instance.ID, g.local.advertised(g.opts.GRPCAddress)
	for _, r := range v.rings {
		x, ok := r.entries[id]
		live := r.heartbeats[id].fresh(g.opts.uptime(), g.opts.HeartbeatTimeout)
		if ok && live && x.Addr != addr && x.Timestamp > e.Timestamp {
			e, there = x, true
		}
	}
	return e, there
}

// idConflict is what the heartbeat loop knows of another process that writes this one's record: the versions of the
// record, and when the last one came, by Gossip.uptime.
type idConflict struct {
	versions []int64
	came     time.Duration
}

// idConflictMemory is for how long versions are kept after the last one came: signs that are further apart are
// separate events.
const idConflictMemory = time.Minute

// givesWay reports whether this process gives way to another live one that uses its id. Two clusters that were split
// may find such a pair when they meet. Both processes write their record again whenever they see the record of the
// other. One foreign record may be a late message; three, each within a minute of the last, are another process. The
// process with the older data stays; if both are equally old, the one with the smaller address. The other one logs it
// and writes nothing more until somebody restarts it. Ring entries cannot show this: if two have the same heartbeat,
// each process keeps its own entry.
func (g *Gossip) givesWay() bool {
	self, up := g.self(), g.opts.uptime()
	other, there := g.snapshot.Load().cluster.Processes[self.ID]
	mine := other.Addr == self.Addr && other.Since == self.Since
	if !there || other.Left || mine || slices.Contains(g.idConflict.versions, other.Updated) {
		return false
	}
	if up-g.idConflict.came > idConflictMemory {
		g.idConflict.versions = nil
	}
	g.idConflict.versions, g.idConflict.came = append(g.idConflict.versions, other.Updated), up
	if len(g.idConflict.versions) < 3 {
		return false
	}
	gives := other.Since < self.Since || other.Since == self.Since && other.Addr < self.Addr
	g.log.Error("another process uses this instance id",
		"instance", self.ID, "address", self.Addr, "other", other.Addr, "gives_way", gives)
	g.idConflict.versions = nil
	if gives {
		g.mu.Lock()
		g.silent = true
		g.mu.Unlock()
		g.setConflict(fmt.Sprintf("ring: instance id %q is also used by %s, which has the older data; "+
			"this process is out of the ring", self.ID, other.Addr))
	}
	return gives
}

// checkMembership checks whether this process still belongs to the cluster, now that it may have met others. A
// process that does not belong logs an error, is not ready, and is read-only; it does not stop, since it still
// answers queries. It places nothing, since the quorum that it would wait for is not the one that others rely on. As
// a receiver it also asks others to place nothing on it.
func (g *Gossip) checkMembership() {
	if g.isSilent() {
		return
	}
	self, peers := g.candidate(), g.peers()
	if !g.unnamedForLong(self, peers) {
		self.unnamed = false
	}
	if err := disagreement(self, peers, 1); err != nil {
		g.setConflict(err.Error())
	} else {
		g.setConflict("")
	}
}

// unnamedFor is how long a gateway may know no identity of its bucket while others name one. They may have made it
// just now: then the gateway's next look finds it.
const unnamedFor = time.Minute

// unnamedForLong reports whether self still is a gateway on a bucket without an identity, unnamedFor after peers first
// named one. Only the heartbeat loop calls it.
func (g *Gossip) unnamedForLong(self process, peers []process) bool {
	up := g.opts.uptime()
	switch {
	case !self.unnamed:
		g.unnamedSince = nil
	case g.unnamedSince == nil && slices.ContainsFunc(peers, func(p process) bool { return onUnnamedBucket(self, p) }):
		g.unnamedSince = &up
	}
	return g.unnamedSince != nil && up-*g.unnamedSince >= unnamedFor
}

// setConflict records why this process does not belong to the cluster, "" when it does, and logs a change.
func (g *Gossip) setConflict(why string) {
	old := g.conflict.Load()
	switch {
	case why == "" && old != nil:
		g.log.Info("this process belongs to the cluster again")
		g.conflict.Store(nil)
		g.metrics.conflict.Set(0)
		g.setForeignSince(0)
	case why != "" && (old == nil || *old != why):
		g.log.Error("this process does not belong to the cluster it met, and takes no writes", "reason", why)
		g.conflict.Store(&why)
		g.metrics.conflict.Set(1)
		if old == nil {
			g.setForeignSince(g.opts.Now().Unix())
		}
	}
}

func (g *Gossip) setForeignSince(since int64) {
	g.mu.Lock()
	g.foreignSince = since
	g.mu.Unlock()
	g.requestBeat() // others must know now, not after a heartbeat period
}

// placesNothing is a placement whose members get no series.
type placesNothing struct{ ring.Placement }

// Replicas appends no member.
func (placesNothing) Replicas(dst []int32, _ tenant.ID, _ uint64) []int32 { return dst }
