package remotewrite

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// tsdbPrefix begins the metrics of a log that the agent has in common with the TSDBs of the process, under the same
// names and labels.
const tsdbPrefix = `fqName: "prometheus_tsdb_`

// otherMetrics registers what is no metric of a TSDB. Without it a process that keeps results, too
// (--rule.keep-results), would register these twice, and nothing would be kept.
type otherMetrics struct{ prometheus.Registerer }

// withoutTSDB is reg without the metrics of TSDBs; nil if reg is nil.
func withoutTSDB(reg prometheus.Registerer) prometheus.Registerer {
	if reg == nil {
		return nil
	}
	return otherMetrics{reg}
}

// Register implements prometheus.Registerer.
func (r otherMetrics) Register(c prometheus.Collector) error {
	if ofTSDB(c) {
		return nil
	}
	return r.Registerer.Register(c)
}

// MustRegister implements prometheus.Registerer.
func (r otherMetrics) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// Unregister implements prometheus.Registerer.
func (r otherMetrics) Unregister(c prometheus.Collector) bool {
	return ofTSDB(c) || r.Registerer.Unregister(c)
}

func ofTSDB(c prometheus.Collector) bool {
	names := make(chan *prometheus.Desc)
	go func() {
		defer close(names)
		c.Describe(names)
	}()
	of := false
	for d := range names {
		of = of || strings.Contains(d.String(), tsdbPrefix)
	}
	return of
}
