package rpc

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc/status"

	"github.com/hearth-metrics/hearth/internal/wire"
)

// metrics of a Server. grpc_server_* keep the names that every gRPC dashboard knows.
type metrics struct {
	started *prometheus.CounterVec
	handled *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	panics  prometheus.Counter
	streams prometheus.Gauge       // open Write streams
	shards  *prometheus.CounterVec // shards taken over Write streams, by outcome (an errs.Kind)
	series  prometheus.Counter     // series sent to readers
}

func newMetrics(reg prometheus.Registerer, names *wire.SharedSeries) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_rpc_write_names", Help: "Series whose labels need not travel on some write stream.",
	}, func() float64 { return float64(names.Len()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_rpc_write_names_bytes",
		Help: "Memory of these series, at most; with too much, streams are ended and labels travel with each sample.",
	}, func() float64 { return float64(names.Bytes()) })
	return &metrics{
		started: f.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_started_total", Help: "Calls that began.",
		}, []string{"grpc_type", "grpc_service", "grpc_method"}),
		handled: f.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_handled_total", Help: "Calls that ended, by status code.",
		}, []string{"grpc_type", "grpc_service", "grpc_method", "grpc_code"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "Time from a call's begin to its end.",
			Buckets: []float64{.001, .005, .025, .1, .5, 1, 2.5, 10, 30, 120},
		}, []string{"grpc_type", "grpc_service", "grpc_method"}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_rpc_panics_total", Help: "Calls that ended in a panic, which is a bug.",
		}),
		streams: f.NewGauge(prometheus.GaugeOpts{
			Name: "hearth_rpc_write_streams", Help: "Open write streams from other Hearth processes.",
		}),
		shards: f.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_rpc_shards_total", Help: "Shards of writes taken from other processes, by outcome.",
		}, []string{"outcome"}),
		series: f.NewCounter(prometheus.CounterOpts{
			Name: "hearth_rpc_series_sent_total", Help: "Series sent to readers.",
		}),
	}
}

// began counts a call that begins.
func (m *metrics) began(kind, fullMethod string) {
	service, method, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	m.started.WithLabelValues(kind, service, method).Inc()
}

// ended counts a call that has ended.
func (m *metrics) ended(kind, fullMethod string, err error, took time.Duration) {
	service, method, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	m.handled.WithLabelValues(kind, service, method, status.Code(err).String()).Inc()
	m.seconds.WithLabelValues(kind, service, method).Observe(took.Seconds())
}
