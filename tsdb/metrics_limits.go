package tsdb

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// limitUse exposes how many series the tenants with a limit on active series have, and how many this receiver takes
// of them. With more than maxTenantLabels such tenants it shows those that are nearest to their bound.
type limitUse struct{ d *DB }

var (
	activeDesc = prometheus.NewDesc("hearth_tsdb_active_series",
		"Series in memory of a tenant that has a limit on them.", []string{"tenant"}, nil)
	boundDesc = prometheus.NewDesc("hearth_tsdb_active_series_bound",
		"How many series this receiver takes of the tenant: its part of the limit active_series.", []string{"tenant"}, nil)
)

// Describe sends the two descriptions.
func (*limitUse) Describe(to chan<- *prometheus.Desc) { to <- activeDesc; to <- boundDesc }

// Collect sends the numbers as they are now.
func (u *limitUse) Collect(to chan<- prometheus.Metric) {
	type use struct {
		id            tenant.ID
		active, bound int
	}
	var all []use
	for _, t := range u.d.all() {
		t.mu.Lock()
		in := t.in
		t.mu.Unlock()
		if in == nil {
			continue
		}
		if l := in.rules.Load().limits; l != nil && l.ActiveSeries > 0 {
			in.seriesCounts.mu.Lock()
			bound := in.allowance(l.ActiveSeries)
			in.seriesCounts.mu.Unlock()
			all = append(all, use{t.id, int(in.db.Head().NumSeries()), bound})
		}
	}
	slices.SortFunc(all, func(a, b use) int { return cmp.Compare(b.active*a.bound, a.active*b.bound) })
	for _, s := range all[:min(len(all), maxTenantLabels)] {
		to <- prometheus.MustNewConstMetric(activeDesc, prometheus.GaugeValue, float64(s.active), string(s.id))
		to <- prometheus.MustNewConstMetric(boundDesc, prometheus.GaugeValue, float64(s.bound), string(s.id))
	}
}
