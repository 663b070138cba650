package sidecar

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"

	"github.com/hearth-metrics/hearth/block/ship"
)

type metrics struct {
	up                        prometheus.Gauge
	frames                    prometheus.Histogram
	bytes, resorted, reencode prometheus.Counter
	reads                     prometheus.Gauge

	ship *ship.Metrics
	// As Thanos's shipper counts.
	syncs, syncFailures, corrupted prometheus.Counter
	compacted                      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		up: f.NewGauge(prometheus.GaugeOpts{Name: "thanos_sidecar_prometheus_up",
			Help: "Whether Prometheus answered the last question, and can be served."}),
		frames: f.NewHistogram(prometheus.HistogramOpts{Name: "prometheus_store_received_frames",
			Help: "Frames of a streamed remote read.", Buckets: prometheus.ExponentialBuckets(10, 10, 5)}),
		bytes: counter("hearth_sidecar_read_bytes_total", "Bytes of frames that came from Prometheus."),
		resorted: counter("hearth_sidecar_resorted_requests_total", "Requests whose series had to be held and sorted, since "+
			"series have labels of their own that are called as external labels, or as labels that the caller wants dropped."),
		reencode: counter("hearth_sidecar_reencoded_chunks_total", "Chunks of an encoding that readers do not know, which "+
			"were written anew."),
		reads: f.NewGauge(prometheus.GaugeOpts{Name: "hearth_sidecar_reads", Help: "Remote reads under way."}),
		ship:  ship.NewMetrics(reg, "hearth_sidecar_"),
		syncs: counter("thanos_shipper_dir_syncs_total", "Looks at Prometheus's directory for blocks to ship."),
		syncFailures: counter("thanos_shipper_dir_sync_failures_total",
			"Looks at Prometheus's directory after which a block could not be shipped."),
		corrupted: counter("thanos_shipper_corrupted_blocks_total",
			"Blocks that could not be read when Prometheus's directory was looked at."),
		compacted: f.NewGauge(prometheus.GaugeOpts{Name: "thanos_shipper_upload_compacted_done",
			Help: "Whether all blocks are in the bucket, those that Prometheus compacted included."}),
	}
	same := func(name, help string, as prometheus.Counter) {
		f.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return valueOf(as) })
	}
	same("thanos_shipper_uploads_total", "Blocks put into the bucket.", m.ship.Shipped)
	same("thanos_shipper_upload_failures_total", "Attempts to ship a block that failed.", m.ship.Failures)
	return m
}

// valueOf is the value of a counter.
func valueOf(c prometheus.Counter) float64 {
	var out dto.Metric
	if c.Write(&out) != nil {
		return 0
	}
	return out.GetCounter().GetValue()
}
