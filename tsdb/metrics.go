package tsdb

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// defaultTenantMetrics are the library metrics worth a series per tenant; a TSDB has about a hundred.
var defaultTenantMetrics = []string{
	"prometheus_tsdb_blocks_loaded",
	"prometheus_tsdb_checkpoint_creations_failed_total",
	"prometheus_tsdb_compactions_total",
	"prometheus_tsdb_exemplar_exemplars_in_storage",
	"prometheus_tsdb_head_chunks",
	"prometheus_tsdb_head_max_time",
	"prometheus_tsdb_head_min_time",
	"prometheus_tsdb_head_out_of_order_samples_appended_total",
	"prometheus_tsdb_head_samples_appended_total",
	"prometheus_tsdb_head_series",
	"prometheus_tsdb_head_series_created_total",
	"prometheus_tsdb_head_series_removed_total",
	"prometheus_tsdb_head_truncations_failed_total",
	"prometheus_tsdb_reloads_failures_total",
	"prometheus_tsdb_storage_blocks_bytes",
	"prometheus_tsdb_too_old_samples_total",
	"prometheus_tsdb_wal_corruptions_total",
	"prometheus_tsdb_wal_writes_failed_total",
}

type metrics struct {
	samples   *prometheus.CounterVec // by type: float, histogram
	failures  *prometheus.CounterVec // series, by kind
	exemplars *prometheus.CounterVec // rejected, by reason
	metadata  prometheus.Counter     // dropped
	unknown   prometheus.Counter     // series whose labels had to be built
	cuts      *prometheus.CounterVec // by outcome
	cutTime   prometheus.Histogram
	fenceTime prometheus.Histogram   // how long writers of one tenant had to wait for a cut
	limited   *prometheus.CounterVec // series refused, by tenant and limit
	tenants   tenantLabels
	abandoned prometheus.Counter // heads that could not be closed
	salvaged  prometheus.Counter
	panics    prometheus.Counter
	exposed   atomic.Int64 // tenants whose library metrics are exposed
}

// maxTenantLabels bounds how many tenants have series of their own in metrics that name tenants.
const maxTenantLabels = 1000

// otherTenants stands for the tenants beyond that bound. No tenant can have this name.
const otherTenants = "~others"

// tenantLabels gives the first maxTenantLabels tenants a label value of their own. The zero value is ready.
type tenantLabels struct {
	mu    sync.Mutex // guards known
	known map[tenant.ID]struct{}
}

func (l *tenantLabels) label(id tenant.ID) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.known[id]; !known {
		if len(l.known) >= maxTenantLabels {
			return otherTenants
		}
		if l.known == nil {
			l.known = map[tenant.ID]struct{}{}
		}
		l.known[id] = struct{}{}
	}
	return string(id)
}

