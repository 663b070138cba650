package wire

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func TestReadGzip(t *testing.T) {
	zip := func(content string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		io.WriteString(w, content)
		w.Close()
		return b.Bytes()
	}
	f := func(r io.Reader, want string, kind errs.Kind) {
		t.Helper()
		b := GetBuffer()
		defer PutBuffer(b)
		got, err := b.ReadGzip(r, 10_000, 1_000_000)
		if errs.KindOf(err) != kind || string(got) != want {
			t.Fatalf("%d bytes, %v; want %d, kind %v", len(got), err, len(want), kind)
		}
		if cap(b.decoded) > 4<<20 {
			t.Fatalf("%d bytes of memory", cap(b.decoded))
		}
	}
	long := strings.Repeat("x", 999_000)
	f(bytes.NewReader(zip("hello")), "hello", errs.OK)
	f(iotest.OneByteReader(bytes.NewReader(zip(long))), long, errs.OK)
	f(bytes.NewReader(append(zip("a"), zip("b")...)), "ab", errs.OK)
	f(bytes.NewReader(zip("")), "", errs.OK)
	f(bytes.NewReader(nil), "", errs.Invalid)
	f(strings.NewReader("no gzip at all"), "", errs.Invalid)
	f(bytes.NewReader(zip("hello")[:15]), "", errs.Invalid)
	f(bytes.NewReader(append(zip("hello"), "garbage"...)), "", errs.Invalid)
	f(bytes.NewReader(zip(strings.Repeat("x", 5_000_000))), "", errs.TooLarge)
	f(strings.NewReader(strings.Repeat("x", 10_001)), "", errs.TooLarge)
	f(io.MultiReader(bytes.NewReader(zip("hello")[:9]), iotest.ErrReader(io.ErrUnexpectedEOF)), "", errs.Unavailable)
}

func TestTranslated(t *testing.T) {
	b := NewLimitedBatch("acme", 1<<20)
	defer b.Release()
	f := func(want errs.Kind, err error) {
		t.Helper()
		if errs.KindOf(err) != want {
			t.Fatalf("%v, want kind %v", err, want)
		}
	}
	good := labels.FromStrings("__name__", "m", "a", "1", "empty", "")
	bad := exemplar.Exemplar{Labels: labels.FromStrings("x", "\xff")}
	f(errs.OK, b.AddSample(good, Sample{T: 5, ST: 1, V: 2},
		[]exemplar.Exemplar{{Value: 3}, bad, {Value: 4, Ts: 7, HasTs: true, Labels: labels.FromStrings("id", "z")}}))
	f(errs.OK, b.AddHistogram(good, Histogram{T: 6, H: &histogram.Histogram{}}, nil))
	f(errs.Invalid, b.AddHistogram(good, Histogram{T: 6, H: &histogram.Histogram{Schema: 77}}, nil))
	f(errs.Invalid,
		b.AddHistogram(good, Histogram{T: 6, FH: &histogram.FloatHistogram{Count: -1}}, []exemplar.Exemplar{{}}))
	f(errs.Invalid, b.AddSample(labels.FromStrings("a", "1"), Sample{}, nil))
	f(errs.Invalid, b.AddSample(labels.FromStrings("__name__", "m", "a", "\xff"), Sample{}, []exemplar.Exemplar{{}}))
	f(errs.Invalid, b.AddSample(labels.FromStrings("__name__", "m", "", "x"), Sample{}, nil))

	want := NewBatch("acme")
	s := want.Add(good)
	for i := range b.Series {
		if b.Series[i].Key != s.Key || b.Series[i].Hash != s.Hash || string(b.Series[i].Labels()) != string(s.Labels()) {
			t.Fatalf("series %q, want %q", b.Series[i].Labels(), s.Labels())
		}
	}
	if len(b.Series) != 2 || len(b.Series[0].Samples) != 1 || len(b.Series[1].Histograms) != 1 ||
		b.Series[1].Samples != nil {
		t.Fatalf("series %+v", b.Series)
	}
	es := b.Series[0].Exemplars
	if len(es) != 2 || es[0].T != 5 || es[1].T != 7 || string(es[1].Labels) != "id\xffz\xff" {
		t.Fatalf("exemplars %+v", es)
	}
	var samples, histograms, exemplars int
	for _, r := range b.Rejected {
		samples, histograms, exemplars = samples+r.Samples, histograms+r.Histograms, exemplars+r.Exemplars
	}
	if len(b.Rejected) != 6 || samples != 3 || histograms != 2 || exemplars != 3 {
		t.Fatalf("%d samples, %d histograms, %d exemplars of %+v", samples, histograms, exemplars, b.Rejected)
	}
	if !b.AddMetadata(Metadata{Family: "m", Help: "a\xff"}) || !b.AddMetadata(Metadata{Family: "m", Help: "other"}) ||
		len(b.Metadata) != 1 ||
		b.Metadata[0].Help != "a\uFFFD" {
		t.Fatalf("metadata %+v", b.Metadata)
	}
	for range 10_000 {
		if err := b.AddSample(good, Sample{T: 5}, nil); err != nil {
			f(errs.TooLarge, err)
			if n := b.Memory(); n > 2<<20 {
				t.Fatalf("%d bytes of a limit of 1 MiB", n)
			}
			return
		}
	}
	t.Fatal("the batch has no limit")
}
