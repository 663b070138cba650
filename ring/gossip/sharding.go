package gossip

import (
	"strconv"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// span says that processes placed series by one version of all tenants' shard sizes, or by one replication factor, from
// First on and up to Last, or a little later. Times are Unix seconds.
type usage struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	// Expires is when it may be dropped: all members agree on it.
	Expires int64 `json:"expires"`
}

const (
	// assertEvery is how often processes say that they still place by a version.
	usageEvery = 10 * time.Minute
	// assertHolds is how long after it was last said a version may have been in use.
	usageHolds = 2 * usageEvery
	// unsharded is the version of processes that know no shards.
	unsharded = "none"
)

// join is what a and b say together. It is commutative, associative and idempotent.
func (a usage) join(b usage) usage {
	return usage{min(a.First, b.First), max(a.Last, b.Last), max(a.Expires, b.Expires)}
}

// joinAll joins from into to, which has room for most, and puts what changed into change.
func joinAll(to, from, change map[string]usage, most int) {
	for key, s := range from {
		old, ok := to[key]
		if ok {
			s = s.join(old)
		}
		if !ok && !full(to, key, most) || ok && s != old {
			to[key], change[key] = s, s
		}
	}
}

// assertSpan says that a process places by version now. It changes nothing when that was said lately.
func recordUsage(usages map[string]usage, version string, now time.Time, keep time.Duration) (changed bool) {
	s := usage{now.Unix(), now.Unix(), now.Add(keep + usageHolds).Unix()}
	old, ok := usages[version]
	if ok {
		if old.Last > now.Add(-usageEvery).Unix() {
			return false
		}
		s = old.join(s)
	}
	usages[version] = s
	return true
}

// shardedSince is since when all processes have placed by version and no other one; false when they do not now. What
// another clock calls later than now was said by now.
func (c *cluster) shardedSince(version string, now time.Time) (time.Time, bool) {
	mine, ok := c.Shardings[version]
	if !ok || mine.Last < now.Add(-usageHolds).Unix() {
		return time.Time{}, false
	}
	since := time.Unix(mine.First, 0)
	for other, s := range c.Shardings {
		if until := time.Unix(min(s.Last, now.Unix()), 0).Add(usageHolds); other != version && until.After(since) {
			since = until
		}
	}
	return since, true
}

// version is that of the shard sizes this process has.
func (g *Gossip) version() string {
	if g.opts.Sharding == nil {
		return unsharded
	}
	if v := g.opts.Sharding.Version(); v != "" {
		return v
	}
	return unsharded
}

// Shards is what this process can say of where a tenant's series were placed: on Size members only, what came after Since.
// Size 0: on any member.
type Shards struct {
	Size  int
	Since time.Time
}

// Shards says on how many members the tenant's series are, and since when that is sure: since all processes have had the
// same sizes as this one.
func (g *Gossip) Shards(id tenant.ID) Shards {
	version, c, now := g.version(), g.snapshot.Load().cluster, g.opts.Now()
	if version == unsharded || c.otherFactor(g.ReplicationFactor(), now) { // a shard has a member for each copy, at least
		return Shards{}
	}
	since, ok := c.shardedSince(version, now)
	if !ok {
		return Shards{}
	}
	return Shards{Size: ring.ShardSize(g.opts.Sharding.Size(id), g.ReplicationFactor()), Since: since}
}

// JudgedFactor is the replication factor by which it is judged whether a query's answer is complete: the cluster's, or 1, the
// strictest, when series were placed by more than one within Options.HistoryRetention: what was acknowledged then may have
// fewer copies than now.
func (g *Gossip) JudgedFactor() int {
	v := g.snapshot.Load()
	rf := g.replicationFactor(v)
	if v.cluster.otherFactor(rf, g.opts.Now()) {
		return 1
	}
	return rf
}

// otherFactor reports whether series that may still be asked for were placed by another replication factor than rf.
func (c *cluster) otherFactor(rf int, now time.Time) bool {
	for other, s := range c.Factors {
		if other != strconv.Itoa(rf) && s.Expires >= now.Unix() {
			return true
		}
	}
	return false
}
