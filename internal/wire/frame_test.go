package wire

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// goldenBatch holds one of everything that a frame can say.
func goldenBatch() *Batch {
	b := NewBatch(testTenant)
	b.Add(labels.FromStrings("__name__", "up")).Samples = []Sample{{T: 1000, V: 1}}
	s := b.Add(labels.FromStrings("__name__", "up", "a", "b"))
	s.Samples = []Sample{{T: 1000, ST: 500, V: 2}, {T: 900, V: math.Inf(1)}}
	s.Exemplars = []Exemplar{{T: 950, V: 0.5, Labels: AppendLabels(nil, labels.FromStrings("id", "x"))}, {}}
	b.Add(labels.FromStrings("__name__", "h")).Histograms = []Histogram{
		{T: 1000, ST: 1,
			H: &histogram.Histogram{CounterResetHint: 2, Schema: -1, ZeroThreshold: 0.25, ZeroCount: 1, Count: 6, Sum: 3,
				PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}}, PositiveBuckets: []int64{3, -1}}},
		{T: 1001, FH: &histogram.FloatHistogram{Schema: -53, Count: 1.5, Sum: 2,
			PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{1.5}, CustomValues: []float64{10}}},
	}
	b.Metadata = []Metadata{{Family: "up", Help: "Is it up?", Unit: "", Type: "gauge"}}
	return b
}

// TestShardGolden holds the vector of docs/format/write-frame.md.
func TestShardGolden(t *testing.T) {
	want := "010461636d65030c5f5f6e616d655f5fff7570ff00d00f000000000000f03f105f5f6e616d655f5fff7570ff61ff62ff02020002" +
		"00e8070000000000000040c701880e000000000000f07f64000000000000e03f056964ff78ffeb0e0000000000000000000b5f5f" +
		"6e616d655f5fff68ff01000200d00f0002ce0f01000000000000d03f00000000000008400601010302020601000000020100d20f" +
		"6900000000000000000000000000000040000000000000f83f000000000000000001000101000000000000f83f00000100000000" +
		"00002440010275700949732069742075703f00056761756765"
	if got := hex.EncodeToString(AppendShard(nil, All(goldenBatch()))); got != want {
		t.Errorf("frame %s, want %s", got, want)
	}
}

func sameBatch(t testing.TB, got, want *Batch) {
	t.Helper()
	if got.Tenant != want.Tenant || len(got.Series) != len(want.Series) ||
		fmt.Sprint(got.Metadata) != fmt.Sprint(want.Metadata) ||
		fmt.Sprint(got.Rejected) != fmt.Sprint(want.Rejected) {
		t.Fatalf("tenant %s, %d series, metadata %v; want %s, %d, %v", got.Tenant, len(got.Series), got.Metadata, want.Tenant,
			len(want.Series), want.Metadata)
	}
	for i := range want.Series {
		g, w := got.Series[i], want.Series[i]
		if !bytes.Equal(g.Labels(), w.Labels()) || g.Key != w.Key || g.Hash != w.Hash ||
			fmt.Sprint(g.Samples, g.Exemplars) != fmt.Sprint(w.Samples, w.Exemplars) || len(g.Histograms) != len(w.Histograms) {
			t.Fatalf("series %d is %+v, want %+v", i, g, w)
		}
		for j := range w.Histograms {
			if !sameHistogram(g.Histograms[j], w.Histograms[j]) {
				t.Fatalf("series %d: histogram %+v, want %+v", i, g.Histograms[j], w.Histograms[j])
			}
		}
	}
}

func TestShardRoundTrip(t *testing.T) {
	b := goldenBatch()
	got, err := DecodeShard(AppendShard(nil, All(b)))
	if err != nil {
		t.Fatal(err)
	}
	sameBatch(t, got, b)
	got.Release()

	if n, most := len(AppendShard(nil, All(b))), All(b).Size(); int64(n) > most {
		t.Fatalf("a frame of %d bytes, expected at most %d", n, most)
	}

	part := Shard{Batch: b, Series: []int32{2, 0}}
	got, err = DecodeShard(AppendShard([]byte("kept"), part)[4:])
	if err != nil {
		t.Fatal(err)
	}
	sameBatch(t, got, &Batch{Tenant: b.Tenant, Series: []Series{b.Series[2], b.Series[0]}})
	got.Release()
}

