package notify

import (
	"maps"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// metrics shows what the notifiers count, under their own names and under those of Thanos's ruler.
type metrics struct {
	of     *Sender
	pushed prometheus.Counter

	mu      sync.Mutex // guards tallies; Sender.mu is not taken within
	tallies map[tenant.ID]*tally
}

func newMetrics(reg prometheus.Registerer, s *Sender) *metrics {
	m := &metrics{of: s, tallies: map[tenant.ID]*tally{},
		pushed: promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "thanos_alert_queue_alerts_pushed_total",
			Help: "Alerts that were queued for Alertmanagers, each counted once."})}
	if reg != nil {
		reg.MustRegister(m)
	}
	return m
}

const notifierPrefix = "prometheus_notifications_"

// thanosNames are Thanos's names of what the notifier counts for each Alertmanager.
var thanosNames = map[string]string{
	"sent_total":                "thanos_alert_sender_alerts_sent_total",
	"errors_total":              "thanos_alert_sender_errors_total",
	"latency_histogram_seconds": "thanos_alert_sender_latency_seconds",
}

// Thanos's ruler has one queue for all of its Alertmanagers. These are what people watch it by.
var (
	queueLength = prometheus.NewDesc("thanos_alert_queue_length",
		"Alerts in the longest of the queues, of which each Alertmanager has one.", nil, nil)
	queueCapacity = prometheus.NewDesc("thanos_alert_queue_capacity", "Alerts for which a queue has places.", nil, nil)
	queuePopped   = prometheus.NewDesc("thanos_alert_queue_alerts_popped_total",
		"Alerts that left a queue to be sent, each counted once for all Alertmanagers.", nil, nil)
	queueDropped = prometheus.NewDesc("thanos_alert_queue_alerts_dropped_total",
		"Alerts that found the queue of an Alertmanager full, or were left in it at the end.", nil, nil)
	senderDropped = prometheus.NewDesc("thanos_alert_sender_alerts_dropped_total",
		"Alerts that no Alertmanager took, although each was asked.", nil, nil)
)

// Describe implements prometheus.Collector. It says nothing: which series there are depends on the Alertmanagers.
func (*metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.of.mu.Lock()
	managers := maps.Clone(m.of.managers)
	m.of.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, of := range managers {
		t := m.tallies[id]
		if t == nil {
			t = &tally{}
			m.tallies[id] = t
		}
		t.look(m.collect(out, id, of))
	}
	var sum tally
	for _, t := range m.tallies {
		sum.popped, sum.overflow, sum.lost = sum.popped+t.popped, sum.overflow+t.overflow, sum.lost+t.lost
		sum.longest = max(sum.longest, t.longest)
	}
	gauge := func(d *prometheus.Desc, v float64) { out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	counter := func(d *prometheus.Desc, v float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	gauge(queueLength, sum.longest)
	gauge(queueCapacity, float64(m.of.opts.QueueCapacity))
	counter(queuePopped, sum.popped)
	counter(queueDropped, sum.overflow)
	counter(senderDropped, sum.lost)
}

// collect gives the metrics of one notifier, and what is counted in them.
func (m *metrics) collect(out chan<- prometheus.Metric, id tenant.ID, of *manager) map[string]counts {
	families, err := of.reg.Gather()
	if err != nil {
		m.of.log.Warn("metrics of notifications", "err", err)
	}
	more := map[string]string{}
	if m.of.opts.TenantHeader != "" {
		more["tenant"] = string(id)
	}
	all := map[string]counts{}
	for _, f := range families {
		name, _ := strings.CutPrefix(f.GetName(), notifierPrefix)
		for _, one := range f.Metric {
			emit(out, f.GetName(), f, one, more)
			am := alertmanagerOf(one)
			if am == "" {
				continue
			}
			c := all[am]
			c.note(name, one)
			all[am] = c
			if thanos := thanosNames[name]; thanos != "" {
				short := &dto.Metric{Label: []*dto.LabelPair{{Name: new("alertmanager"), Value: new(shortened(am))}},
					Counter: one.Counter, Histogram: one.Histogram}
				emit(out, thanos, f, short, more)
			}
		}
	}
	return all
}

func (c *counts) note(name string, one *dto.Metric) {
	switch name {
	case "sent_total":
		c.sent = one.GetCounter().GetValue()
	case "errors_total":
		c.failed = one.GetCounter().GetValue()
	case "dropped_total":
		c.dropped = one.GetCounter().GetValue()
	case "queue_length":
		c.queued = one.GetGauge().GetValue()
	}
}

// alertmanagerOf is the URL of the Alertmanager that a metric is of; "" = it is of none.
func alertmanagerOf(one *dto.Metric) string {
	for _, l := range one.Label {
		if l.GetName() == "alertmanager" {
			return l.GetValue()
		}
	}
	return ""
}

// shortened is the URL of an Alertmanager as Thanos names it: its host and port, and here its path before /api, too.
func shortened(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	}
	return strings.TrimSuffix(url, "/api/v2/alerts")
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
