package store

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	syncs        *prometheus.CounterVec // by outcome: ok, failed
	lastSync     prometheus.Gauge
	blocks       prometheus.Gauge
	quarantined  prometheus.Gauge
	partial      prometheus.Gauge
	opened       prometheus.Counter
	dropped      prometheus.Counter
	requests     *prometheus.CounterVec // by verb: select, names, values
	refused      *prometheus.CounterVec // by limit: open requests, request bytes, process bytes
	blockFaults  *prometheus.CounterVec // by kind of error
	bytesRead    *prometheus.CounterVec // by what: index, chunks
	rangeReads   *prometheus.CounterVec
	openRequests prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "hearth_store_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "hearth_store_" + name, Help: help})
	}
	return &metrics{
		syncs:       counter("syncs_total", "Looks at the bucket, by outcome.", "outcome"),
		lastSync:    gauge("last_successful_sync_timestamp_seconds", "When the bucket was last seen whole."),
		blocks:      gauge("blocks", "Blocks that are served."),
		quarantined: gauge("blocks_quarantined", "Blocks that should be served and cannot be opened."),
		partial:     gauge("blocks_partial", "Directories in the bucket without a valid meta.json."),
		opened:      f.NewCounter(prometheus.CounterOpts{Name: "hearth_store_blocks_opened_total", Help: "Blocks opened."}),
		dropped: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_store_blocks_dropped_total", Help: "Blocks no longer served.",
		}),
		requests: counter("requests_total", "Requests, by verb.", "verb"),
		refused:  counter("refused_total", "Requests that met a limit, by limit.", "limit"),
		blockFaults: counter("block_faults_total",
			"Blocks, series and chunks that could not be read for a request, by kind of error.", "kind"),
		bytesRead:    counter("read_bytes_total", "Bytes read from the bucket, by what they are.", "what"),
		rangeReads:   counter("range_reads_total", "Range reads of the bucket, by what they are.", "what"),
		openRequests: gauge("open_requests", "Requests that are open."),
	}
}
