package wire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// text is what b has: "name: values of samples, of histograms' times, of exemplars".
func (b *Batch) text() string {
	var out []string
	for i := range b.Series {
		s := &b.Series[i]
		one := string(valueOf(s.Labels(), nameLabel)) + ":"
		for _, p := range s.Samples {
			one += fmt.Sprintf(" %d=%v", p.T, p.V)
		}
		for _, h := range s.Histograms {
			one += fmt.Sprintf(" h%d", h.T)
		}
		for _, e := range s.Exemplars {
			one += fmt.Sprintf(" e%v", e.V)
		}
		out = append(out, one)
	}
	return strings.Join(out, ", ")
}

// TestUnite: a series that a request names several times is one, with all it has in the order of the request, by each
// protocol, with a memory and without.
func TestUnite(t *testing.T) {
	type part struct {
		name string
		t    int64
		v    float64
	}
	f := func(parts []part, want string) {
		t.Helper()
		symbols := writev2.NewSymbolTable()
		var v1 prompb.WriteRequest
		var v2 writev2.Request
		for i, p := range parts {
			ls := labels.FromStrings("__name__", p.name, "job", "x")
			sent := prompb.FromLabels(ls, nil)
			if i%2 == 1 { // spelled in another way
				slices.Reverse(sent)
			}
			v1.Timeseries = append(v1.Timeseries,
				prompb.TimeSeries{Labels: sent, Samples: []prompb.Sample{{Timestamp: p.t, Value: p.v}}})
			v2.Timeseries = append(v2.Timeseries, writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(ls, nil),
				Samples: []writev2.Sample{{Timestamp: p.t, Value: p.v}}})
		}
		v2.Symbols = symbols.Symbols()
		msg1, err1 := v1.Marshal()
		msg2, err2 := v2.Marshal()
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		k := NewSeriesCache(1 << 8)
		for range 3 {
			b1, err1 := k.DecodeV1(testTenant, msg1, nil)
			b2, err2 := k.DecodeV2(testTenant, msg2, nil)
			p1, err3 := DecodeV1(testTenant, msg1)
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			for _, b := range []*Batch{b1, b2, p1} {
				if got := b.text(); got != want {
					t.Errorf("%v became %q, want %q", parts, got, want)
				}
				b.Release()
			}
		}
	}
	f([]part{{"a", 1, 1}}, "a: 1=1")
	f([]part{{"a", 1, 1}, {"b", 1, 2}}, "a: 1=1, b: 1=2")
	f([]part{{"a", 1, 1}, {"a", 1, 2}}, "a: 1=1 1=2")
	f([]part{{"a", 2, 1}, {"b", 1, 2}, {"a", 1, 3}, {"c", 1, 4}, {"b", 1, 2}, {"a", 2, 5}},
		"a: 2=1 1=3 2=5, b: 1=2 1=2, c: 1=4")
	f([]part{{"c", 1, 1}, {"b", 1, 1}, {"b", 2, 1}, {"c", 2, 1}}, "c: 1=1 2=1, b: 1=1 2=1")
}

// TestUniteBringsAll: histograms and exemplars come along, and a series that came by a number or a memory keeps its
// hint.
func TestUniteBringsAll(t *testing.T) {
	b := NewBatch(testTenant)
	all := goldenBatch()
	for range 2 {
		for i := range all.Series {
			s := &all.Series[i]
			one := b.AddCanonical(s.Labels())
			one.Samples, one.Histograms, one.Exemplars = s.Samples, s.Histograms, s.Exemplars
		}
	}
	n := len(all.Series)
	kept, err := b.MergeDuplicates()
	if err != nil || len(kept) != n || len(b.Series) != n {
		t.Fatalf("%v, %v, %d series of %d", err, kept, len(b.Series), n)
	}
	for i := range b.Series {
		got, want := &b.Series[i], &all.Series[i]
		if len(got.Samples) != 2*len(want.Samples) || len(got.Histograms) != 2*len(want.Histograms) ||
			len(got.Exemplars) != 2*len(want.Exemplars) {
			t.Errorf("series %d is %+v, want twice %+v", i, got, want)
		}
	}
	if kept, err := b.MergeDuplicates(); kept != nil || err != nil {
		t.Errorf("merged again: %v, %v", kept, err)
	}
}

