package wire

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// goldenLabels are the vectors of docs/format/series-key.md. The hashes are what an independent XXH64 gives for the
// bytes that Thanos hashes.
var goldenLabels = []struct {
	tenant tenant.ID
	labels []string
	hash   uint64
}{
	{"default-tenant", []string{"__name__", "up"}, 0xa852c2cd9dd7220e},
	{"default-tenant", []string{"__name__", "up", "instance", "localhost:9090", "job", "prometheus"}, 0xcb7a3eb434a9984c},
	{"acme", []string{"__name__", "up", "instance", "localhost:9090", "job", "prometheus", "none", ""},
		0x0416f1ebc808fea6},
	{"acme", []string{"__name__", "größe", "城市", "京都"}, 0x8633e10529f5a7ab},
}

func TestIdentifyGolden(t *testing.T) {
	for _, v := range goldenLabels {
		full := string(v.tenant) + "\xff"
		for i := 0; i < len(v.labels); i += 2 {
			if v.labels[i+1] != "" {
				full += v.labels[i] + "\xff" + v.labels[i+1] + "\xff"
			}
		}
		if got := AppendLabels(AppendTenant(nil, v.tenant), labels.FromStrings(v.labels...)); string(got) != full {
			t.Errorf("canonical bytes %q, want %q", got, full)
		}
		if _, h := Identify([]byte(full)); h != v.hash {
			t.Errorf("%q: hash %#x, want %#x", full, h, v.hash)
		}
	}
}

// TestOneSeriesOneKey sends one series in every form.
func TestOneSeriesOneKey(t *testing.T) {
	ls := []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "a", Value: "1"}, {Name: "b", Value: "2"},
		{Name: "job", Value: "über"}}
	var want *Series
	f := func(b *Batch, err error) {
		t.Helper()
		if err != nil || len(b.Series) != 1 {
			t.Fatal(len(b.Series), err)
		}
		s := &b.Series[0]
		if want == nil {
			want = s
		}
		if s.Key != want.Key || s.Hash != want.Hash || string(s.Labels()) != string(want.Labels()) {
			t.Fatalf("%q has key %x, want %x of %q", s.Labels(), s.Key, want.Key, want.Labels())
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 50 {
		if i > 0 {
			r.Shuffle(len(ls), func(i, j int) { ls[i], ls[j] = ls[j], ls[i] })
		}
		sent := ls
		if i%3 == 1 {
			sent = append([]prompb.Label{{Name: "empty"}}, ls...)
		}
		v1 := prompb.WriteRequest{
			Timeseries: []prompb.TimeSeries{{Labels: sent, Samples: []prompb.Sample{{Value: 1, Timestamp: 2}}}}}
		msg, _ := v1.Marshal()
		f(DecodeV1(testTenant, msg))
		symbols := writev2.NewSymbolTable()
		ts := writev2.TimeSeries{Samples: []writev2.Sample{{Value: 1, Timestamp: 2}}}
		for _, l := range sent {
			ts.LabelsRefs = append(ts.LabelsRefs, symbols.Symbolize(l.Name), symbols.Symbolize(l.Value))
		}
		v2 := writev2.Request{Symbols: symbols.Symbols(), Timeseries: []writev2.TimeSeries{ts}}
		msg, _ = v2.Marshal()
		f(DecodeV2(testTenant, msg))
	}
	built := NewBatch(testTenant)
	built.Add(labels.FromStrings("__name__", "up", "a", "1", "b", "2", "job", "über", "empty", "")).Samples = []Sample{
		{T: 2, V: 1}}
	f(built, nil)
	f(DecodeShard(AppendShard(nil, All(built))))
}

// TestRejected: what is refused, what it is called, and that the rest stands.
func TestRejected(t *testing.T) {
	f := func(want string, ls ...string) {
		t.Helper()
		bad := prompb.TimeSeries{Samples: make([]prompb.Sample, 2), Exemplars: make([]prompb.Exemplar, 1)}
		for i := 0; i < len(ls); i += 2 {
			bad.Labels = append(bad.Labels, prompb.Label{Name: ls[i], Value: ls[i+1]})
		}
		good := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "up"}}, Samples: make([]prompb.Sample, 1)}
		other := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "down"}},
			Samples: make([]prompb.Sample, 1)}
		req := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{good, bad, other}}
		msg, _ := req.Marshal()
		b, err := DecodeV1(testTenant, msg)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release()
		if len(b.Series) != 2 || len(b.Rejected) != 1 {
			t.Fatalf("%d series, rejected %+v", len(b.Series), b.Rejected)
		}
		if r := b.Rejected[0]; r.Reason != want || r.Samples != 2 || r.Exemplars != 1 {
			t.Errorf("rejected %+v, want %s", r, want)
		}
	}
	long := strings.Repeat("x", 100)
	f(`no metric name in {}`)
	f(`no metric name in {job="a"}`, "job", "a")
	f(`no metric name in {__name__="", job="a"}`, "job", "a", "__name__", "")
	f(`label "a" occurs twice in {__name__="up", a="1", a="2"}`, "__name__", "up", "a", "1", "a", "2")
	f(`label "a" occurs twice in {__name__="up", a="", a="2"}`, "__name__", "up", "a", "", "a", "2")
	f(`a label has no name in {""="1", __name__="up"}`, "__name__", "up", "", "1")
	f(`label "a" is not UTF-8 in {__name__="up", a="\xff"}`, "__name__", "up", "a", "\xff")
	f(`label "a\xffb" is not UTF-8 in {__name__="up", "a\xffb"="c"}`, "__name__", "up", "a\xffb", "c")
	f(`label "`+long[:64]+`"... occurs twice in {__name__="u\np", "`+long[:64]+`"...="1", "`+long[:64]+`"...="2"}`,
		"__name__", "u\np", long, "1", long, "2")
}

