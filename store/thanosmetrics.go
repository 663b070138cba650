package store

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"

	"github.com/hearth-metrics/hearth/block"
)

// thanosMetrics are the numbers that dashboards and alerts of Thanos's mixin read, under Thanos's names. They have no
// label for the tenant, which the mixin sums away: with thousands of tenants each histogram would be thousands of
// series.
type thanosMetrics struct {
	loads        prometheus.Counter
	loadFailures prometheus.Counter
	lastLoaded   prometheus.Gauge

	syncs, syncFailures prometheus.Counter
	syncSeconds         prometheus.Histogram
	synced              *prometheus.GaugeVec // by state

	blocksQueried prometheus.Histogram
	resultSeries  prometheus.Histogram
	chunkSize     prometheus.Histogram
	getAll, merge prometheus.Histogram
	gate          prometheus.Histogram
	gateInFlight  prometheus.Gauge
	touched       [tallied]prometheus.Observer
	touchedBytes  [tallied]prometheus.Observer
	fetched       [tallied]prometheus.Observer
	fetchedBytes  [tallied]prometheus.Observer
}

const thanosPrefix = "thanos_bucket_store_"

func newThanosMetrics(reg prometheus.Registerer, gateMax int) thanosMetrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: thanosPrefix + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: thanosPrefix + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: thanosPrefix + name, Help: help, Buckets: buckets})
	}
	byData := func(name, help string, least float64) (out [tallied]prometheus.Observer) {
		v := f.NewHistogramVec(prometheus.HistogramOpts{
			Name: thanosPrefix + name, Help: help, Buckets: prometheus.ExponentialBuckets(least, 2, 15),
		}, []string{"data_type"})
		for i, name := range dataTypes {
			out[i] = v.WithLabelValues(name)
		}
		return out
	}
	const meta = "thanos_blocks_meta_"
	seconds := []float64{0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120}
	const kB, MB = 1 << 10, 1 << 20
	m := thanosMetrics{
		loads:        counter("block_loads_total", "Blocks that came into what is served, or should have."),
		loadFailures: counter("block_load_failures_total", "Blocks that should be served and could not be opened."),
		lastLoaded:   gauge("blocks_last_loaded_timestamp_seconds", "When a block last came into what is served."),
		syncs:        f.NewCounter(prometheus.CounterOpts{Name: meta + "syncs_total", Help: "Looks at the bucket."}),
		syncFailures: f.NewCounter(prometheus.CounterOpts{
			Name: meta + "sync_failures_total", Help: "Looks at the bucket that failed.",
		}),
		syncSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: meta + "sync_duration_seconds", Help: "How long a look at the bucket took.",
			Buckets: []float64{0.01, 1, 10, 100, 300, 600, 1000},
		}),
		synced: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: meta + "synced", Help: "Directories of blocks in the bucket, by state.",
		}, []string{"state"}),
		blocksQueried: histogram("series_blocks_queried", "Blocks of one select.", prometheus.ExponentialBuckets(1, 2, 10)),
		resultSeries:  histogram("series_result_series", "Series of one select.", prometheus.ExponentialBuckets(100, 2, 15)),
		chunkSize: histogram("sent_chunk_size_bytes", "Bytes of the chunks of one series that was sent.",
			[]float64{32, 256, 512, kB, 32 * kB, 256 * kB, 512 * kB, MB, 32 * MB, 256 * MB, 512 * MB}),
		getAll: histogram("series_get_all_duration_seconds", "From the begin of a select to its first series.", seconds),
		merge:  histogram("series_merge_duration_seconds", "From the first series of a select to its end.", seconds),
		gate: histogram("series_gate_duration_seconds", "How long a part of a select waited until it could read.",
			[]float64{0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720}),
		gateInFlight: gauge("series_gate_queries_in_flight", "Parts of selects that read."),
		touched:      byData("series_data_touched", "Postings lists, series or chunks that one select read.", 200),
		touchedBytes: byData("series_data_size_touched_bytes", "Bytes that one select read, of caches too.", kB),
		fetched:      byData("series_data_fetched", "Range reads of the bucket for one select.", 200),
		fetchedBytes: byData("series_data_size_fetched_bytes", "Bytes read of the bucket for one select.", kB),
	}
	gauge("series_gate_queries_max", "Parts of selects that may read at once.").Set(float64(gateMax))
	counter("block_drop_failures_total", "Always 0: a block that is no longer served is let go in memory.")
	return m
}

