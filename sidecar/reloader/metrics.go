package reloader

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	reloads, failed, applied, applyFailed prometheus.Counter
	succeeded, succeededAt, unset         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, method string) *metrics {
	f := promauto.With(reg)
	const prefix = "thanos_sidecar_reloader_"
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
	}
	f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "info", Help: "1, labelled by how Prometheus is reloaded."},
		[]string{"method"}).WithLabelValues(method).Set(1)
	return &metrics{
		reloads:     counter("reloads_total", "Reloads of Prometheus that were asked for."),
		failed:      counter("reloads_failed_total", "Reloads of Prometheus that failed."),
		applied:     counter("config_apply_operations_total", "Looks at the files that are watched, after the first one."),
		applyFailed: counter("config_apply_operations_failed_total", "Looks at these files that failed."),
		succeeded:   gauge("last_reload_successful", "Whether the last reload went well."),
		succeededAt: gauge("last_reload_success_timestamp_seconds", "When the last reload went well, in Unix seconds."),
		unset: gauge("config_environment_variable_expansion_errors",
			"Variables without a value when the configuration was read last."),
	}
}
