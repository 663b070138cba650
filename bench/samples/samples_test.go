package samples

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// sample as a receiver reads it.
type sample struct {
	labels    string
	timestamp int64
	value     float64 // for a histogram its count
}

func decodeV1(t *testing.T, body []byte) (out []sample) {
	t.Helper()
	var m prompb.WriteRequest
	if err := m.Unmarshal(body); err != nil {
		t.Fatal(err)
	}
	b := labels.NewScratchBuilder(12)
	for _, ts := range m.Timeseries {
		ls := ts.ToLabels(&b, nil)
		if !ls.IsValid(model.LegacyValidation) {
			t.Fatalf("%s is not valid", ls)
		}
		if len(ts.Samples)+len(ts.Histograms) != 1 {
			t.Fatalf("%s has %d samples and %d histograms, want one in all", ls, len(ts.Samples), len(ts.Histograms))
		}
		for _, s := range ts.Samples {
			out = append(out, sample{ls.String(), s.Timestamp, s.Value})
		}
		for _, h := range ts.Histograms {
			if err := h.ToIntHistogram().Validate(); err != nil {
				t.Fatal(err)
			}
			out = append(out, sample{ls.String(), h.Timestamp, float64(h.GetCountInt())})
		}
	}
	return out
}

func decodeV2(t *testing.T, body []byte) (out []sample) {
	t.Helper()
	var m writev2.Request
	if err := m.Unmarshal(body); err != nil {
		t.Fatal(err)
	}
	b := labels.NewScratchBuilder(12)
	for _, ts := range m.Timeseries {
		ls, err := ts.ToLabels(&b, m.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		if want := writev2.Metadata_MetricType(strings.Index("_tbs", suffix(ls))); ts.Metadata.Type != want {
			t.Fatalf("%s has type %v, want %v", ls, ts.Metadata.Type, want)
		}
		if help := m.Symbols[ts.Metadata.HelpRef]; help == "" {
			t.Fatalf("%s has no help", ls)
		}
		for _, s := range ts.Samples {
			out = append(out, sample{ls.String(), s.Timestamp, s.Value})
		}
		for _, h := range ts.Histograms {
			if err := h.ToIntHistogram().Validate(); err != nil {
				t.Fatal(err)
			}
			out = append(out, sample{ls.String(), h.Timestamp, float64(h.GetCountInt())})
		}
	}
	return out
}

// suffix is the first letter after the last _ of a metric's name: t(otal), b(ytes), s(econds).
func suffix(ls labels.Labels) string {
	name := ls.Get(model.MetricNameLabel)
	return name[strings.LastIndexByte(name, '_')+1:][:1]
}

func want(r *Request, n int, at int64) (out []sample) {
	for i := range r.series {
		s := &r.series[i]
		var kv []string
		for _, l := range labelsOf(s, n) {
			kv = append(kv, l.name, l.value)
		}
		v := s.value
		if s.kind == native {
			v = float64(s.hist.Count)
		}
		out = append(out, sample{labels.FromStrings(kv...).String(), at, v})
	}
	return out
}

func compare(t *testing.T, got, want []sample) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d samples, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("sample %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

// Every scrape's message must read back as what the series say, after patching as after encoding anew.
func TestMessages(t *testing.T) {
	f := func(v2 bool, nLabels int, histograms, churn float64) {
		t.Helper()
		o := Options{V2: v2, Series: 500, Labels: nLabels, PerRequest: 500, Churn: churn, Histograms: histograms}
		e, r := NewEncoder(o, 1), Requests(o)[0]
		decode := decodeV1
		if v2 {
			decode = decodeV2
		}
		seen := map[int]bool{}
		for scrape := range 4 {
			at := time.Date(2026, 11, 23, 0, 0, 15*scrape, 0, time.UTC).UnixMilli()
			body, err := e.Next(r, scrape, at)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, decode(t, body), want(r, nLabels, at))
			for i := range r.series {
				seen[r.series[i].id<<16|r.series[i].generation] = true
			}
		}
		if len(seen) != o.Created(4) {
			t.Errorf("%d series were there, want %d", len(seen), o.Created(4))
		}
	}
	for _, v2 := range []bool{false, true} {
		f(v2, 12, 0, 0)
		f(v2, 12, 0, 0.1)
		f(v2, 12, 0.3, 0)
		f(v2, 3, 0, 0)
		f(v2, 30, 1, 0.4)
	}
}

func TestTimestampsOutOfRange(t *testing.T) {
	o := Options{Series: 1, Labels: 3, PerRequest: 1}
	e, r := NewEncoder(o, 1), Requests(o)[0]
	for _, at := range []int64{0, -1, math.MaxInt64} {
		if err := e.encode(r, at); err == nil {
			t.Errorf("timestamp %d was taken", at)
		}
	}
	for _, at := range []int64{minTimestamp, maxTimestamp} {
		if err := e.encode(r, at); err != nil {
			t.Error(err)
		}
		compare(t, decodeV1(t, r.body), want(r, 3, at))
	}
}

func TestSeriesAreDistinctAndOfTheRightSize(t *testing.T) {
	seen, size := map[string]bool{}, 0
	all := makeSeries(5000, 0)
	for i := range all {
		for _, all[i].generation = range []int{0, 1} {
			key := ""
			for _, l := range labelsOf(&all[i], 3) {
				key += l.name + "=" + l.value + ","
			}
			seen[key] = true
		}
		for _, l := range labelsOf(&all[i], 12) {
			size += len(l.name) + len(l.value)
		}
	}
	if len(seen) != 2*len(all) {
		t.Errorf("%d distinct series, want %d", len(seen), 2*len(all))
	}
	if mean := size / len(all); mean < 270 || mean > 290 {
		t.Errorf("%d label bytes per series, want about 280", mean)
	}
}
