package notify

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// metrics shows what the notifiers count, under their own names and under those of Thanos's ruler.
type metrics struct {
	of     *Sender
	pushed prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Sender) *metrics {
	m := &metrics{of: s, pushed: promauto.With(reg).NewCounter(prometheus.CounterOpts{
		Name: "thanos_alert_queue_alerts_pushed_total", Help: "Alerts that were queued for Alertmanagers."})}
	if reg != nil {
		reg.MustRegister(m)
	}
	return m
}

const notifierPrefix = "prometheus_notifications_"

// thanosNames are Thanos's names of what the notifier counts for each Alertmanager.
var thanosNames = map[string]string{
	"sent_total":                "thanos_alert_sender_alerts_sent_total",
	"dropped_total":             "thanos_alert_sender_alerts_dropped_total",
	"errors_total":              "thanos_alert_sender_errors_total",
	"latency_histogram_seconds": "thanos_alert_sender_latency_seconds",
}

// totalNames are Thanos's names of what it has once for all of its Alertmanagers, which share a queue there.
var totalNames = map[string]string{
	"dropped_total":  "thanos_alert_queue_alerts_dropped_total",
	"queue_length":   "thanos_alert_queue_length",
	"queue_capacity": "thanos_alert_queue_capacity",
}

// Describe implements prometheus.Collector. It says nothing: which series there are depends on the Alertmanagers.
func (*metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.of.mu.Lock()
	managers := make(map[tenant.ID]*manager, len(m.of.managers))
	for id, of := range m.of.managers {
		managers[id] = of
	}
	m.of.mu.Unlock()
	totals := map[string]float64{}
	for id, of := range managers {
		families, err := of.reg.Gather()
		if err != nil {
			m.of.log.Warn("metrics of notifications", "err", err)
		}
		more := map[string]string{}
		if m.of.opts.TenantHeader != "" {
			more["tenant"] = string(id)
		}
		for _, f := range families {
			name, _ := strings.CutPrefix(f.GetName(), notifierPrefix)
			for _, one := range f.Metric {
				emit(out, f.GetName(), f, one, more)
				if thanos := thanosNames[name]; thanos != "" {
					emit(out, thanos, f, one, more)
				}
				if total := totalNames[name]; total != "" {
					totals[total] += one.GetCounter().GetValue() + one.GetGauge().GetValue()
				}
			}
		}
	}
	for name, v := range totals {
		typ := prometheus.GaugeValue
		if strings.HasSuffix(name, "_total") {
			typ = prometheus.CounterValue
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, "Alerts in the queues of all Alertmanagers.", nil,
			nil), typ, v)
	}
}

// emit gives a metric under another name, with more labels.
func emit(out chan<- prometheus.Metric, name string, f *dto.MetricFamily, m *dto.Metric, more map[string]string) {
	var values []string
	var names []string
	for _, l := range m.Label {
		names, values = append(names, l.GetName()), append(values, l.GetValue())
	}
	desc := prometheus.NewDesc(name, f.GetHelp(), names, more)
	var metric prometheus.Metric
	var err error
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		metric, err = prometheus.NewConstMetric(desc, prometheus.CounterValue, m.GetCounter().GetValue(), values...)
	case dto.MetricType_GAUGE:
		metric, err = prometheus.NewConstMetric(desc, prometheus.GaugeValue, m.GetGauge().GetValue(), values...)
	case dto.MetricType_HISTOGRAM:
		buckets := map[float64]uint64{}
		for _, b := range m.GetHistogram().GetBucket() {
			buckets[b.GetUpperBound()] = b.GetCumulativeCount()
		}
		metric, err = prometheus.NewConstHistogram(desc, m.GetHistogram().GetSampleCount(),
			m.GetHistogram().GetSampleSum(), buckets, values...)
	default: // the summary says what the histogram says
		return
	}
	if err == nil {
		out <- metric
	}
}
