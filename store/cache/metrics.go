package cache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Kind is what a value is, as metrics and the configuration name it.
type Kind uint8

// The kinds of values. A page of an index is of the kind that was read first of it.
const (
	Postings Kind = iota
	ExpandedPostings
	Series
	Chunks
	numKinds
)

var kindNames = [numKinds]string{"Postings", "ExpandedPostings", "Series", "Chunks"}

// String is the kind's name, which is Thanos's for those that Thanos has.
func (k Kind) String() string { return kindNames[k] }

// metrics have Thanos's names where the dashboards of its mixin read them.
type metrics struct {
	of             [numKinds]kindMetrics
	bucketRequests prometheus.Counter // pages of chunks
	bucketHits     prometheus.Counter
	sharedLookups  prometheus.Counter
	sharedHits     prometheus.Counter
	sharedUnusable prometheus.Counter
	joined         prometheus.Counter
}

// kindMetrics are those of one kind of values.
type kindMetrics struct {
	requests, hits             prometheus.Counter // of both tiers
	added, evicted, overflowed prometheus.Counter // of memory
	items, bytes               prometheus.Gauge   // of memory
}

func newMetrics(reg prometheus.Registerer, maxBytes int64) *metrics {
	f := promauto.With(reg)
	const index = "thanos_store_index_cache_"
	vec := func(name, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: index + name, Help: help}, []string{"item_type"})
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: index + name, Help: help}, []string{"item_type"})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "hearth_store_cache_" + name, Help: help})
	}
	bucket := func(name, help string) prometheus.Counter {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "thanos_store_bucket_cache_operation_" + name, Help: help},
			[]string{"operation", "config"}).WithLabelValues("getrange", "chunks")
	}
	f.NewGauge(prometheus.GaugeOpts{
		Name: index + "max_size_bytes", Help: "Bytes that the cache in memory may hold.",
	}).Set(float64(maxBytes))
	requests := vec("requests_total", "Pages and items that were looked up.")
	hits := vec("hits_total", "Pages and items that were found, in memory or on a shared server.")
	added := vec("items_added_total", "Pages and items that were added to memory.")
	evicted := vec("items_evicted_total", "Pages and items that memory dropped for others.")
	overflowed := vec("items_overflowed_total", "Pages and items that were too large for memory.")
	items := gauge("items", "Pages and items in memory.")
	bytes := gauge("total_size_bytes", "Bytes of pages and items in memory, with what keeping them takes.")
	m := &metrics{
		bucketRequests: bucket("requests_total", "Pages of chunks that were looked up."),
		bucketHits:     bucket("hits_total", "Pages of chunks that were found in a cache."),
		sharedLookups:  counter("shared_lookups_total", "Pages and items that were looked up on a shared server."),
		sharedHits:     counter("shared_hits_total", "Pages and items that a shared server had."),
		sharedUnusable: counter("shared_unusable_total", "Values of a shared server with a wrong length or checksum."),
		joined:         counter("joined_reads_total", "Pages that another request was reading already."),
	}
	for k := range numKinds {
		name := k.String()
		m.of[k] = kindMetrics{
			requests: requests.WithLabelValues(name), hits: hits.WithLabelValues(name), added: added.WithLabelValues(name),
			evicted: evicted.WithLabelValues(name), overflowed: overflowed.WithLabelValues(name),
			items: items.WithLabelValues(name), bytes: bytes.WithLabelValues(name),
		}
	}
	return m
}

// looked counts values that were looked up, and those that were found.
func (m *metrics) looked(k Kind, requests, hits int) {
	m.of[k].requests.Add(float64(requests))
	m.of[k].hits.Add(float64(hits))
	if k == Chunks {
		m.bucketRequests.Add(float64(requests))
		m.bucketHits.Add(float64(hits))
	}
}

func (m *metrics) kept(k Kind, size int64) {
	m.of[k].added.Inc()
	m.of[k].items.Inc()
	m.of[k].bytes.Add(float64(size))
}

func (m *metrics) dropped(k Kind, size int64) {
	m.of[k].evicted.Inc()
	m.of[k].items.Dec()
	m.of[k].bytes.Sub(float64(size))
}
