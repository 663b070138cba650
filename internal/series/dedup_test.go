package series_test

import (
	"fmt"
	"math"
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
			in = append(in, series.Series{Labels: labels.FromStrings("__name__", "x", "replica", fmt.Sprint(i)),
				Chunks: sourcetest.Encode(c, 3)})
		}
		set := series.Dedup(series.List(in),
			series.DedupOptions{ReplicaLabels: []string{"replica"}, Reading: &series.Reading{MaxTime: 1e9}})
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
	// A gap is filled by the other copy, which is then kept: nowhere is less than some copy has.
	f("0a 10a 22b 32b 42b 52b 62b ", slices.Concat(every(0, 10*s, 10*s, 1), every(50*s, 60*s, 10*s, 1)),
		every(2*s, 62*s, 10*s, 2))
	// The end of one copy.
	f("0a 10a 22b 32b 42b ", every(0, 10*s, 10*s, 1), every(2*s, 42*s, 10*s, 2))
	// A gap in all of them.
	f("0a 10a 100a 110a ", slices.Concat(every(0, 10*s, 10*s, 1), every(100*s, 110*s, 10*s, 1)),
		slices.Concat(every(2*s, 12*s, 10*s, 2), every(102*s, 112*s, 10*s, 2)))
	// Equal timestamps.
	f("0a 10a 20a ", every(0, 20*s, 10*s, 1), every(0, 20*s, 10*s, 2))
}

// TestDedupSeek: where copies change does not depend on seeks.
func TestDedupSeek(t *testing.T) {
	a, b := slices.Concat(every(0, 50_000, 10_000, 1),
		every(200_000, 400_000, 10_000, 1)), every(2_000, 402_000, 10_000, 2)
	open := func() chunkenc.Iterator {
		set := series.Dedup(series.List([]series.Series{
			{Labels: labels.FromStrings("replica", "0", "x", "y"), Chunks: sourcetest.Encode(a, 5)},
			{Labels: labels.FromStrings("replica", "1", "x", "y"), Chunks: sourcetest.Encode(b, 7)},
		}), series.DedupOptions{ReplicaLabels: []string{"replica"}, Reading: &series.Reading{MaxTime: 1e9}})
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
		{Labels: labels.FromStrings("__name__", "x", "pod", "1", "replica", "a")},
		{Labels: labels.FromStrings("__name__", "x", "pod", "2", "replica", "a")},
		{Labels: labels.FromStrings("__name__", "x", "pod", "1", "replica", "b")},
		{Labels: labels.FromStrings("__name__", "x")},
	}
	slices.SortFunc(in, func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) })
	set := series.Dedup(series.List(in, "watch out"),
		series.DedupOptions{ReplicaLabels: []string{"replica"}, Reading: &series.Reading{}})
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

// stream is a copy for the tests below: samples of one replica.
type stream []sourcetest.Sample

// merged is the samples of the copies as one series.
func merged(t *testing.T, pick series.Pick, copies ...stream) stream {
	t.Helper()
	var in []series.Series
	for i, c := range copies {
		in = append(in, series.Series{Labels: labels.FromStrings("__name__", "x", "replica", fmt.Sprint(i)),
			Chunks: sourcetest.Encode(c, 120)})
	}
	set := series.Dedup(series.List(in),
		series.DedupOptions{ReplicaLabels: []string{"replica"}, Reading: &series.Reading{Pick: pick, MaxTime: 1e12}})
	if !set.Next() {
		t.Fatal("no series")
	}
	out := drain(t, set.At().Iterator(nil))
	for i := 1; i < len(out); i++ {
		if out[i].T <= out[i-1].T {
			t.Fatalf("time goes back from %d to %d", out[i-1].T, out[i].T)
		}
	}
	return out
}

// increase is what rate counts: the sum of the steps, where a step down starts at 0.
func (s stream) increase() (sum float64) {
	for i := 1; i < len(s); i++ {
		if step := s[i].V - s[i-1].V; step >= 0 {
			sum += step
		} else {
			sum += s[i].V
		}
	}
	return sum
}

