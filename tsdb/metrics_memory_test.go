package tsdb

import (
	"reflect"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// trimming is a registry that trims what is registered.
type trimming struct{ prometheus.Registerer }

func (s trimming) Register(c prometheus.Collector) error {
	trimSummary(c)
	return s.Registerer.Register(c)
}

func summaryOf(o prometheus.SummaryOpts) prometheus.Summary {
	o.Name, o.Objectives = "s", map[float64]float64{0.5: 0.05, 0.99: 0.001}
	return prometheus.NewSummary(o)
}

// TestTrimSaves fails when a new version of the library has other fields: trimSummary then does nothing.
func TestTrimSaves(t *testing.T) {
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
	trimmed := take(func(c prometheus.Collector) {
		if err := prometheus.WrapRegistererWithPrefix("p_", trimming{prometheus.NewRegistry()}).Register(c); err != nil {
			t.Fatal(err)
		}
	})
	if trimmed > whole/4 {
		t.Fatalf("a summary takes %d bytes, trimmed %d", whole, trimmed)
	}
}

func TestTrimmedSummary(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	whole := summaryOf(prometheus.SummaryOpts{ConstLabels: prometheus.Labels{"trimmed": "no"}})
	trimmed := summaryOf(prometheus.SummaryOpts{ConstLabels: prometheus.Labels{"trimmed": "yes"}})
	reg.MustRegister(whole)
	prometheus.WrapRegistererWithPrefix("", trimming{reg}).MustRegister(trimmed)
	for i := range 3000 {
		v := float64(i * 7919 % 3000)
		whole.Observe(v)
		trimmed.Observe(v)
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
			t.Fatalf("quantile %v: %v, want about %v (whole: %v)", b.GetQuantile()[i].GetQuantile(), got, want,
				a.GetQuantile()[i].GetValue())
		}
	}
	trimSummary(prometheus.NewCounter(prometheus.CounterOpts{Name: "c"}))
	trimSummary(prometheus.NewCounterVec(prometheus.CounterOpts{Name: "v"}, []string{"l"}))
	trimSummary(prometheus.NewSummary(prometheus.SummaryOpts{Name: "without_objectives"}))
}

// TestSummaryFields fails when the fields that trimSummary sets are not where it looks for them.
func TestSummaryFields(t *testing.T) {
	v := reflect.Indirect(reflect.ValueOf(summaryOf(prometheus.SummaryOpts{})))
	floats := reflect.TypeFor[[]float64]()
	for _, name := range []string{"hotBuf", "coldBuf"} {
		if f := v.FieldByName(name); !f.IsValid() || f.Type() != floats || f.Cap() == 0 {
			t.Errorf("a summary has no buffer %s of floats", name)
		}
	}
	streams := v.FieldByName("streams")
	if !streams.IsValid() || streams.Kind() != reflect.Slice || streams.Len() == 0 {
		t.Fatal("a summary has no streams")
	}
	if b := reflect.Indirect(streams.Index(0)).FieldByName("b"); !b.IsValid() || b.Kind() != reflect.Slice ||
		b.Cap() == 0 {
		t.Error("a stream of a summary has no buffer b")
	}
}

// otherwise is a collector whose fields have the names of a summary's and other types.
type otherwise struct {
	prometheus.Collector
	hotBuf, streams int
	coldBuf         []float64
}

// TestTrimLeavesOthers: what is not built as expected is not touched.
func TestTrimLeavesOthers(t *testing.T) {
	c := &otherwise{hotBuf: 1, streams: 2, coldBuf: make([]float64, 0, 3)}
	trimSummary(c)
	if c.hotBuf != 1 || c.streams != 2 || cap(c.coldBuf) != 3 {
		t.Errorf("%+v", c)
	}
	forget(reflect.ValueOf(c).Elem().FieldByName("hotBuf"))
	c.coldBuf = append(c.coldBuf, 1)
	forget(reflect.ValueOf(c).Elem().FieldByName("coldBuf"))
	if c.hotBuf != 1 || len(c.coldBuf) != 1 {
		t.Errorf("%+v: an integer, or a buffer with something in it", c)
	}
	trimSummary(nil)
}
