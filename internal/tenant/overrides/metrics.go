package overrides

import (
	"reflect"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

type metrics struct {
	good, loaded, hash prometheus.Gauge
	reads, faults      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, table func() *tenant.LimitTable) *metrics {
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "hearth_runtime_config_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "hearth_runtime_config_" + name, Help: help})
	}
	if reg != nil {
		reg.MustRegister(limitCollector{table})
	}
	return &metrics{
		good: gauge("last_reload_successful", "1 if the limits files were valid when they were last read; else the last "+
			"good ones are in force."),
		loaded: gauge("last_reload_success_timestamp_seconds", "When the limits files were last read and valid."),
		hash:   gauge("hash", "Hash of the limits files in force: the same on all processes that use the same."),
		reads:  counter("reloads_total", "Reads of the limits files."),
		faults: counter("reload_failures_total", "Reads of limits files that were not valid; the last good ones stay in "+
			"force."),
	}
}

var limitDesc = prometheus.NewDesc("hearth_limit",
	"Limits in force, 0 = none, durations in seconds: the defaults with an empty tenant, of a tenant only those that "+
		"differ.", []string{"tenant", "limit"}, nil)

// limitCollector gives the numeric limits as metrics.
type limitCollector struct{ table func() *tenant.LimitTable }

// Describe implements prometheus.Collector.
func (c limitCollector) Describe(ch chan<- *prometheus.Desc) { ch <- limitDesc }

// Collect implements prometheus.Collector.
func (c limitCollector) Collect(ch chan<- prometheus.Metric) {
	t := c.table()
	defaults := map[string]float64{}
	for key, value := range t.Defaults.All() {
		if x, ok := number(value); ok {
			defaults[key] = x
			ch <- prometheus.MustNewConstMetric(limitDesc, prometheus.GaugeValue, x, "", key)
		}
	}
	for id, l := range t.Tenants {
		for key, value := range l.All() {
			if x, ok := number(value); ok && x != defaults[key] {
				ch <- prometheus.MustNewConstMetric(limitDesc, prometheus.GaugeValue, x, string(id), key)
			}
		}
	}
}

func number(value any) (float64, bool) {
	v := reflect.ValueOf(value)
	switch x := value.(type) {
	case model.Duration:
		return float64(x) / 1e9, true
	case bool:
		if x {
			return 1, true
		}
		return 0, true
	}
	switch {
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanFloat():
		return v.Float(), true
	}
	return 0, false
}
