package compact

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/compact/plan"
)

// The values of the label marker: the object that was written.
const markerDeletion = block.DeletionMarkName

// resolutions are the values of the label resolution, in ms, as Thanos has them.
var resolutions = []string{"0", "300000", "3600000"}

type metrics struct {
	// Hearth's own.
	jobs        *prometheus.CounterVec // by kind and outcome
	running     prometheus.Gauge
	failedJobs  prometheus.Gauge
	badBlocks   prometheus.Gauge
	resting     prometheus.Gauge
	lastLook    prometheus.Gauge
	lastPass    *prometheus.GaugeVec // by loop
	passFaults  *prometheus.CounterVec
	blocks      prometheus.Gauge
	marksAhead  prometheus.Gauge
	bytesIn     prometheus.Counter
	bytesOut    prometheus.Counter
	shorterWait prometheus.Gauge
	view        atomic.Pointer[block.View] // that of the last look
	unreadable  prometheus.Gauge
	toErase     prometheus.Gauge

	// Thanos's.
	retries, iterations, cleanups                       prometheus.Counter
	partialAttempts, partialDeleted, deleted            prometheus.Counter
	deletionFailures, collected                         prometheus.Counter
	marked                                              *prometheus.CounterVec // by marker and reason
	collections, collectionFaults                       prometheus.Counter
	collectionSeconds                                   prometheus.Histogram
	compactions, started, completed, failures, vertical *prometheus.CounterVec // by resolution
	downsampled, downsampleFaults                       *prometheus.CounterVec
	downsampleSeconds                                   *prometheus.HistogramVec
	todoJobs, todoBlocks, todoDownsample, todoDeletion  prometheus.Gauge
	syncs, syncFaults                                   prometheus.Counter   // nil with Options.SharedNames
	syncSeconds                                         prometheus.Histogram // so too
	synced                                              *prometheus.GaugeVec // so too
}

