package store

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

type metrics struct {
	syncs        *prometheus.CounterVec // by outcome: ok, failed
	lastSync     prometheus.Gauge
	blocks       prometheus.Gauge
	owned        prometheus.Gauge
	kept         prometheus.Gauge
	unserved     prometheus.Gauge
	quarantined  prometheus.Gauge
	partial      prometheus.Gauge
	headersOpen  prometheus.Gauge
	headerLoads  *prometheus.CounterVec // by outcome: ok, or the kind of error
	replans      prometheus.Counter
	retries      prometheus.Counter
	lazy         lazyMetrics
	dropped      prometheus.Counter
	requests     *prometheus.CounterVec // by verb: select, names, values
	refused      *prometheus.CounterVec // by limit: open requests, request bytes, series and samples, process bytes
	blockFaults  *prometheus.CounterVec // by kind of error
	bytesRead    *prometheus.CounterVec // by what: index, chunks
	rangeReads   *prometheus.CounterVec
	hedges       prometheus.Counter
	hedgesWon    prometheus.Counter
	openRequests prometheus.Gauge
	thanos       thanosMetrics
}

// newMetrics makes the metrics of a gateway of which readers parts of selects read at once.
func newMetrics(reg prometheus.Registerer, readers int) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "hearth_store_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "hearth_store_" + name, Help: help})
	}
	m := &metrics{
		syncs:    counter("syncs_total", "Looks at the bucket, by outcome.", "outcome"),
		lastSync: gauge("last_successful_sync_timestamp_seconds", "When the bucket was last seen whole."),
		blocks:   gauge("blocks", "Blocks that are served."),
		owned:    gauge("owned_blocks", "Blocks of which this gateway is an owner."),
		kept:     gauge("kept_blocks", "Blocks that are served until others serve them, or what replaces them."),
		unserved: gauge("unserved_blocks",
			"Blocks that this gateway owns and cannot open, and that no other owner serves."),
		quarantined: gauge("blocks_quarantined", "Blocks that should be served and cannot be opened."),
		partial:     gauge("blocks_partial", "Directories in the bucket without a valid meta.json."),
		headersOpen: gauge("index_headers_open", "Index-headers that are open."),
		headerLoads: counter("index_header_loads_total", "Index-headers opened, by outcome: ok, or the kind of error.",
			"outcome"),
		replans: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_store_replans_total",
			Help: "Times that a request found blocks gone or broken, and what is served was decided anew.",
		}),
		retries: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_store_read_retries_total",
			Help: "Reads of the bucket that were made once more, since they failed or ended early.",
		}),
		lazy: newLazyMetrics(f),
		dropped: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_store_blocks_dropped_total", Help: "Blocks no longer served.",
		}),
		requests: counter("requests_total", "Requests, by verb.", "verb"),
		refused:  counter("refused_total", "Requests that met a limit, by limit.", "limit"),
		blockFaults: counter("block_faults_total",
			"Blocks, series and chunks that could not be read for a request, by kind of error.", "kind"),
		bytesRead:  counter("read_bytes_total", "Bytes read from the bucket, by what they are.", "what"),
		rangeReads: counter("range_reads_total", "Range reads of the bucket, by what they are.", "what"),
		hedges: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_store_second_reads_total",
			Help: "Range reads of the bucket that were begun a second time, since the first one was slow.",
		}),
		hedgesWon: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_store_second_reads_won_total", Help: "Second tries of range reads that gave the answer.",
		}),
		openRequests: gauge("open_requests", "Requests that are open."),
		thanos:       newThanosMetrics(reg, readers),
	}
	m.aliases(reg)
	return m
}

// lazyMetrics are those of index-headers that Thanos's dashboards and alerts read.
type lazyMetrics struct {
	loads, loadFailures, unloads, unloadFailures prometheus.Counter
	duration, download, read                     prometheus.Histogram
}

func newLazyMetrics(f promauto.Factory) lazyMetrics {
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "thanos_bucket_store_indexheader_lazy_" + name, Help: help})
	}
	histogram := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{
			Name: "thanos_bucket_store_indexheader_" + name, Help: help,
			Buckets: []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 30, 60, 90, 120, 300},
		})
	}
	return lazyMetrics{
		loads:          counter("load_total", "Index-headers that were to be opened."),
		loadFailures:   counter("load_failed_total", "Index-headers that could not be opened."),
		unloads:        counter("unload_total", "Index-headers that were to be closed as nobody used them."),
		unloadFailures: counter("unload_failed_total", "Index-headers that could not be closed."),
		duration:       histogram("lazy_load_duration_seconds", "How long it took to open an index-header, all in all."),
		download:       histogram("download_duration_seconds", "How long it took to read an index-header from the bucket."),
		read:           histogram("load_duration_seconds", "How long it took to open an index-header on local disk."),
	}
}

// looked records a look at the bucket.
func (m *metrics) looked(v block.View, err error, took time.Duration) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.syncs.WithLabelValues(outcome).Inc()
	m.thanos.looked(v, err, took)
}

// headerLoaded counts an index-header that was opened, or was not.
func (m *metrics) headerLoaded(took time.Duration, err error) {
	m.headerLoads.WithLabelValues(errs.KindOf(err).String()).Inc()
	m.lazy.loads.Inc()
	if err != nil {
		m.lazy.loadFailures.Inc()
		return
	}
	m.lazy.duration.Observe(took.Seconds())
}

// headerUnloaded counts an index-header that was closed.
func (m *metrics) headerUnloaded(err error) {
	m.lazy.unloads.Inc()
	if err != nil {
		m.lazy.unloadFailures.Inc()
	}
}

// count shows how many blocks a snapshot serves, and why.
func (m *metrics) count(c counts) {
	m.blocks.Set(float64(c.serves))
	m.owned.Set(float64(c.owns))
	m.kept.Set(float64(c.kept))
}
