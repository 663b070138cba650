package wire

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// numbered is a pooled batch of n series with a label that numbers them, a sample each.
func numbered(t testing.TB, n int) *Batch {
	t.Helper()
	b := NewLimitedBatch(testTenant, 1<<20)
	for i := range n {
		ls := labels.FromStrings("__name__", "up", "n", fmt.Sprint(i), "z", "last")
		if err := b.AddSample(ls, Sample{T: int64(i), V: float64(i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	b.AddMetadata(Metadata{Family: "up", Type: "gauge", Help: "is it"})
	b.AddMetadata(Metadata{Family: "down", Type: "gauge"})
	return b
}

// checkIdentity looks whether every series of b is what a decoder would have made of its labels.
func checkIdentity(t *testing.T, b *Batch) {
	t.Helper()
	for i, s := range b.Series {
		key, hash := Identify(append(AppendTenant(nil, b.Tenant), s.Labels()...))
		if s.Key != key || s.Hash != hash {
			t.Errorf("%s series %d %s: key or hash is not that of its labels", b.Tenant, i, textOf(s.Labels()))
		}
	}
}

func TestRewrite(t *testing.T) {
	src := numbered(t, 6)
	before := slices.Clone(src.Series)
	r := Rewrite(src)
	r.Keep(0)
	if r.Changed() {
		t.Fatal("a series that is kept is no change")
	}
	r.Drop(1)
	r.Put(2, testTenant, []byte("__name__\xffother\xff"), []byte("z\xfflast\xff"))
	r.Put(3, "elsewhere", src.Series[3].Labels())
	r.Drop(4)
	r.Keep(5)
	r.Describe(1, "elsewhere")
	home, others := r.Done()
	src.Release()
	if len(others) != 1 || home.Tenant != testTenant || others[0].Tenant != "elsewhere" {
		t.Fatalf("%d batches", len(others))
	}
	away := others[0]
	checkIdentity(t, home)
	checkIdentity(t, away)
	var texts []string
	for i, s := range home.Series {
		texts = append(texts, fmt.Sprint(home.Origin(i), textOf(s.Labels()), s.Samples[0].V))
	}
	want := []string{`0{__name__="up", n="0", z="last"}0`, `2{__name__="other", z="last"}2`,
		`5{__name__="up", n="5", z="last"}5`}
	if !slices.Equal(texts, want) {
		t.Fatalf("got %q\nwant %q", texts, want)
	}
	if len(home.Metadata) != 0 {
		t.Fatalf("metadata %v", home.Metadata)
	}
	if len(away.Series) != 1 || away.Origin(0) != 3 || len(away.Metadata) != 1 || away.Metadata[0].Family != "down" {
		t.Fatalf("away: %v %v", away.Series, away.Metadata)
	}
	if away.Series[0].Key == before[3].Key {
		t.Fatal("a series of another tenant has the same key")
	}

	again := Rewrite(home) // origins go back to the first batch
	again.Drop(0)
	again.Drop(1)
	again.Keep(2)
	third, others := again.Done()
	if len(others) != 0 || third.Origin(0) != 5 || len(third.Series) != 1 {
		t.Fatalf("rewritten twice: %v", third)
	}
	home.Release()
	away.Release()
	if !bytes.Equal(third.Series[0].Labels(), []byte("__name__\xffup\xffn\xff5\xffz\xfflast\xff")) {
		t.Fatal("labels were recycled while a batch of a batch referred to them")
	}
	third.Release()
}

func TestRewriteKeepsMetadataAndRejected(t *testing.T) {
	src := numbered(t, 1)
	src.Reject(Failure{Series: -1, Reason: "bad", Samples: 3})
	r := Rewrite(src)
	r.Drop(0)
	own, others := r.Done()
	if len(others) != 0 || len(own.Series) != 0 || len(own.Metadata) != 2 || own.Rejected[0].Samples != 3 {
		t.Fatalf("%+v", own)
	}
	if n := src.refs.Load(); n != 2 {
		t.Fatalf("the source has %d references", n)
	}
	own.Release()
	if n := src.refs.Load(); n != 1 {
		t.Fatalf("the source has %d references after all", n)
	}
	empty := Rewrite(numbered(t, 1))
	empty.Drop(0)
	empty.DescribeNone()
	if own, others := empty.Done(); own.HasContent() || len(others) != 0 {
		t.Fatalf("a batch of nothing has %+v", own)
	}
}

func TestRewriteToManyTenants(t *testing.T) {
	src := numbered(t, 300)
	r := Rewrite(src)
	for i := range src.Series {
		r.Put(i, tenant.ID(fmt.Sprint("t", i%30)), src.Series[i].Labels())
	}
	own, outs := r.Done()
	if len(outs) != 30 || len(own.Series) != 0 || len(own.Metadata) != 2 {
		t.Fatalf("%d batches, own %+v", len(outs), own)
	}
	for k, b := range outs {
		checkIdentity(t, b)
		if len(b.Series) != 10 || b.Tenant != tenant.ID(fmt.Sprint("t", k)) || b.Origin(3) != 90+k {
			t.Fatalf("batch %d: %s with %d series", k, b.Tenant, len(b.Series))
		}
	}
}

func TestRewriteAllocates(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	src := numbered(t, 500)
	if n := testing.AllocsPerRun(50, func() { rewriteAll(src) }); n > 3+poolNoise {
		t.Fatalf("%v allocations per batch", n)
	}
}

// rewriteAll takes a label off every series.
func rewriteAll(src *Batch) {
	r := Rewrite(src)
	for i := range src.Series {
		l := src.Series[i].Labels()
		r.Put(i, src.Tenant, l[:len("__name__=up=")], l[len("__name__=up="):len(l)-len("z=last=")])
	}
	own, _ := r.Done()
	own.Release()
}

func BenchmarkRewrite(b *testing.B) {
	src := numbered(b, 2000)
	b.ReportAllocs()
	for b.Loop() {
		rewriteAll(src)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/series")
}
