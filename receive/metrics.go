package receive

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	shipped  prometheus.Counter
	failures prometheus.Counter
	pending  prometheus.Gauge // blocks not in the bucket
	oldest   prometheus.Gauge // unix s: the oldest end of a block that is not in the bucket, 0 none
	success  prometheus.Gauge // unix s
	duration prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		shipped:  f.NewCounter(prometheus.CounterOpts{Name: "hearth_receive_shipped_blocks_total", Help: "Blocks put into the bucket."}),
		failures: f.NewCounter(prometheus.CounterOpts{Name: "hearth_receive_ship_failures_total", Help: "Attempts to ship a block that failed."}),
		pending:  f.NewGauge(prometheus.GaugeOpts{Name: "hearth_receive_unshipped_blocks", Help: "Local blocks that are not in the bucket yet."}),
		oldest: f.NewGauge(prometheus.GaugeOpts{
			Name: "hearth_receive_unshipped_oldest_timestamp_seconds", Help: "When the oldest local block that is not in the bucket was made; 0 when there is none.",
		}),
		success: f.NewGauge(prometheus.GaugeOpts{
			Name: "hearth_receive_last_successful_ship_timestamp_seconds", Help: "When last every local block was found to be in the bucket.",
		}),
		duration: f.NewHistogram(prometheus.HistogramOpts{
			Name: "hearth_receive_ship_duration_seconds", Help: "Duration of the upload of a block.", Buckets: prometheus.ExponentialBuckets(0.05, 4, 8),
		}),
	}
}

type drainMetrics struct {
	phase    *prometheus.GaugeVec // 1 for the present one
	unserved prometheus.Gauge
	deadline prometheus.Gauge // unix s, 0 = no drain
}

func newDrainMetrics(reg prometheus.Registerer) *drainMetrics {
	f := promauto.With(reg)
	return &drainMetrics{
		phase:    f.NewGaugeVec(prometheus.GaugeOpts{Name: "hearth_receive_drain_phase", Help: "1 for the phase in which the drain of this member is."}, []string{"phase"}),
		unserved: f.NewGauge(prometheus.GaugeOpts{Name: "hearth_receive_drain_unserved_blocks", Help: "Blocks in the bucket that a drain waits for store gateways to serve."}),
		deadline: f.NewGauge(prometheus.GaugeOpts{Name: "hearth_receive_drain_deadline_timestamp_seconds", Help: "When the drain under way gives up; 0 when there is none."}),
	}
}