// TestRejectedIsBounded: a request of nothing but bad series costs little more than it sends, and its counts are true.
func TestRejectedIsBounded(t *testing.T) {
	req := prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, 3*maxRejected)}
	for i := range req.Timeseries {
		req.Timeseries[i].Samples = make([]prompb.Sample, 1)
	}
	msg, _ := req.Marshal()
	b, err := DecodeV1(testTenant, msg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	total := 0
	for _, f := range b.Rejected {
		total += f.Samples
	}
	if len(b.Rejected) != maxRejected+1 || total != 3*maxRejected {
		t.Fatalf("%d rejected, %d samples", len(b.Rejected), total)
	}
}

// TestTooLong: a label that would break labels.Labels is refused by itself, on both paths.
func TestTooLong(t *testing.T) {
	huge := strings.Repeat("x", MaxLabelLength+1)
	symbols := writev2.NewSymbolTable()
	var v1 prompb.WriteRequest
	var v2 writev2.Request
	for _, ls := range []labels.Labels{labels.FromStrings("__name__", "up"), labels.FromStrings("__name__", "up", "big", huge[:MaxLabelLength])} {
		l1, l2 := prompb.FromLabels(ls, nil), symbols.SymbolizeLabels(ls, nil)
		if len(l1) == 2 {
			l1 = append(l1, prompb.Label{Name: "bigger", Value: huge})
			l2 = append(l2, symbols.Symbolize("bigger"), symbols.Symbolize(huge))
		}
		v1.Timeseries = append(v1.Timeseries, prompb.TimeSeries{Labels: l1, Samples: make([]prompb.Sample, 1)})
		v2.Timeseries = append(v2.Timeseries, writev2.TimeSeries{LabelsRefs: l2, Samples: make([]writev2.Sample, 1)})
	}
	v2.Symbols = symbols.Symbols()
	msg1, _ := v1.Marshal()
	msg2, _ := v2.Marshal()
	check := func(b *Batch, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Series) != 1 || len(b.Rejected) != 1 || !strings.Contains(b.Rejected[0].Reason, "longer than") {
			t.Fatalf("%d series, rejected %+v", len(b.Series), b.Rejected)
		}
		b.Release()
	}
	check(DecodeV1(testTenant, msg1))
	check(DecodeV2(testTenant, msg2))
}