func newMetrics(reg prometheus.Registerer, d *DB) *metrics {
	f := promauto.With(reg)
	for _, s := range []State{Opening, Open, Closing, Idle, Broken} {
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "hearth_tsdb_tenants", Help: "Tenants by state of their TSDB.",
			ConstLabels: prometheus.Labels{"state": string(s)},
		}, func() float64 { return float64(d.count(s)) })
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_tsdb_read_only_tenants", Help: "Tenants that take no writes since their log could not be written.",
	}, func() float64 { return float64(d.countReadOnly()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_tsdb_disk_full", Help: "1 while writes are refused since too little of the disk is free, else 0.",
	}, func() float64 {
		if d.disk.Full() {
			return 1
		}
		return 0
	})
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_tsdb_faulty_blocks",
		Help: "Local blocks that cannot be read: their tenants go on without them. The log and /-/ready?verbose name them.",
	}, func() float64 { return float64(len(d.Faulty())) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_tsdb_foreign_directories",
		Help: "Directories and links below --tsdb.path that are no tenant's of Hearth, and are left alone. " +
			"The log names them.",
	}, func() float64 { return float64(d.countForeign()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_tsdb_kept_tenants",
		Help: "Tenants of which something was to be deleted and is kept, since there are files in it that Hearth does not " +
			"know. The log names them.",
	}, func() float64 { return float64(d.countKept()) })
	if reg != nil {
		reg.MustRegister(&limitUse{d})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	return &metrics{
		abandoned: counter("hearth_tsdb_abandoned_heads_total",
			"Heads that hang or could not be closed: their memory is lost until the process ends."),
		panics: counter("hearth_tsdb_write_panics_total",
			"Write requests that ended with a panic before the commit, and were rolled back."),
		salvaged: counter("hearth_tsdb_salvaged_logs_total",
			"Openings of tenants whose logs were damaged, and were taken without the damaged part."),
		limited: f.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_tsdb_limited_series_total",
			Help: "New series of write requests that a limit of their tenant kept out.",
		}, []string{"tenant", "limit"}),
		samples: vec("hearth_tsdb_samples_total", "Samples stored.", "type"),
		failures: vec("hearth_tsdb_failed_series_total",
			"Series of write requests of which some samples were not stored, by kind of error.", "kind"),
		exemplars: vec("hearth_tsdb_exemplars_rejected_total",
			"Exemplars that were not stored, which fails no request.", "reason"),
		metadata: counter("hearth_tsdb_metadata_dropped_total",
			"Metric families whose metadata was not kept: a tenant has too many, or the name is too long."),
		unknown: counter("hearth_tsdb_unknown_series_total", "Series of write requests that were not found by their key."),
		cuts:    vec("hearth_tsdb_cuts_total", "Cuts of heads into blocks by outcome.", "outcome"),
		fenceTime: f.NewHistogram(prometheus.HistogramOpts{
			Name: "hearth_tsdb_cut_fence_seconds", Help: "How long a cut kept the writers of its tenant waiting.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
		cutTime: f.NewHistogram(prometheus.HistogramOpts{
			Name: "hearth_tsdb_cut_duration_seconds", Help: "Duration of cuts.",
			Buckets: prometheus.ExponentialBuckets(0.05, 4, 8),
		}),
	}
}

// tenantRegisterer registers the chosen metrics of one TSDB with the label tenant, and takes them back.
type tenantRegisterer struct {
	next prometheus.Registerer // nil: nothing is registered
	want []string
	free func() // takes the tenant off the count of those that are registered

	mu   sync.Mutex // guards kept
	kept []prometheus.Collector
}

// newTenantRegisterer registers nothing beyond maxTenantLabels tenants at a time, as scrapes would become too large.
// taken counts those that are registered.
func newTenantRegisterer(
	reg prometheus.Registerer, id tenant.ID, want []string, taken *atomic.Int64,
) *tenantRegisterer {
	r := &tenantRegisterer{want: want, free: func() {}}
	if reg == nil {
		return r
	}
	if taken.Add(1) <= maxTenantLabels {
		r.free = sync.OnceFunc(func() { taken.Add(-1) })
		r.next = prometheus.WrapRegistererWith(prometheus.Labels{"tenant": string(id)}, reg)
	} else {
		taken.Add(-1)
	}
	return r
}

// Register registers c if it is wanted.
func (r *tenantRegisterer) Register(c prometheus.Collector) error {
	trimSummary(c)
	if r.next == nil || !r.wants(c) {
		return nil
	}
	if err := r.next.Register(c); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(r.kept, c)
	return nil
}

// MustRegister panics where Register fails.
func (r *tenantRegisterer) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic("BUG: metrics of a tenant registered twice: " + err.Error())
		}
	}
}

// Unregister takes the registration of c back.
func (r *tenantRegisterer) Unregister(c prometheus.Collector) bool {
	return r.next != nil && r.next.Unregister(c)
}

func (r *tenantRegisterer) unregister() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.kept {
		r.next.Unregister(c)
	}
	r.kept = nil
	r.free()
}

// wants reports whether a metric of c is wanted. A Desc shows the name of its metric only as part of its text.
func (r *tenantRegisterer) wants(c prometheus.Collector) bool {
	descs := make(chan *prometheus.Desc, 64)
	go func() { c.Describe(descs); close(descs) }()
	wanted := false
	for d := range descs {
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		for _, w := range r.want {
			wanted = wanted || w == name
		}
	}
	return wanted
}
