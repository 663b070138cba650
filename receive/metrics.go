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