func TestShardDamaged(t *testing.T) {
	frame := AppendShard(nil, All(goldenBatch()))
	for n := range frame {
		if b, err := DecodeShard(frame[:n]); err == nil {
			t.Fatalf("%d of %d bytes are accepted: %+v", n, len(frame), b)
		}
	}
	if _, err := DecodeShard(append(frame[:len(frame):len(frame)], 0)); errs.KindOf(err) != errs.Invalid {
		t.Fatalf("a byte too much: %v", err)
	}
	if _, err := DecodeShard([]byte{2, 0}); errs.KindOf(err) != errs.Unsupported {
		t.Fatalf("version 2: %v", err)
	}
	f := func(labels string) {
		t.Helper()
		b := NewBatch(testTenant)
		b.Series = []Series{{labels: []byte(labels), size: len(labels), Samples: []Sample{{}}}}
		if _, err := DecodeShard(AppendShard(nil, All(b))); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: error %v", labels, err)
		}
	}
	f("")
	f("a")
	f("a\xff")
	f("a\xffb")
	f("a\xff\xff")
	f("\xffb\xff")
	f("a\xffb\xffa\xffb\xff")
	f("b\xffb\xffa\xffb\xff")
	f("a\xffb\xffc\xff")
	f("a\xff\xc3\xff")
	f("\xfe\xffb\xff")
	b := NewBatch("..")
	if _, err := DecodeShard(AppendShard(nil, All(b))); errs.KindOf(err) != errs.Invalid {
		t.Errorf("tenant ..: %v", err)
	}
}

// FuzzDecodeShard: what is accepted is written again and read as the same.
func FuzzDecodeShard(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 50 {
		if b, err := DecodeV2(testTenant, oddV2(r)); err == nil {
			f.Add(AppendShard(nil, All(b)))
		}
	}
	f.Add(AppendShard(nil, All(goldenBatch())))
	f.Fuzz(func(t *testing.T, frame []byte) {
		given := bytes.Clone(frame)
		b, err := DecodeShard(given)
		if err != nil {
			return
		}
		clear(given)
		again, err := DecodeShard(AppendShard(nil, All(b)))
		if err != nil {
			t.Fatal(err)
		}
		sameBatch(t, again, b)
		for i := range b.Series {
			ls := LabelsOf(&labels.ScratchBuilder{}, b.Series[i].Labels())
			full := AppendLabels(AppendTenant(nil, b.Tenant), ls)
			if key, hash := Identify(full); key != b.Series[i].Key || hash != b.Series[i].Hash {
				t.Fatalf("%s is not in canonical form", ls)
			}
			if ls.Len() == 0 || !utf8Labels(ls) {
				t.Fatalf("%s may not be in a batch", ls)
			}
		}
		b.Release()
		again.Release()
	})
}

func utf8Labels(ls labels.Labels) bool { return ls.IsValid(1) || usableExemplar(ls) }

func TestFailuresRoundTrip(t *testing.T) {
	f := func(in []Failure) {
		t.Helper()
		raw := AppendFailures(nil, in)
		out, err := DecodeFailures(raw)
		if err != nil || fmt.Sprint(out) != fmt.Sprint(in) {
			t.Fatalf("%+v, %v; want %+v", out, err, in)
		}
		for n := range raw {
			if _, err := DecodeFailures(raw[:n]); errs.KindOf(err) != errs.Internal {
				t.Fatalf("%d of %d bytes: error %v", n, len(raw), err)
			}
		}
	}
	f(nil)
	f([]Failure{{Series: 3, Kind: errs.Conflict, Reason: `too old: {a="b"}`, Samples: 1},
		{Series: -1, Kind: errs.Limited, Histograms: 300, Exemplars: 2}})
	f([]Failure{{Series: 3, Kind: errs.OK, Exemplars: 2}}) // exemplars only
	out, err := DecodeFailures(AppendFailures(nil, []Failure{{Kind: 200}}))
	if err != nil || out[0].Kind != errs.Internal {
		t.Fatalf("unknown kinds: %+v, %v", out, err)
	}
}

func FuzzDecodeFailures(f *testing.F) {
	f.Add(AppendFailures(nil, []Failure{{Series: 3, Kind: errs.Conflict, Reason: "why", Samples: 1}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		in, err := DecodeFailures(raw)
		if err != nil {
			return
		}
		out, err := DecodeFailures(AppendFailures(nil, in))
		if err != nil || fmt.Sprint(in) != fmt.Sprint(out) {
			t.Fatalf("%+v, %v; want %+v", out, err, in)
		}
	})
}
