package main

import (
	"context"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring/election"
)

// haFlags bind what is the same for all HA pairs, with Mimir's names. What tenants have them is in their limits.
func haFlags(c *kingpin.CmdClause, o *distributor.HAOptions) {
	durationFlag(c, "distributor.ha-tracker.update-timeout",
		"HA pairs (ha_pairs in --runtime-config.file): how often this process tells others that samples of a cluster's "+
			"elected replica are stored.", &o.UpdateTimeout)
	durationFlag(c, "distributor.ha-tracker.update-timeout-jitter-max", "How much that varies at most, so that not all "+
		"is sent at once.", &o.UpdateTimeoutJitter)
	durationFlag(c, "distributor.ha-tracker.failover-timeout",
		"HA pairs: another replica of a cluster is elected when nothing of the elected one was stored for longer than "+
			"this, or its samples stay behind by more than twice this.", &o.FailoverTimeout)
}

// gossipedElections are the elections of HA pairs where processes gossip. The cluster's gossip is made when it opens,
// which is before the distributor does.
type gossipedElections struct{ c *cluster }

func (e gossipedElections) Publish(ctx context.Context, id tenant.ID, states map[string]election.State) error {
	return e.c.gossip.Elections().Publish(ctx, id, states)
}

func (e gossipedElections) All(ctx context.Context, f func(tenant.ID, map[string]election.State)) error {
	return e.c.gossip.Elections().All(ctx, f)
}

func (e gossipedElections) Watch(ctx context.Context, f func(tenant.ID, map[string]election.State)) {
	e.c.gossip.Elections().Watch(ctx, f)
}