// TestUniteRandom compares with a map.
func TestUniteRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		b := NewBatch(testTenant)
		n, names := r.IntN(60), 1+r.IntN(60)
		want, order := map[string][]float64{}, []string(nil)
		for i := range n {
			name := fmt.Sprint("m", r.IntN(names))
			if want[name] == nil {
				order = append(order, name)
			}
			want[name] = append(want[name], float64(i))
			s := b.Add(labels.FromStrings("__name__", name))
			s.Samples = []Sample{{V: float64(i)}}
			if r.IntN(2) == 0 { // the keys crowd each other, and the filter sees the same bits
				s.Key.Lo &= 3
				s.Key.Hi &^= 1<<30 - 1
			}
		}
		for i := range b.Series { // the same series has the same key
			for j := range i {
				if string(b.Series[j].Labels()) == string(b.Series[i].Labels()) {
					b.Series[i].Key = b.Series[j].Key
				}
			}
		}
		kept, err := b.MergeDuplicates()
		if err != nil || (kept == nil) != (len(order) == n) || len(b.Series) != len(order) {
			t.Fatalf("%d series of %d are left, want %d: %v", len(b.Series), n, len(order), err)
		}
		for i, name := range order {
			var got []float64
			for _, p := range b.Series[i].Samples {
				got = append(got, p.V)
			}
			if string(valueOf(b.Series[i].Labels(), nameLabel)) != name || !slices.Equal(got, want[name]) {
				t.Fatalf("series %d is %s with %v, want %s with %v", i, b.Series[i].Text(), got, name, want[name])
			}
		}
	}
}

// TestUniteAsks: what repeated series take is asked for.
func TestUniteAsks(t *testing.T) {
	msg := slices.Concat(typicalV1(300), typicalV1(300))
	var asked int64
	full := errs.E(errs.Exhausted, "no room")
	count := func(bytes int64, spare bool) error {
		if !spare {
			asked += bytes
		}
		return nil
	}
	b, err := (*SeriesCache)(nil).DecodeV1(testTenant, msg, count)
	if err != nil || len(b.Series) != 300 {
		t.Fatal(err)
	}
	b.Release()
	left := asked - 600*24
	b, err = (*SeriesCache)(nil).DecodeV1(testTenant, msg, func(bytes int64, spare bool) error {
		if spare || left < bytes {
			return full
		}
		left -= bytes
		return nil
	})
	if !errors.Is(err, full) {
		t.Fatalf("%v, %v", b, err)
	}
}

// TestRewriteUnites: series that become one by their new labels are one, under the place of the first.
func TestRewriteUnites(t *testing.T) {
	src := NewBatch(testTenant)
	for i := range 6 {
		src.Add(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i%3), "pod", fmt.Sprint(i))).Samples = []Sample{
			{T: 1, V: float64(i)}}
	}
	r := Rewrite(src)
	for i := range src.Series {
		l := src.Series[i].Labels()
		switch {
		case i == 0:
			r.Drop(i)
		case i == 5:
			r.Put(i, "another", l[:strings.Index(string(l), "pod")])
		default:
			r.Put(i, testTenant, l[:strings.Index(string(l), "pod")])
		}
	}
	own, others := r.Done()
	if len(others) != 1 || own.text() != "m: 1=1 1=4, m: 1=2, m: 1=3" || others[0].text() != "m: 1=5" {
		t.Fatalf("%d batches, %q", len(others), own.text())
	}
	for i, want := range []int{1, 2, 3} {
		if got := own.Origin(i); got != want {
			t.Errorf("series %d was series %d, want %d", i, got, want)
		}
	}
	checkIdentity(t, own)
	again := Rewrite(own)
	for i := range own.Series {
		again.Put(i, testTenant, []byte("__name__\xffm\xff"))
	}
	all, _ := again.Done()
	if all.text() != "m: 1=1 1=4 1=2 1=3" || all.Origin(0) != 1 {
		t.Fatalf("%q of %d", all.text(), all.Origin(0))
	}
	for _, b := range append(others, own, all) {
		b.Release()
	}
	if text := src.text(); text != "m: 1=0, m: 1=1, m: 1=2, m: 1=3, m: 1=4, m: 1=5" {
		t.Errorf("the source became %q", text)
	}
}

func BenchmarkUnite(b *testing.B) {
	batch, err := DecodeV1(testTenant, typicalV1(benchSeries))
	if err != nil {
		b.Fatal(err)
	}
	f := new(duplicateFinder)
	run := func(name string, find func([]Series) bool) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if find(batch.Series) {
					b.Fatal("a series repeats")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries, "ns/series")
		})
	}
	run("repeats", f.repeats)
	run("group", f.group)
	ten := slices.Concat(typicalV1(200), typicalV1(200), typicalV1(200), typicalV1(200), typicalV1(200), typicalV1(200),
		typicalV1(200), typicalV1(200), typicalV1(200), typicalV1(200))
	k := NewSeriesCache(1 << 16)
	b.Run("ten of each", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			batch, err := k.DecodeV1(testTenant, ten, nil)
			if err != nil || len(batch.Series) != 200 {
				b.Fatal(err)
			}
			batch.Release()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/series")
	})
}
