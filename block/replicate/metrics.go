package replicate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics have the names of Thanos's.
type Metrics struct {
	runs                     *prometheus.CounterVec
	duration                 *prometheus.HistogramVec
	already, blocks, objects prometheus.Counter
}

// NewMetrics makes the metrics; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{
		runs: f.NewCounterVec(prometheus.CounterOpts{Name: "thanos_replicate_replication_runs_total",
			Help: "Passes over the source, by result: success, or error where source and target are not equal."},
			[]string{"result"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{Name: "thanos_replicate_replication_run_duration_seconds",
			Help:    "How long a pass took, by result.",
			Buckets: prometheus.DefBuckets}, []string{"result"}),
		already: f.NewCounter(prometheus.CounterOpts{Name: "thanos_replicate_blocks_already_replicated_total",
			Help: "Blocks that a pass found whole in the target."}),
		blocks: f.NewCounter(prometheus.CounterOpts{Name: "thanos_replicate_blocks_replicated_total",
			Help: "Blocks that were copied or repaired."}),
		objects: f.NewCounter(prometheus.CounterOpts{Name: "thanos_replicate_objects_replicated_total",
			Help: "Objects that were sent: files, marks, and each meta.json."}),
	}
	for _, result := range []string{"success", "error"} {
		m.runs.WithLabelValues(result)
		m.duration.WithLabelValues(result)
	}
	return m
}

// ran counts a pass.
func (m *Metrics) ran(took time.Duration, err error) {
	result := "success"
	if err != nil {
		result = "error"
	}
	m.runs.WithLabelValues(result).Inc()
	m.duration.WithLabelValues(result).Observe(took.Seconds())
}
