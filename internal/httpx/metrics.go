package httpx

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of one listener. Each has the label listener, so that the servers of a process can share one registry.
type metrics struct {
	requests *prometheus.CounterVec   // by handler, method, code
	seconds  *prometheus.HistogramVec // by handler
	inflight *prometheus.GaugeVec     // by handler
	panics   prometheus.Counter
	conns    prometheus.Gauge
	refused  prometheus.Counter
	cutOff   *prometheus.CounterVec // by reason
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
		conns: f.NewGauge(prometheus.GaugeOpts{
			Name: "hearth_http_connections", Help: "Open HTTP connections.",
		}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_http_connections_refused_total",
			Help: "HTTP connections that were closed at once since there were too many, in all or of their address.",
		}),
		cutOff: f.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_http_cut_off_total",
			Help: "HTTP requests that were given up, by reason: header = of too many lines, body = it came too slowly, " +
				"answer = it was not taken.",
		}, []string{"reason"}),
	}
}
