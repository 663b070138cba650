package samples

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
)

const metricsPerTarget = 200

// Options of a load.
type Options struct {
	V2         bool    // remote write 2.0 instead of 1.0
	Series     int     // active at a time
	Labels     int     // of a series, at least 3
	PerRequest int     // series in a request
	Churn      float64 // part of the series that is replaced by new ones at each scrape, 0 to 1
	Histograms float64 // part of the series that are native histograms, 0 to 1
}

// Created is how many different series there are in the first n scrapes.
func (o Options) Created(n int) int { return o.Series + max(0, n-1)*o.churned() }

func (o Options) churned() int { return int(o.Churn * float64(o.Series)) }

// Header of the requests. An empty tenant leaves the choice to the receiver.
func (o Options) Header(tenant string) http.Header {
	h := http.Header{}
	h.Set("Content-Encoding", "snappy")
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	h.Set("User-Agent", "hearth-load")
	if o.V2 {
		h.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
		h.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	}
	if tenant != "" {
		h.Set("X-Scope-OrgID", tenant)
		h.Set("THANOS-TENANT", tenant)
	}
	return h
}

// Requests are the requests of one scrape.
func Requests(o Options) []*Request {
	var out []*Request
	for all := makeSeries(o.Series, o.Histograms); len(all) > 0; {
		n := min(o.PerRequest, len(all))
		out = append(out, &Request{series: all[:n:n], native: all[n-1].kind == native})
		all = all[n:]
	}
	return out
}

// kind of a series.
type kind uint8

const (
	counter kind = iota
	gauge
	native
)

// series is one active series; churn gives it another generation, which is another series to the receiver.
type series struct {
	id         int
	generation int
	kind       kind
	value      float64
	step       float64
	hist       *histogram.Histogram
}

type label struct{ name, value string }

// makeSeries makes n series, the last share of which are native histograms.
func makeSeries(n int, histograms float64) []series {
	out := make([]series, n)
	firstNative := n - int(math.Round(float64(n)*histograms))
	for i := range out {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		s := series{id: i, kind: kind(i % metricsPerTarget % 2), step: float64(1 + r.IntN(500)),
			value: float64(r.IntN(100_000))}
		if i >= firstNative {
			s.kind, s.hist = native, makeHistogram(r)
		}
		out[i] = s
	}
	return out
}

func makeHistogram(r *rand.Rand) *histogram.Histogram {
	h := &histogram.Histogram{Schema: 3, ZeroThreshold: 1e-128, PositiveSpans: []histogram.Span{{Offset: -20,
		Length: 12}, {Offset: 3, Length: 6}}}
	last := int64(0)
	for range 18 {
		n := int64(1 + r.IntN(40))
		h.PositiveBuckets = append(h.PositiveBuckets, n-last)
		last = n
		h.Count += uint64(n)
		h.Sum += float64(n) * 0.25
	}
	return h
}

// advance moves s to its next sample: counters rise by about their step, every fifth not at all; gauges wander in steps
// of a quarter and often stay.
func (s *series) advance(r *rand.Rand) {
	switch s.kind {
	case counter:
		if r.IntN(5) > 0 {
			s.value += s.step + float64(r.IntN(1+int(s.step)/4))
		}
	case gauge:
		if r.IntN(3) > 0 {
			s.value += float64(r.IntN(9)-4) * 0.25
		}
	case native:
		n := uint64(1 + r.IntN(20))
		b := r.IntN(len(s.hist.PositiveBuckets))
		s.hist.PositiveBuckets[b] += int64(n)
		if b+1 < len(s.hist.PositiveBuckets) {
			s.hist.PositiveBuckets[b+1] -= int64(n) // deltas: only bucket b grows
		}
		s.hist.Count += n
		s.hist.Sum += float64(n) * 0.25
	}
}

// labelsOf are n labels of s, sorted; the first three told apart every series and generation.
func labelsOf(s *series, n int) []label {
	metric, target := s.id%metricsPerTarget, s.id/metricsPerTarget
	suffix := [...]string{"total", "bytes", "seconds"}[s.kind]
	ls := []label{
		{"__name__", fmt.Sprintf("app_component_operations_%03d_%s", metric, suffix)},
		{"instance", fmt.Sprintf("10.%d.%d.%d:9100", target>>16&255, target>>8&255, target&255)},
		{"pod", fmt.Sprintf("app-server-%08x-%05x", uint32(target)*2654435761, s.generation)},
		{"cluster", "production-eu-west"},
		{"container", "app-server"},
		{"endpoint", "http-metrics"},
		{"job", "monitoring/application"},
		{"method", [...]string{"GET", "PUT", "POST", "DELETE"}[metric/2%4]},
		{"namespace", fmt.Sprintf("team-%02d-services", target%40)},
		{"node", fmt.Sprintf("node-%04d.compute.internal", target/8)},
		{"service", "application-metrics"},
		{"status", [...]string{"200", "404", "500"}[metric/8%3]},
	}
	for i := len(ls); i < n; i++ {
		ls = append(ls, label{fmt.Sprintf("label_%02d", i), fmt.Sprintf("value-%02d-%d", i, target%10)})
	}
	ls = ls[:n]
	slices.SortFunc(ls, func(a, b label) int { return strings.Compare(a.name, b.name) })
	return ls
}
