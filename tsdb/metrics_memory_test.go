package tsdb

import (
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// slimming is a registry that slims what is registered.
type slimming struct{ prometheus.Registerer }

func (s slimming) Register(c prometheus.Collector) error { slim(c); return s.Registerer.Register(c) }

func summaryOf(o prometheus.SummaryOpts) prometheus.Summary {
	o.Name, o.Objectives = "s", map[float64]float64{0.5: 0.05, 0.99: 0.001}
	return prometheus.NewSummary(o)
}

// TestSlimSaves fails when a new version of the library has other fields: slim then does nothing.
func TestSlimSaves(t *testing.T) {
	const n = 50
	take := func(f func(prometheus.Collector)) uint64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		kept := make([]prometheus.Summary, n)
		for i := range kept {
			kept[i] = summaryOf(prometheus.SummaryOpts{})
			f(kept[i])
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(kept)
		return (after.HeapAlloc - before.HeapAlloc) / n
	}
	whole := take(func(prometheus.Collector) {})
	slimmed := take(func(c prometheus.Collector) {
		if err := prometheus.WrapRegistererWithPrefix("p_", slimming{prometheus.NewRegistry()}).Register(c); err != nil {
			t.Fatal(err)
		}
	})
	if slimmed > whole/4 {
		t.Fatalf("a summary takes %d bytes, slimmed %d", whole, slimmed)
	}
}

func TestSlimmedSummary(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	whole := summaryOf(prometheus.SummaryOpts{ConstLabels: prometheus.Labels{"slim": "no"}})
	slimmed := summaryOf(prometheus.SummaryOpts{ConstLabels: prometheus.Labels{"slim": "yes"}})
	reg.MustRegister(whole)
	prometheus.WrapRegistererWithPrefix("", slimming{reg}).MustRegister(slimmed)
	for i := range 3000 {
		v := float64(i * 7919 % 3000)
		whole.Observe(v)
		slimmed.Observe(v)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]*dto.Summary{}
	for _, m := range families[0].GetMetric() {
		of[m.GetLabel()[0].GetValue()] = m.GetSummary()
	}
	a, b := of["no"], of["yes"]
	if a.GetSampleCount() != 3000 || b.GetSampleCount() != 3000 || a.GetSampleSum() != b.GetSampleSum() {
		t.Fatalf("%v and %v", a, b)
	}
	for i, want := range []float64{1500, 2970} {
		if got := b.GetQuantile()[i].GetValue(); got < want-150 || got > want+150 {
			t.Fatalf("quantile %v: %v, want about %v (whole: %v)", b.GetQuantile()[i].GetQuantile(), got, want, a.GetQuantile()[i].GetValue())
		}
	}
	slim(prometheus.NewCounter(prometheus.CounterOpts{Name: "c"}))
	slim(prometheus.NewCounterVec(prometheus.CounterOpts{Name: "v"}, []string{"l"}))
	slim(prometheus.NewSummary(prometheus.SummaryOpts{Name: "without_objectives"}))
}
