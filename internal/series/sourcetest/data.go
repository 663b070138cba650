package sourcetest

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/hearth-metrics/hearth/internal/series"
)

// Series is a series that a source under test must hold. Samples are in time order.
type Series struct {
	Labels  labels.Labels
	Samples []Sample
}

// Sample is a float, or a histogram when H or FH is set. T is Unix ms.
type Sample struct {
	T  int64
	V  float64
	H  *histogram.Histogram
	FH *histogram.FloatHistogram
}

// String returns the sample as test failures show it.
func (s Sample) String() string {
	switch {
	case s.H != nil:
		return fmt.Sprintf("%d: histogram %s, hint %d", s.T, s.H, s.H.CounterResetHint)
	case s.FH != nil:
		return fmt.Sprintf("%d: float histogram %s, hint %d", s.T, s.FH, s.FH.CounterResetHint)
	}
	return fmt.Sprintf("%d: %g (%x)", s.T, s.V, math.Float64bits(s.V))
}

// step is the time between samples in ms; samples is their number per series.
const (
	step    = 15_000
	samples = 200
)

// base is the time of the first sample in ms. It is less than an hour ago, so that a source that checks the age of
// samples accepts all of them.
func base() int64 {
	return time.Now().Add(-(samples + 5) * step * time.Millisecond).Truncate(time.Minute).UnixMilli()
}

// data returns the series of every test. Run sorts them by labels.
func data(from int64) []Series {
	floats := func(seed float64) (out []Sample) {
		for i := range samples {
			out = append(out, Sample{T: from + int64(i)*step, V: seed + float64(i)*1.25})
		}
		return out
	}
	part := func(in []Sample, i, j int) []Sample { return in[i:j] }
	marked := floats(7)
	marked[100].V = math.Float64frombits(value.StaleNaN)
	return []Series{
		{labels.FromStrings("__name__", "bare"), floats(1)},
		{labels.FromStrings("__name__", "early", "env", "prod"), part(floats(2), 0, 20)},
		{labels.FromStrings("__name__", "late", "env", "prod"), part(floats(3), 180, samples)},
		{labels.FromStrings("__name__", "hist", "kind", "custom"), custom(from)},
		{labels.FromStrings("__name__", "hist", "kind", "float"), floatHistograms(from)},
		{labels.FromStrings("__name__", "hist", "kind", "int"), intHistograms(from)},
		{labels.FromStrings("__name__", "own", "receive_replica", "mine", "tenant_id", "mine-too"), floats(4)},
		{labels.FromStrings("__name__", "stale"), marked},
		{labels.FromStrings("__name__", "up", "env", "dev", "instance", "a", "replica", "0"), floats(10)},
		{labels.FromStrings("__name__", "up", "env", "dev", "instance", "b", "replica", "0"), floats(20)},
		{labels.FromStrings("__name__", "up", "env", "prod", "instance", "a", "replica", "0"), floats(30)},
		{labels.FromStrings("__name__", "up", "env", "prod", "instance", "a", "replica", "1"), floats(40)},
		{labels.FromStrings("__name__", "up", "env", "prod", "replica", "0", "zone", "ü\"\\\n"), floats(50)},
	}
}

func intHistograms(from int64) (out []Sample) {
	for i := range samples {
		h := tsdbutil.GenerateTestHistogram(int64(i % 90)) // falls back every 90 samples: counter resets
		out = append(out, Sample{T: from + int64(i)*step, H: h})
	}
	return out
}

func floatHistograms(from int64) (out []Sample) {
	for i := range samples {
		out = append(out, Sample{T: from + int64(i)*step, FH: tsdbutil.GenerateTestGaugeFloatHistogram(int64(i % 50))})
	}
	return out
}

func custom(from int64) (out []Sample) {
	for i := range samples {
		out = append(out, Sample{T: from + int64(i)*step, H: tsdbutil.GenerateTestCustomBucketsHistogram(int64(i))})
	}
	return out
}

// read decodes the samples of s within [mint, maxt].
func read(t *testing.T, s series.Series, mint, maxt int64) (out []Sample) {
	t.Helper()
	it := series.NewIterator(s.Chunks, series.PickAvg)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		if it.AtT() < mint || it.AtT() > maxt {
			continue
		}
		var p Sample
		switch typ {
		case chunkenc.ValFloat:
			p.T, p.V = it.At()
		case chunkenc.ValHistogram:
			p.T, p.H = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			p.T, p.FH = it.AtFloatHistogram(nil)
		}
		out = append(out, p)
	}
	if it.Err() != nil {
		t.Fatalf("%s: %v", s.Labels, it.Err())
	}
	return out
}

// same reports whether two samples are equal. Of counter reset hints it compares only whether both say gauge: a source
// may lose the others when it cuts chunks differently.
func same(a, b Sample) bool {
	gauge := func(h histogram.CounterResetHint) bool { return h == histogram.GaugeType }
	switch {
	case a.T != b.T || (a.H == nil) != (b.H == nil) || (a.FH == nil) != (b.FH == nil):
		return false
	case a.H != nil:
		return a.H.Equals(b.H) && gauge(a.H.CounterResetHint) == gauge(b.H.CounterResetHint)
	case a.FH != nil:
		return a.FH.Equals(b.FH) && gauge(a.FH.CounterResetHint) == gauge(b.FH.CounterResetHint)
	}
	return math.Float64bits(a.V) == math.Float64bits(b.V)
}
