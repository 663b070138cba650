package targets

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics have the names of Thanos's ruler behind its prefixes thanos_rule_query_apis_ and thanos_rule_alertmanagers_.
type metrics struct {
	lookups, failures prometheus.Counter
	results           *prometheus.GaugeVec
	named             map[string]bool // that results has; only refresh uses it
}

func newMetrics(reg prometheus.Registerer, prefix string) *metrics {
	f := promauto.With(reg)
	return &metrics{
		lookups: f.NewCounter(prometheus.CounterOpts{Name: prefix + "dns_lookups_total", Help: "Names that were looked up."}),
		failures: f.NewCounter(prometheus.CounterOpts{Name: prefix + "dns_failures_total",
			Help: "Names that were looked up and not found. The last addresses stay in use."}),
		results: f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "dns_provider_results",
			Help: "Addresses behind each name or address of the settings."}, []string{"addr"}),
	}
}

// found shows how many addresses there are behind each name.
func (m *metrics) found(by map[string]int) {
	for name := range m.named {
		if _, is := by[name]; !is {
			m.results.DeleteLabelValues(name)
		}
	}
	m.named = make(map[string]bool, len(by))
	for name, n := range by {
		m.results.WithLabelValues(name).Set(float64(n))
		m.named[name] = true
	}
}
