package gossip

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/ring"
)

type metrics struct {
	compiled  prometheus.Counter     // placements swapped in
	forgotten prometheus.Counter     // members this process took off a ring
	failed    prometheus.Counter     // heartbeats it could not write
	refused   prometheus.Counter     // gossiped entries that were left out
	panics    prometheus.Counter     // recovered panics
	conflict  prometheus.Gauge       // 1 while this process does not belong to the cluster
	joins     *prometheus.CounterVec // attempts by outcome: reached, failed
}

func newMetrics(reg prometheus.Registerer, g *Gossip) *metrics {
	f := promauto.With(reg)
	if reg != nil {
		reg.MustRegister(memberCollector{g})
	}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "hearth_ring_" + name, Help: help}
	}
	return &metrics{
		compiled:  f.NewCounter(counter("placements_total", "Placements compiled because the receivers changed.")),
		forgotten: f.NewCounter(counter("forgotten_members_total", "Members this process took off a ring.")),
		failed:    f.NewCounter(counter("heartbeat_failures_total", "Heartbeats that could not be written.")),
		refused: f.NewCounter(counter("refused_entries_total", "Entries of gossiped values that were left out "+
			"because they are over a bound: names, addresses, times or tokens that no member has.")),
		panics: f.NewCounter(counter("panics_total", "Panics in the handling of gossip that this process survived: bugs.")),
		conflict: f.NewGauge(prometheus.GaugeOpts{Name: "hearth_ring_conflict",
			Help: "1 while this process does not belong to the cluster it met: replication factor, bucket or id."}),
		joins: f.NewCounterVec(counter("joins_total", "Attempts to reach the members to join, by outcome."),
			[]string{"outcome"}),
	}
}

// memberCollector counts members at each scrape, since their states depend on the time.
type memberCollector struct{ g *Gossip }

var (
	membersDesc = prometheus.NewDesc("hearth_ring_members", "Members as this process sees them.",
		[]string{"role", "state"}, nil)
	factorDesc = prometheus.NewDesc("hearth_ring_replication_factor", "Copies of each series.", nil, nil)
	skewDesc   = prometheus.NewDesc("hearth_ring_clock_skew_seconds",
		"How far this process's clock is ahead of those of most members; 0 while it is within a minute.", nil, nil)
	shareDesc = prometheus.NewDesc("hearth_ring_share",
		"Part of all series, 0 to 1, that this receiver has a copy of.", nil, nil)
)

// Describe is of prometheus.Collector.
func (c memberCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- membersDesc
	ch <- factorDesc
	ch <- shareDesc
	ch <- skewDesc
}

// Collect is of prometheus.Collector.
func (c memberCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(factorDesc, prometheus.GaugeValue, float64(c.g.ReplicationFactor()))
	ch <- prometheus.MustNewConstMetric(skewDesc, prometheus.GaugeValue, -c.g.clock.Load().skew.Seconds())
	if share, ok := c.g.snapshot.Load().shares[c.g.opts.Instance.ID]; ok {
		ch <- prometheus.MustNewConstMetric(shareDesc, prometheus.GaugeValue, share)
	}
	for _, role := range roles {
		var counts [ring.Down + 1]int
		for _, m := range c.g.Members(role) {
			counts[m.State]++
		}
		for state, n := range counts {
			ch <- prometheus.MustNewConstMetric(membersDesc, prometheus.GaugeValue, float64(n), role, ring.State(state).String())
		}
	}
}
