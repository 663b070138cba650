package static

import (
	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	reads     prometheus.Counter
	faults    prometheus.Counter
	good      prometheus.Gauge
	loaded    prometheus.Gauge
	hash      prometheus.Gauge
	local     prometheus.Gauge // nil in a process that stores nothing
	endpoints *prometheus.GaugeVec
	tenants   *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, local string) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "hearth_hashrings_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "hearth_hashrings_" + name, Help: help})
	}
	m := &metrics{
		reads:  counter("reads_total", "Reads of the hashring file."),
		faults: counter("read_failures_total", "Reads that gave no valid hashrings; the last good ones stay."),
		good:   gauge("last_read_successful", "1 if the last read gave valid hashrings."),
		loaded: gauge("last_change_timestamp_seconds", "When the hashrings in use were loaded."),
		hash:   gauge("config_hash", "Hash of the hashring file in use: the same on all processes that use the same."),
		endpoints: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hearth_hashrings_endpoints", Help: "Endpoints of a hashring.",
		}, []string{"hashring"}),
		tenants: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hearth_hashrings_tenants", Help: "Tenant names and patterns of a hashring; 0 = it takes all.",
		}, []string{"hashring"}),
	}
	if local != "" {
		m.local = gauge("local_endpoint_listed", "1 if a hashring names this process; 0 = it is given no series to store.")
	}
	return m
}

// setInUse records that rings, which were read from content, are in use.
func (m *metrics) setInUse(rings []hashring, content []byte) {
	m.loaded.SetToCurrentTime()
	m.hash.Set(float64(xxhash.Sum64(content) >> 11)) // 53 bits, which a float holds exactly
	m.endpoints.Reset()
	m.tenants.Reset()
	for _, r := range rings {
		m.endpoints.WithLabelValues(r.Name).Add(float64(len(r.Endpoints)))
		m.tenants.WithLabelValues(r.Name).Add(float64(len(r.Tenants)))
	}
}
