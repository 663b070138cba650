package gossip

import (
	"strconv"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// usage says when processes placed series by one version of all tenants' shard sizes, or by one replication factor:
// from First up to Last, or up to usageHolds later. Times are Unix seconds.
type usage struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	// Expires is when it may be dropped. It is written down so that all members drop it at one time.
	Expires int64 `json:"expires"`
}

const (
	// usageEvery is the time between two records of one version: a process writes it again if the last record is older.
	usageEvery = 10 * time.Minute
	// usageHolds is for how long after its last record a version may have been in use.
	usageHolds = 2 * usageEvery
	// unsharded is the version of processes on which no tenant has a shard.
	unsharded = "none"
)

// join returns the usage that covers a and b. It is commutative, associative and idempotent.
func (a usage) join(b usage) usage {
	return usage{min(a.First, b.First), max(a.Last, b.Last), max(a.Expires, b.Expires)}
}

// joinAll joins the entries of from into to, which may have most entries, and puts those that changed into change.
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

// recordUsage records that a process places by version now. It changes nothing if that was recorded within
// usageEvery. keep is for how long the record is needed.
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

// shardedSince is since when all processes have placed by version and by no other one; false if they do not now. A
// record from the future counts as one of now: the clock of the process that wrote it is ahead.
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

// version is the version of the shard sizes that this process has.
func (g *Gossip) version() string {
	if g.opts.Sharding == nil {
		return unsharded
	}
	if v := g.opts.Sharding.Version(); v != "" {
		return v
	}
	return unsharded
}

// Shards says what this process knows about where a tenant's series were placed: those that came after Since are on
// Size members only. Size 0: they may be on any member.
type Shards struct {
	Size  int
	Since time.Time
}

// Shards says on how many members the tenant's series are, and since when this is sure: since when all processes have
// had the same sizes as this one.
func (g *Gossip) Shards(id tenant.ID) Shards {
	version, c, now := g.version(), g.snapshot.Load().cluster, g.opts.Now()
	// A shard has at least one member for each copy, so by another factor shards may have had another size.
	if version == unsharded || c.otherFactor(g.ReplicationFactor(), now) {
		return Shards{}
	}
	since, ok := c.shardedSince(version, now)
	if !ok {
		return Shards{}
	}
	return Shards{Size: ring.ShardSize(g.opts.Sharding.Size(id), g.ReplicationFactor()), Since: since}
}

// JudgedFactor is the replication factor by which a query judges whether its answer is complete. It is the cluster's.
// If series were placed by more than one factor within Options.HistoryRetention it is 1, the strictest: samples that
// were acknowledged then may have fewer copies than now.
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
