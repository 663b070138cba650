package selfscrape

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	scrapes *prometheus.CounterVec // by outcome: ok, failed
	samples prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		scrapes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_selfscrape_scrapes_total", Help: "Scrapes of the own metrics by outcome of their push: ok, failed.",
		}, []string{"outcome"}),
		samples: f.NewGauge(prometheus.GaugeOpts{
			Name: "hearth_selfscrape_samples", Help: "Samples in the last scrape of the own metrics.",
		}),
	}
	m.scrapes.WithLabelValues("ok")
	m.scrapes.WithLabelValues("failed")
	return m
}
