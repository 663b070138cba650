package series_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
)

func every(from, to, step int64, v float64) (out []sourcetest.Sample) {
	for t := from; t <= to; t += step {
		out = append(out, sourcetest.Sample{T: t, V: v})
	}
	return out
}

// TestDedup: samples are named by replica: a has value 1, b 2, c 3.
func TestDedup(t *testing.T) {
	f := func(want string, copies ...[]sourcetest.Sample) {
		t.Helper()
		var in []series.Series
		for i, c := range copies {
			in = append(in, series.Series{Labels: labels.FromStrings("__name__", "x", "replica", fmt.Sprint(i)), Chunks: sourcetest.Encode(c, 3)})
		}
		set := series.Dedup(series.List(in), series.DedupOptions{ReplicaLabels: []string{"replica"}, MinTime: 0, MaxTime: 1e9})
		if !set.Next() {
			t.Fatal("no series")
		}
		at := set.At()
		got := ""
		for _, s := range drain(t, at.Iterator(nil)) {
			got += fmt.Sprintf("%d%c ", s.T/1000, 'a'+int(s.V)-1)
		}
		if got != want || at.Labels().String() != `{__name__="x"}` {
			t.Errorf("%s: got %s, want %s", at.Labels(), got, want)
		}
		if set.Next() || set.Err() != nil {
			t.Errorf("a second series, or error %v", set.Err())
		}
	}
	const s = 1000
	f("0a 10a 20a ", every(0, 20*s, 10*s, 1))
	// Copies a little apart: one of them is taken, also where the other one is earlier.
	f("0a 10a 20a 30a ", every(0, 30*s, 10*s, 1), every(2*s, 32*s, 10*s, 2))
	f("0b 10b 20b 30b ", every(2*s, 32*s, 10*s, 1), every(0, 30*s, 10*s, 2))
	f("0a 10a 20a 30a ", every(0, 30*s, 10*s, 1), every(2*s, 32*s, 10*s, 2), every(4*s, 34*s, 10*s, 3))
	// A gap is filled by the other copy, which is then kept.
	f("0a 10a 32b 42b 52b 62b ", slices.Concat(every(0, 10*s, 10*s, 1), every(50*s, 60*s, 10*s, 1)), every(2*s, 62*s, 10*s, 2))
	// The end of one copy.
	f("0a 10a 32b 42b ", every(0, 10*s, 10*s, 1), every(2*s, 42*s, 10*s, 2))
	// A gap in all of them.
	f("0a 10a 100a 110a ", slices.Concat(every(0, 10*s, 10*s, 1), every(100*s, 110*s, 10*s, 1)), slices.Concat(every(2*s, 12*s, 10*s, 2), every(102*s, 112*s, 10*s, 2)))
	// Equal timestamps.
	f("0a 10a 20a ", every(0, 20*s, 10*s, 1), every(0, 20*s, 10*s, 2))
}

// TestDedupSeek: where copies change does not depend on seeks.
func TestDedupSeek(t *testing.T) {
	a, b := slices.Concat(every(0, 50_000, 10_000, 1), every(200_000, 400_000, 10_000, 1)), every(2_000, 402_000, 10_000, 2)
	open := func() chunkenc.Iterator {
		set := series.Dedup(series.List([]series.Series{
			{Labels: labels.FromStrings("replica", "0", "x", "y"), Chunks: sourcetest.Encode(a, 5)},
			{Labels: labels.FromStrings("replica", "1", "x", "y"), Chunks: sourcetest.Encode(b, 7)},
		}), series.DedupOptions{ReplicaLabels: []string{"replica"}, MaxTime: 1e9})
		set.Next()
		return set.At().Iterator(nil)
	}
	all := drain(t, open())
	for from := range int64(410) {
		it := open()
		want := slices.IndexFunc(all, func(s sourcetest.Sample) bool { return s.T >= from*1000 })
		typ := it.Seek(from * 1000)
		switch {
		case (typ == chunkenc.ValNone) != (want < 0):
			t.Fatalf("seek %d: %v", from, typ)
		case want >= 0 && sampleAt(it, typ).String() != all[want].String():
			t.Fatalf("seek %d: %s, want %s", from, sampleAt(it, typ), all[want])
		}
	}
}

func TestDedupKeepsOthersApart(t *testing.T) {
	in := []series.Series{
		{Labels: labels.FromStrings("__name__", "x", "pod", "1", "replica", "a")}, {Labels: labels.FromStrings("__name__", "x", "pod", "2", "replica", "a")},
		{Labels: labels.FromStrings("__name__", "x", "pod", "1", "replica", "b")}, {Labels: labels.FromStrings("__name__", "x")},
	}
	slices.SortFunc(in, func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) })
	set := series.Dedup(series.List(in, "watch out"), series.DedupOptions{ReplicaLabels: []string{"replica"}})
	notes := set.Warnings() // asked for too early, as the API does
	var got []string
	for set.Next() {
		got = append(got, set.At().Labels().String())
	}
	if want := []string{`{__name__="x"}`, `{__name__="x", pod="1"}`, `{__name__="x", pod="2"}`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, ok := notes["watch out"]; !ok {
		t.Errorf("warnings %v", notes)
	}
}

// TestDedupStale: a stale marker is a NaN with a payload of its own, which arithmetic would lose.
func TestDedupStale(t *testing.T) {
	in := func(name string, samples ...sourcetest.Sample) series.Series {
		return series.Series{Labels: labels.FromStrings("__name__", "x", "replica", name), Chunks: sourcetest.Encode(samples, 3)}
	}
	one := in("0", sourcetest.Sample{T: 1000, V: 1}, sourcetest.Sample{T: 2000, V: stale})
	set := series.Dedup(series.List([]series.Series{one, in("1", sourcetest.Sample{T: 1500, V: 1}, sourcetest.Sample{T: 2500, V: stale})}),
		series.DedupOptions{ReplicaLabels: []string{"replica"}, MinTime: 0, MaxTime: 1e9})
	if !set.Next() {
		t.Fatal("no series")
	}
	got := drain(t, set.At().Iterator(nil))
	if len(got) != 2 || got[1].T != 2000 || !value.IsStaleNaN(got[1].V) {
		t.Errorf("got %v, want a sample and a stale marker", got)
	}
}
