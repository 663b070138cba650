package query

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests  *prometheus.HistogramVec // seconds by handler and status class
	asked     *prometheus.CounterVec   // by role
	failed    *prometheus.CounterVec   // by role
	silent    *prometheus.CounterVec   // by role
	stoodIn   prometheus.Counter
	again     prometheus.Counter
	partial   prometheus.Counter
	endpoints *prometheus.GaugeVec // by role and state
	waited    prometheus.Histogram // seconds
	retried   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hearth_query_request_seconds", Help: "Time to answer an API request, by handler and status class.",
			Buckets: []float64{.005, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"handler", "code"}),
		asked: f.NewCounterVec(prometheus.CounterOpts{Name: "hearth_query_sources_asked_total",
			Help: "Selections sent to a source, by its role."}, []string{"role"}),
		failed: f.NewCounterVec(prometheus.CounterOpts{Name: "hearth_query_sources_failed_total",
			Help: "Selections a source did not answer wholly, by its role."}, []string{"role"}),
		silent: f.NewCounterVec(prometheus.CounterOpts{Name: "hearth_query_sources_silent_total",
			Help: "Selections of which a source was given up since it was silent, by its role."}, []string{"role"}),
		stoodIn: f.NewCounter(prometheus.CounterOpts{Name: "hearth_query_stand_ins_total",
			Help: "Selections continued at another store gateway of the same bucket."}),
		again: f.NewCounter(prometheus.CounterOpts{Name: "hearth_query_blocks_asked_again_total",
			Help: "Blocks that another store gateway was asked for, since those asked first did not serve them."}),
		waited: f.NewHistogram(prometheus.HistogramOpts{
			Name: "hearth_query_wait_seconds", Help: "Time that a query waited for a place and for memory, by attempt.",
			Buckets: []float64{.001, .01, .1, 1, 5, 10, 30, 60, 120},
		}),
		retried: f.NewCounter(prometheus.CounterOpts{Name: "hearth_query_retried_total",
			Help: "Queries that ran again, in a larger part of the memory."}),
		partial: f.NewCounter(prometheus.CounterOpts{Name: "hearth_query_partial_answers_total",
			Help: "Selections that may be incomplete."}),
		endpoints: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hearth_query_endpoints", Help: "Endpoints by role and whether the last poll was answered.",
		}, []string{"role", "state"}),
	}
}