func newMetrics(reg prometheus.Registerer, o Options) *metrics {
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	const own, thanos, group = "hearth_compact_", "thanos_compact_", "thanos_compact_group_"
	m := &metrics{
		jobs: counters(own+"jobs_total", "Jobs that ended, by kind and outcome: ok, dropped (others did it, or what it "+
			"needs is gone), or the kind of error.", "kind", "outcome"),
		running:    gauge(own+"jobs_running", "Jobs that run."),
		failedJobs: gauge(own+"failed_jobs", "Jobs that failed and are tried again later."),
		badBlocks:  gauge(own+"quarantined_blocks", "Blocks that jobs leave out, since they cannot be read."),
		resting: gauge(own+"resting", "1 while nothing is compacted, marked or deleted, since a clock is wrong or another "+
			"compactor works in the bucket. The log and /compact say why."),
		lastLook: gauge(own+"last_successful_look_timestamp_seconds", "When the bucket was last seen whole."),
		lastPass: f.NewGaugeVec(prometheus.GaugeOpts{Name: own + "last_successful_pass_timestamp_seconds",
			Help: "When a loop last did all that there was to do: jobs, keep or clean."}, []string{"loop"}),
		passFaults: counters(own+"pass_failures_total", "Passes of a loop that left something undone, by loop.", "loop"),
		blocks:     gauge(own+"blocks", "Blocks in the bucket."),
		marksAhead: gauge(own+"marked_blocks", "Blocks that are marked for deletion and still there."),
		bytesIn:    counter(own+"read_bytes_total", "Bytes of the blocks that jobs merged."),
		bytesOut:   counter(own+"written_bytes_total", "Bytes of the blocks that jobs made."),
		shorterWait: gauge(own+"retention_waiting_bytes",
			"Bytes of blocks that a shorter retention takes once it was in force for the time that it waits."),
		toErase: gauge(own+"blocks_to_erase", "Blocks that may have samples which operators asked to delete, and that "+
			"are due: each is looked at, and made anew if it has some."),
		unreadable: gauge(own+"unreadable_tenant_deletions",
			"Objects of requests to delete a tenant that cannot be read, and have no effect."),

		retries:    counter(thanos+"retries_total", "Jobs that were tried again."),
		iterations: counter(thanos+"iterations_total", "Passes of the loop that compacts."),
		cleanups:   counter(thanos+"block_cleanup_loops_total", "Passes of the loop that deletes."),
		partialAttempts: counter(thanos+"aborted_partial_uploads_deletion_attempts_total",
			"Deletions of what broken off uploads left."),
		partialDeleted:   counter(own+"partial_uploads_deleted_total", "Uploads that were broken off and deleted."),
		deleted:          counter(thanos+"blocks_cleaned_total", "Blocks that were marked and are deleted."),
		deletionFailures: counter(thanos+"block_cleanup_failures_total", "Deletions that failed."),
		collected: counter(thanos+"garbage_collected_blocks_total",
			"Blocks that were marked since others replace them."),
		marked: counters(thanos+"blocks_marked_total", "Marks that were written, by what they say and why.", "marker",
			"reason"),
		collections:      counter(thanos+"garbage_collection_total", "Passes that looked for blocks that others replace."),
		collectionFaults: counter(thanos+"garbage_collection_failures_total", "Such passes that failed."),
		collectionSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: thanos + "garbage_collection_duration_seconds", Help: "How long such a pass took.",
			Buckets: prometheus.DefBuckets}),
		compactions: counters(group+"compactions_total", "Jobs that merged blocks.", "resolution"),
		started:     counters(group+"compaction_runs_started_total", "Jobs that began.", "resolution"),
		completed:   counters(group+"compaction_runs_completed_total", "Jobs that ended well.", "resolution"),
		failures:    counters(group+"compactions_failures_total", "Jobs that failed.", "resolution"),
		vertical:    counters(group+"vertical_compactions_total", "Jobs whose inputs overlap.", "resolution"),
		downsampled: counters(thanos+"downsample_total", "Blocks that were downsampled, by their resolution.", "resolution"),
		downsampleFaults: counters(thanos+"downsample_failures_total",
			"Downsampling that failed, by resolution of the input.", "resolution"),
		downsampleSeconds: f.NewHistogramVec(prometheus.HistogramOpts{Name: thanos + "downsample_duration_seconds",
			Help:    "How long it took to downsample a block.",
			Buckets: []float64{60, 300, 900, 1800, 3600, 7200, 14400}}, []string{"resolution"}),
		todoJobs:       gauge(thanos+"todo_compactions", "Jobs that are left to be done, with those that follow from them."),
		todoBlocks:     gauge(thanos+"todo_compaction_blocks", "Blocks that these jobs merge."),
		todoDownsample: gauge(thanos+"todo_downsample_blocks", "Blocks that are left to be downsampled alone."),
		todoDeletion:   gauge(thanos+"todo_deletion_blocks", "Blocks that are past their retention, and not marked."),
	}
	m.view.Store(&block.View{})
	m.showRequests(f, o)
	gauge(thanos+"halted", "Always 0: a fault stops one job, and everything else goes on. See "+
		"hearth_compact_quarantined_blocks.").Set(0)
	gauge("thanos_delete_delay_seconds", "How long a block stays after it was marked.").Set(o.DeleteDelay.Seconds())
	gauge("thanos_consistency_delay_seconds", "Age from which blocks are compacted.").Set(o.ConsistencyDelay.Seconds())
	for _, r := range resolutions {
		for _, v := range []*prometheus.CounterVec{m.compactions, m.started, m.completed, m.failures, m.vertical,
			m.downsampled, m.downsampleFaults} {
			v.WithLabelValues(r)
		}
	}
	for _, reason := range []string{becauseCompacted, becauseOutdated, becauseRetention, becauseDeleted} {
		m.marked.WithLabelValues(markerDeletion, reason)
	}
	if !o.SharedNames {
		const meta = "thanos_blocks_meta_"
		m.syncs = counter(meta+"syncs_total", "Looks at the bucket.")
		m.syncFaults = counter(meta+"sync_failures_total", "Looks at the bucket that failed.")
		m.syncSeconds = f.NewHistogram(prometheus.HistogramOpts{Name: meta + "sync_duration_seconds",
			Help: "How long a look at the bucket took.", Buckets: []float64{0.01, 1, 10, 100, 300, 600, 1000}})
		m.synced = f.NewGaugeVec(prometheus.GaugeOpts{Name: meta + "synced",
			Help: "Directories of blocks in the bucket, by state."}, []string{"state"})
	}
	return m
}

