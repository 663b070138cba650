package receive

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/block"
)

// deletionMetrics are about what operators asked to delete.
type deletionMetrics struct {
	requests *prometheus.GaugeVec // by state
	series   *prometheus.GaugeVec // so too
	faults   prometheus.Gauge
	looked   prometheus.Gauge
	removed  prometheus.Counter
	failures prometheus.Counter
}

func newDeletionMetrics(reg prometheus.Registerer) *deletionMetrics {
	f := promauto.With(reg)
	return &deletionMetrics{
		requests: f.NewGaugeVec(prometheus.GaugeOpts{Name: "hearth_receive_tenant_deletions",
			Help: "Requests to delete a tenant that this receiver knows, by state: waiting, held, undone, due or renewed."},
			[]string{"state"}),
		series: f.NewGaugeVec(prometheus.GaugeOpts{Name: "hearth_receive_series_deletions",
			Help: "Requests to delete samples of series that this receiver knows, by state: waiting, held, undone, due or " +
				"ended."}, []string{"state"}),
		faults: f.NewGauge(prometheus.GaugeOpts{Name: "hearth_receive_unreadable_tenant_deletions",
			Help: "Objects of such requests that cannot be read, and have no effect."}),
		looked: f.NewGauge(prometheus.GaugeOpts{Name: "hearth_receive_last_successful_deletion_look_timestamp_seconds",
			Help: "When this receiver last read which tenants are to be deleted."}),
		removed: f.NewCounter(prometheus.CounterOpts{Name: "hearth_receive_tenants_deleted_total",
			Help: "Tenants whose head and local blocks were deleted here, as operators asked for it."}),
		failures: f.NewCounter(prometheus.CounterOpts{Name: "hearth_receive_tenant_deletion_failures_total",
			Help: "New reasons for which something of a tenant that is to be deleted was left, or not looked for."}),
	}
}

// report sets the gauges after a look.
func (m *deletionMetrics) report(l *block.Requests, now time.Time) {
	for state, n := range l.Count(now) {
		m.requests.WithLabelValues(string(state)).Set(float64(n))
	}
	for state, n := range l.CountSeries(now) {
		m.series.WithLabelValues(string(state)).Set(float64(n))
	}
	m.faults.Set(float64(len(l.Unreadable())))
	m.looked.Set(float64(now.UnixMilli()) / 1000)
}

type drainMetrics struct {
	phase    *prometheus.GaugeVec // 1 for the present one
	unserved prometheus.Gauge
	deadline prometheus.Gauge // unix s, 0 = no drain
}

func newDrainMetrics(reg prometheus.Registerer) *drainMetrics {
	f := promauto.With(reg)
	return &drainMetrics{
		phase: f.NewGaugeVec(prometheus.GaugeOpts{Name: "hearth_receive_drain_phase",
			Help: "1 for the phase in which the drain of this member is."}, []string{"phase"}),
		unserved: f.NewGauge(prometheus.GaugeOpts{Name: "hearth_receive_drain_unserved_blocks",
			Help: "Blocks in the bucket that a drain waits for store gateways to serve."}),
		deadline: f.NewGauge(prometheus.GaugeOpts{Name: "hearth_receive_drain_deadline_timestamp_seconds",
			Help: "When the drain under way gives up; 0 when there is none."}),
	}
}