// counter is what a replica has that scrapes, every 15 s from the phase on, a counter that grows by 1 each second from
// a large value; its clock is ahead by skew. resetAt is the true time at which the counter begins at 0 again, 0 =
// never. away are the true times without scrapes.
func counter(phase, skew, resetAt int64, away ...[2]int64) (out stream) {
	for at := phase; at < 3*3600_000; at += 15_000 {
		if slices.ContainsFunc(away, func(a [2]int64) bool { return a[0] <= at && at < a[1] }) {
			continue
		}
		v := 1.3e9 + float64(at)/1000
		if resetAt > 0 && at >= resetAt {
			v = float64(at-resetAt) / 1000
		}
		out = append(out, sourcetest.Sample{T: at + skew + 60_000, V: v})
	}
	return out
}

// within is the samples from one time to another, ms.
func (s stream) within(from, to int64) (out stream) {
	for _, p := range s {
		if from <= p.T && p.T < to {
			out = append(out, p)
		}
	}
	return out
}

// TestDedupSkewedCounter: whatever the clocks of the replicas say, and wherever one or both are away, no counter goes
// back where none did, and the increase over any 20 minutes is about the true one.
func TestDedupSkewedCounter(t *testing.T) {
	const minute = 60_000
	gaps := map[string][2][][2]int64{
		"none":        {},
		"first away":  {{{40 * minute, 60 * minute}}, nil},
		"second away": {nil, {{40 * minute, 60 * minute}}},
		"in turns": {{{40 * minute, 50 * minute}, {70 * minute, 80 * minute}},
			{{55 * minute, 65 * minute}, {85 * minute, 95 * minute}}},
		"often": {{{20 * minute, 21 * minute}, {25 * minute, 26 * minute}, {30 * minute, 30*minute + 20_000}},
			{{23 * minute, 24 * minute}, {28 * minute, 29 * minute}}},
		"first ends":   {{{40 * minute, 1e9}}, nil},
		"first is new": {{{0, 40 * minute}}, nil},
	}
	for name, away := range gaps {
		for _, skew := range []int64{-120_000, -15_000, -8_000, -1, 0, 1, 8_000, 15_000, 120_000} {
			for _, phase := range []int64{0, 1_000, 7_000, 14_000} {
				all := merged(t, series.PickCounter, counter(0, 0, 0, away[0]...), counter(phase, skew, 0, away[1]...))
				for i := 1; i < len(all); i++ {
					if all[i].V < all[i-1].V {
						t.Errorf("%s, skew %d, phase %d: from %v back to %v", name, skew, phase, all[i-1], all[i])
					}
					if all[i].T-all[i-1].T > 75_000 { // a minute, where the label times of both outages meet
						t.Errorf("%s, skew %d, phase %d: nothing from %d to %d", name, skew, phase, all[i-1].T, all[i].T)
					}
				}
				for from := int64(5 * minute); from < 2*60*minute; from += 37_000 {
					w := all.within(from, from+20*minute)
					// Each change of the replica is off by the skew at most, and samples do not reach to the ends of the window.
					want, off := 1200.0, 30+3*float64(max(skew, -skew))/1000
					if got := w.increase(); got < want-off-30 || got > want+off {
						t.Fatalf("%s, skew %d, phase %d: from %d on the increase is %v", name, skew, phase, from, got)
					}
				}
			}
		}
	}
}

// TestDedupTrueReset: a target that restarts is seen to, also in a gap of the replica that is read.
func TestDedupTrueReset(t *testing.T) {
	const at = 50 * 60_000
	for _, away := range [][2]int64{{0, 0}, {at - 60_000, at + 60_000}, {at - 10_000, at + 300_000}} {
		for _, phase := range []int64{1_000, 7_000, 14_000} {
			all := merged(t, series.PickCounter, counter(0, 0, at, away), counter(phase, 0, at))
			resets := 0
			for i := 1; i < len(all); i++ {
				if all[i].V < all[i-1].V {
					resets++
				}
			}
			if got := all.increase(); resets != 1 || got < 3*3600-60 || got > 3*3600 {
				t.Errorf("away %v, phase %d: %d resets, increase %v", away, phase, resets, got)
			}
		}
	}
}