// showRequests registers the gauges of requests to delete something.
func (m *metrics) showRequests(f promauto.Factory, o Options) {
	const own = "hearth_compact_"
	for state := range m.view.Load().Requests.Count(time.Time{}) {
		// By the time of the scrape: a request becomes due without anybody writing anything.
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: own + "tenant_deletions",
			Help:        "Requests to delete a tenant, by state: waiting, held, undone, due or renewed.",
			ConstLabels: prometheus.Labels{"state": string(state)}},
			func() float64 { return float64(m.view.Load().Requests.Count(o.Now())[state]) })
	}
	for state := range m.view.Load().Requests.CountSeries(time.Time{}) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: own + "series_deletions",
			Help:        "Requests to delete samples of series, by state: waiting, held, undone, due or ended.",
			ConstLabels: prometheus.Labels{"state": string(state)}},
			func() float64 { return float64(m.view.Load().Requests.CountSeries(o.Now())[state]) })
	}
}

// looked records a look at the bucket.
func (m *metrics) looked(v block.View, err error, took time.Duration) {
	if m.syncs != nil {
		m.syncs.Inc()
		m.syncSeconds.Observe(took.Seconds())
	}
	if err != nil {
		if m.syncFaults != nil {
			m.syncFaults.Inc()
		}
		return
	}
	m.blocks.Set(float64(len(v.Metas)))
	m.marksAhead.Set(float64(len(v.Deletions)))
	m.view.Store(&v)
	m.unreadable.Set(float64(len(v.Requests.Unreadable())))
	if m.synced == nil {
		return
	}
	states := v.States()
	states["marked-for-no-compact"], states["marked-for-no-downsample"] = len(v.NoCompact), len(v.NoDownsample)
	for state, n := range states {
		m.synced.WithLabelValues(state).Set(float64(n))
	}
}

// collectedPass records a search for blocks that others replace.
func (m *metrics) collectedPass(took time.Duration, err error) {
	m.collections.Inc()
	m.collectionSeconds.Observe(took.Seconds())
	if err != nil {
		m.collectionFaults.Inc()
	}
}

// finished records a job that ended well.
func (m *metrics) finished(j *plan.Job, took time.Duration) {
	in := strconv.FormatInt(j.Resolution, 10)
	if j.Kind != plan.Downsample && j.Kind != plan.Erase {
		m.compactions.WithLabelValues(in).Inc()
		if overlapping(j.Inputs) {
			m.vertical.WithLabelValues(in).Inc()
		}
	}
	for _, o := range j.Outputs {
		if o.Resolution > j.Resolution && o.Part.Shard == j.Part.Shard { // once for all parts
			finer := "0"
			if o.Resolution == plan.OneHour {
				finer = strconv.FormatInt(plan.FiveMin, 10)
			}
			m.downsampled.WithLabelValues(finer).Inc()
			m.downsampleSeconds.WithLabelValues(finer).Observe(took.Seconds())
		}
	}
}

// overlapping reports whether blocks, sorted by MinTime, overlap.
func overlapping(blocks []*block.Meta) bool {
	maxt := blocks[0].MaxTime
	for _, m := range blocks[1:] {
		if m.MinTime < maxt {
			return true
		}
		maxt = max(maxt, m.MaxTime)
	}
	return false
}

// passed records the end of a pass of a loop.
func (m *metrics) passed(loop string, at time.Time, err error) {
	if err != nil {
		m.passFaults.WithLabelValues(loop).Inc()
		return
	}
	m.lastPass.WithLabelValues(loop).Set(float64(at.UnixMilli()) / 1000)
}