// looked records a look at the bucket.
func (m *thanosMetrics) looked(v block.View, err error, took time.Duration) {
	m.syncs.Inc()
	m.syncSeconds.Observe(took.Seconds())
	if err != nil {
		m.syncFailures.Inc()
		return
	}
	for state, n := range v.States() {
		m.synced.WithLabelValues(state).Set(float64(n))
	}
}

// swapped counts blocks that came into what is served.
func (m *thanosMetrics) swapped(came int, now time.Time) {
	if m.loads.Add(float64(came)); came > 0 {
		m.lastLoaded.Set(float64(now.UnixMilli()) / 1000)
	}
}

// failed counts a block that could not be opened.
func (m *thanosMetrics) failed() {
	m.loads.Inc()
	m.loadFailures.Inc()
}

// selected records a select of that many blocks that has ended.
func (m *thanosMetrics) selected(t *tally, blocks int) {
	m.blocksQueried.Observe(float64(blocks))
	m.resultSeries.Observe(float64(t.yielded))
	now := time.Now()
	first := t.first
	if t.yielded == 0 {
		first = now
	}
	m.getAll.Observe(first.Sub(t.began).Seconds())
	m.merge.Observe(now.Sub(first).Seconds())
	for i := range dataTypes {
		m.touched[i].Observe(float64(t.touched[i].items.Load()))
		m.touchedBytes[i].Observe(float64(t.touched[i].bytes.Load()))
		m.fetched[i].Observe(float64(t.fetched[i].items.Load()))
		m.fetchedBytes[i].Observe(float64(t.fetched[i].bytes.Load()))
	}
}

// alias is a metric under a second name, so that the two can never disagree. labels are the second names of its labels.
type alias struct {
	of   prometheus.Collector
	desc *prometheus.Desc
}

// aliases registers the metrics of m that have a name of Thanos's too.
func (m *metrics) aliases(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	for _, a := range []struct {
		of         prometheus.Collector
		name, help string
		labels     []string
	}{
		{m.blocks, thanosPrefix + "blocks_loaded", "Blocks that are served.", nil},
		{m.dropped, thanosPrefix + "block_drops_total", "Blocks no longer served.", nil},
		{m.refused, thanosPrefix + "queries_dropped_total", "Requests that met a limit, by limit.", []string{"reason"}},
	} {
		reg.MustRegister(alias{a.of, prometheus.NewDesc(a.name, a.help, a.labels, nil)})
	}
}

// Describe implements prometheus.Collector.
func (a alias) Describe(to chan<- *prometheus.Desc) { to <- a.desc }

// Collect implements prometheus.Collector.
func (a alias) Collect(to chan<- prometheus.Metric) {
	from := make(chan prometheus.Metric)
	go func() {
		defer close(from)
		a.of.Collect(from)
	}()
	for m := range from {
		var d dto.Metric
		if err := m.Write(&d); err != nil {
			to <- prometheus.NewInvalidMetric(a.desc, err)
			continue
		}
		var values []string
		for _, l := range d.Label {
			values = append(values, l.GetValue())
		}
		kind, v := prometheus.GaugeValue, d.GetGauge().GetValue()
		if d.Counter != nil {
			kind, v = prometheus.CounterValue, d.Counter.GetValue()
		}
		to <- prometheus.MustNewConstMetric(a.desc, kind, v, values...)
	}
}