// TestDedupTotalsWithNaN: a sample that is not a number spoils itself alone where one copy of a counter is downsampled.
func TestDedupTotalsWithNaN(t *testing.T) {
	const hours = 3_600_000
	var a, b stream
	v := 0.0
	for at := int64(10_000); at < 6*hours; at += 30_000 {
		v++
		if at < 2*hours || at > 4*hours {
			a = append(a, sourcetest.Sample{T: at, V: v})
		}
		w := v
		if at >= 3*hours && at < 3*hours+30_000 {
			w = math.NaN()
		}
		b = append(b, sourcetest.Sample{T: at + 7_000, V: w})
	}
	in := []series.Series{
		{Labels: labels.FromStrings("__name__", "x", "replica", "a"),
			Chunks: sourcetest.Downsample(a, series.FiveMinutes, 400)},
		{Labels: labels.FromStrings("__name__", "x", "replica", "b"), Chunks: sourcetest.Encode(b, 120)},
	}
	set := series.Dedup(series.List(in), series.DedupOptions{ReplicaLabels: []string{"replica"}, Reading: &series.Reading{
		Pick: series.PickCounter, MaxTime: 1e12, Resolution: series.FiveMinutes,
	}})
	if !set.Next() {
		t.Fatal("no series")
	}
	got := drain(t, set.At().Iterator(nil))
	if last := got[len(got)-1]; math.IsNaN(last.V) || last.V < v-20 {
		t.Errorf("%d samples, the last one is %v, want about %v", len(got), last.V, v)
	}
}

// TestDedupAfterCommonOutage: a long gap of both is no interval, which would keep the replica that lives from being
// read.
func TestDedupAfterCommonOutage(t *testing.T) {
	const minute = 60_000
	outage := [2]int64{30 * minute, 120 * minute}
	all := merged(t, series.PickAvg, counter(0, 0, 0, outage, [2]int64{125 * minute, 1e9}), counter(7_000, 0, 0, outage))
	for i := 1; i < len(all); i++ {
		if d := all[i].T - all[i-1].T; d > 30_000 && all[i-1].T != 31*minute-8_000 && all[i-1].T != 31*minute-15_000 {
			t.Errorf("nothing from %d to %d", all[i-1].T, all[i].T)
		}
	}
	if last := all[len(all)-1].T; last < 180*minute {
		t.Errorf("it ends at %d", last)
	}
}

// TestDedupStale: a stale marker is a NaN with a payload of its own, which arithmetic would lose. It counts when no
// other replica goes on.
func TestDedupStale(t *testing.T) {
	f := func(want string, copies ...stream) {
		t.Helper()
		got := ""
		for _, s := range merged(t, series.PickAvg, copies...) {
			if value.IsStaleNaN(s.V) {
				got += fmt.Sprintf("%ds ", s.T/1000)
			} else {
				got += fmt.Sprintf("%d ", s.T/1000)
			}
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	ends := func(at int64) sourcetest.Sample { return sourcetest.Sample{T: at * 1000, V: stale} }
	from := func(from, to int64, more ...sourcetest.Sample) stream {
		return append(every(from*1000, to*1000, 10_000, 1), more...)
	}
	f("0 10 20s ", from(0, 10, ends(20)))
	f("0 10 20s ", from(0, 10, ends(20)), from(2, 12, ends(22)))
	f("0 10 22 32 42s ", from(0, 10, ends(20)), from(2, 32, ends(42)))
	f("0 10 20 30 40 ", from(0, 40), from(2, 12, ends(22)))
	f("0 10 20s 100 110 ", from(0, 10, ends(20)), from(100, 110))
	f("0 10 20s 100 ", from(0, 10, ends(20), ends(30), ends(40), sourcetest.Sample{T: 100_000, V: 1}),
		from(2, 12, ends(22), ends(32)))
	f("1 11 ", stream{ends(0)}, from(1, 11))
}

// BenchmarkDedup reads an hour of a pair whose replicas are both there all the time.
func BenchmarkDedup(b *testing.B) {
	var in []series.Series
	for i := range 2 {
		c := every(int64(i)*7_000, 3600_000, 15_000, 1)
		in = append(in, series.Series{Labels: labels.FromStrings("__name__", "x", "replica", fmt.Sprint(i)),
			Chunks: sourcetest.Encode(c, 120)})
	}
	opts := series.DedupOptions{ReplicaLabels: []string{"replica"}, Reading: &series.Reading{MaxTime: 1e12}}
	var it chunkenc.Iterator
	b.ReportAllocs()
	for b.Loop() {
		set := series.Dedup(series.List(in), opts)
		set.Next()
		for it = set.At().Iterator(it); it.Next() != chunkenc.ValNone; {
			it.At()
		}
	}
}
