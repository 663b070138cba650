package distributor

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/internal/wire"
)

type metrics struct {
	requests      *prometheus.CounterVec // by protocol version and the answer's HTTP status
	requestTime   prometheus.Histogram
	inflight      prometheus.Gauge
	inflightBytes prometheus.Gauge

	samples, histograms, exemplars prometheus.Counter     // written to a quorum, once each
	failures                       *prometheus.CounterVec // series, by kind

	tenantSamples                   *prometheus.CounterVec // written, by tenant
	limitedSamples, limitedRequests *prometheus.CounterVec // by tenant and reason

	relabelDropped prometheus.Counter // samples

	writes  *prometheus.CounterVec // to members, by kind of answer
	time    prometheus.Histogram
	retries *prometheus.CounterVec
	dropped *prometheus.CounterVec // shards
	putOff  *prometheus.CounterVec // shards
	queued  *prometheus.GaugeVec
	bytes   *prometheus.GaugeVec
	waiting *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "hearth_distributor_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: "hearth_distributor_" + name, Help: help}, labels)
	}
	duration := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{
			Name: "hearth_distributor_" + name, Help: help,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		})
	}
	written := counter("samples_written_total", "What a quorum of replicas stored, counted once.", "type")
	return &metrics{
		requests: counter("requests_total",
			"Remote-write requests by protocol version and HTTP status of the answer.", "version", "code"),
		requestTime: duration("request_duration_seconds", "Time from a request's headers to its answer."),
		inflight:    gauge("inflight_requests", "Requests being worked on.").WithLabelValues(),
		inflightBytes: gauge("inflight_bytes",
			"Memory taken by the requests being worked on: bodies, and the series they become.").WithLabelValues(),
		samples:    written.WithLabelValues("float"),
		histograms: written.WithLabelValues("histogram"),
		exemplars:  written.WithLabelValues("exemplar"),
		failures: counter("series_failures_total",
			"Series that were not stored, or not wholly, by kind of error.", "kind"),
		relabelDropped: counter("relabel_dropped_samples_total",
			"Samples of series that relabelling rules drop.").WithLabelValues(),
		tenantSamples: counter("tenant_samples_total",
			"Samples that a quorum of replicas stored, counted once, by tenant.", "tenant"),
		limitedSamples: counter("limited_samples_total",
			"Samples that were refused for a limit, by tenant and the limit's name; receiver = one that receivers keep.",
			"tenant", "reason"),
		limitedRequests: counter("limited_requests_total",
			"Requests that were refused as a whole for a limit, by tenant and the limit's name; "+
				"inflight = the bounds of this process.", "tenant", "reason"),
		writes:  counter("replica_writes_total", "Shards written to a member, by kind of answer.", "member", "kind"),
		time:    duration("replica_write_duration_seconds", "Time of one write to one member."),
		retries: counter("replica_retries_total", "Further tries to write a shard to a member.", "member"),
		dropped: counter("replica_dropped_batches_total",
			"Shards that were given up for a member, by reason.", "member", "reason"),
		putOff: counter("replica_put_off_batches_total",
			"Shards whose request was answered without them because the member was slower than the others or did not answer.",
			"member"),
		queued:  gauge("replica_queue_length", "Shards that wait for their first try, by member.", "member"),
		waiting: gauge("replica_retry_length", "Shards that wait for a further try, by member.", "member"),
		bytes: gauge("replica_memory_bytes",
			"Memory held for a member by shards whose requests have been answered.", "member"),
	}
}

// watchSeriesCache adds gauges of k.
func watchSeriesCache(reg prometheus.Registerer, k *wire.SeriesCache) {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_distributor_known_series", Help: "Ways of naming a series that are known again when they come again.",
	}, func() float64 { return float64(k.Len()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_distributor_known_bytes", Help: "Memory taken by the known series.",
	}, func() float64 { return float64(k.Memory()) })
}

// memberMetrics are the metrics of one member that a write changes.
type memberMetrics struct {
	queued, waiting, bytes prometheus.Gauge
	retries, putOff        prometheus.Counter
}

func (m *metrics) member(id string) memberMetrics {
	return memberMetrics{
		queued: m.queued.WithLabelValues(id), waiting: m.waiting.WithLabelValues(id), bytes: m.bytes.WithLabelValues(id),
		retries: m.retries.WithLabelValues(id), putOff: m.putOff.WithLabelValues(id),
	}
}

// forget removes the series of a member that left.
func (m *metrics) forget(member string) {
	l := prometheus.Labels{"member": member}
	m.writes.DeletePartialMatch(l)
	m.retries.DeletePartialMatch(l)
	m.dropped.DeletePartialMatch(l)
	m.putOff.DeletePartialMatch(l)
	m.queued.DeletePartialMatch(l)
	m.waiting.DeletePartialMatch(l)
	m.bytes.DeletePartialMatch(l)
}

// forgetTenant removes the series of a tenant that was refused for reasons.
func (m *metrics) forgetTenant(id string, reasons []string) {
	m.tenantSamples.DeleteLabelValues(id)
	for _, reason := range reasons {
		m.limitedSamples.DeleteLabelValues(id, reason)
		m.limitedRequests.DeleteLabelValues(id, reason)
	}
}
