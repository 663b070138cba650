package httpx

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of one listener. The label listener is constant, so that the servers of a process share one registry.
type metrics struct {
	requests *prometheus.CounterVec   // by handler, method, code
	seconds  *prometheus.HistogramVec // by handler
	inflight *prometheus.GaugeVec     // by handler
	panics   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, listener string) *metrics {
	if reg != nil {
		reg = prometheus.WrapRegistererWith(prometheus.Labels{"listener": listener}, reg)
	}
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_http_requests_total", Help: "HTTP requests answered.",
		}, []string{"handler", "method", "code"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hearth_http_request_duration_seconds", Help: "Time from a request's header to the end of its answer.",
			NativeHistogramBucketFactor: 1.2, NativeHistogramMaxBucketNumber: 60, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"handler"}),
		inflight: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hearth_http_inflight_requests", Help: "HTTP requests under way.",
		}, []string{"handler"}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_http_panics_total", Help: "HTTP requests that ended in a panic of their handler.",
		}),
	}
}
