package receive

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

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
