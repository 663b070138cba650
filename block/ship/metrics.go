package ship

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are shared by all shippers of a process.
type Metrics struct {
	// Shipped counts blocks put into the bucket, Failures the attempts that failed, a directory that could not be listed
	// among them.
	Shipped, Failures prometheus.Counter
	// Pending is the number of local blocks that are not in the bucket; Oldest is when the oldest of them was made, in
	// Unix seconds, 0 when there is none; Success is when last there was none, in Unix seconds.
	Pending, Oldest, Success prometheus.Gauge
	// Duration is how long the upload of a block took, in seconds.
	Duration prometheus.Histogram
}

// NewMetrics makes the metrics of a component, whose names begin with prefix: hearth_receive_, ... reg may be nil.
func NewMetrics(reg prometheus.Registerer, prefix string) *Metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
	}
	return &Metrics{
		Shipped:  counter("shipped_blocks_total", "Blocks put into the bucket."),
		Failures: counter("ship_failures_total", "Attempts to ship a block that failed."),
		Pending:  gauge("unshipped_blocks", "Local blocks that are not in the bucket yet."),
		Oldest: gauge("unshipped_oldest_timestamp_seconds",
			"When the oldest local block that is not in the bucket was made; 0 when there is none."),
		Success: gauge("last_successful_ship_timestamp_seconds",
			"When last every local block was found to be in the bucket."),
		Duration: f.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "ship_duration_seconds", Help: "Duration of the upload of a block.",
			Buckets: prometheus.ExponentialBuckets(0.05, 4, 8),
		}),
	}
}

// Report sets the gauges after a pass of all shippers of the process, which ended with err and left what all say.
func (m *Metrics) Report(all []Status, err error) {
	var sum Status
	for _, s := range all {
		sum = sum.with(s)
	}
	m.Pending.Set(float64(sum.Pending))
	m.Oldest.Set(unixOrZero(sum.Oldest))
	if err == nil && sum.Pending == 0 {
		m.Success.SetToCurrentTime()
	}
}

func unixOrZero(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
