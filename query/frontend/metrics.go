package frontend

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of a Frontend.
type metrics struct {
	cut, retries, broken, changed prometheus.Counter
	fromCache, asked              prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, cache Cache) *metrics {
	f := promauto.With(prometheus.WrapRegistererWithPrefix("hearth_query_frontend_", reg))
	steps := f.NewCounterVec(prometheus.CounterOpts{Name: "steps_total",
		Help: "Steps of range queries that went through the frontend, by where they came from: cache, or evaluation."},
		[]string{"from"})
	m := &metrics{
		cut: promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "thanos_frontend_split_queries_total",
			Help: "Pieces into which range queries were cut."}),
		retries: f.NewCounter(prometheus.CounterOpts{Name: "retries_total", Help: "Pieces that were asked again."}),
		broken: f.NewCounter(prometheus.CounterOpts{Name: "cache_broken_entries_total",
			Help: "Entries of the cache that could not be read, or were not what they should be."}),
		changed: f.NewCounter(prometheus.CounterOpts{Name: "cache_changed_entries_total",
			Help: "Entries of the cache that were not used, since samples may have changed after them."}),
		fromCache: steps.WithLabelValues("cache"), asked: steps.WithLabelValues("evaluation"),
	}
	if used, ok := cache.(interface{ Bytes() int64 }); ok {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "cache_bytes", Help: "Bytes of the cache in this process."},
			func() float64 { return float64(used.Bytes()) })
	}
	return m
}

// split counts the pieces of a request.
func (m *metrics) split(n int) { m.cut.Add(float64(n)) }

// steps counts the steps of a piece, of which have has some; nil = none.
func (m *metrics) steps(p piece, have *entry, step int64) {
	all, cached := p.steps(step), 0
	if have != nil {
		if both, ok := p.and(have.piece); ok {
			cached = both.steps(step)
		}
	}
	m.fromCache.Add(float64(cached))
	m.asked.Add(float64(all - cached))
}
