package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// askSeries asks for the deletion of samples of a tenant.
func askSeries(t *testing.T, bkt objstore.Bucket, id tenant.ID, s deletion.Series) deletion.Request {
	t.Helper()
	q, err := deletion.NewSeries(id, s, time.Now(), time.Hour)
	if err == nil {
		err = deletion.Put(t.Context(), bkt, q)
	}
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// without are series without the samples that a request takes, and without those that have none left.
func without(in []sourcetest.Series, q deletion.Request) (out []sourcetest.Series) {
	for _, s := range in {
		taken := false
		for _, ms := range q.Series.Matchers() {
			all := true
			for _, m := range ms {
				all = all && m.Matches(s.Labels.Get(m.Name))
			}
			taken = taken || all
		}
		left := sourcetest.Series{Labels: s.Labels}
		for _, p := range s.Samples {
			if !taken || p.T < q.Series.MinTime || p.T > q.Series.MaxTime {
				left.Samples = append(left.Samples, p)
			}
		}
		if len(left.Samples) > 0 {
			out = append(out, left)
		}
	}
	return out
}

// TestHideSeries compares a gateway that hides samples with one of which the blocks never had them: with and without
// chunks, with limits, shards and ranges, read for the first time and from caches.
func TestHideSeries(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	in := randomSeries(rnd, 120, 0, 2*3600_000)
	bkt := inMemory(t)
	put := func(bkt objstore.Bucket, in []sourcetest.Series) {
		for i, part := range [][]sourcetest.Series{in, in[:len(in)/2]} { // replicas, of which one lacks some
			upload(t, bkt, makeBlock(t, part), ring(team, fmt.Sprint("r", i)))
		}
	}
	put(bkt, in)
	upload(t, bkt, makeBlock(t, in), ring("other", "r0"))
	g := opened(t, bkt)
	other := text(g.Select(t.Context(), ask("other", 0, 2*3600_000)), 0, 2*3600_000)
	whole := text(g.Select(t.Context(), ask(team, 0, 2*3600_000)), 0, 2*3600_000)
	left := in
	for round := range 6 {
		mint := rnd.Int64N(2 * 3600_000)
		s := deletion.Series{MinTime: mint, MaxTime: mint + rnd.Int64N(2*3600_000), Selectors: []string{
			fmt.Sprintf(`m%d{job=~"j[%d-3]"}`, rnd.IntN(9), rnd.IntN(4)), fmt.Sprintf(`{instance="i%03d",zone=""}`, rnd.IntN(14))}}
		q := askSeries(t, bkt, team, s)
		left = without(left, q)
		if err := g.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		plain := inMemory(t)
		put(plain, left)
		want := opened(t, plain)
		for i := range 20 {
			mint := rnd.Int64N(2 * 3600_000)
			r := ask(team, mint, mint+rnd.Int64N(3600_000), randomMatchers(rnd)...)
			if r.SkipChunks = i%3 == 0; i%4 == 0 {
				r.Shard = series.Shard{Index: uint64(i % 2), Count: 2}
			} else if i%4 == 1 {
				r.Limit = 5
			}
			a, b := text(g.Select(t.Context(), r), r.MinTime, r.MaxTime), text(want.Select(t.Context(), r), r.MinTime, r.MaxTime)
			if r.SkipChunks { // a chunk that is not wholly hidden may have no sample in the range
				r.SkipChunks, r.Limit = false, 0
				samples := withoutEmpty(text(want.Select(t.Context(), r), r.MinTime, r.MaxTime))
				for line := range strings.Lines(samples) {
					if name, _, _ := strings.Cut(line, "}"); !strings.Contains(a, name+"}") && i%4 != 1 {
						t.Fatalf("round %d.%d, %v: %s is not named", round, i, r.Matchers, name)
					}
				}
				continue
			}
			a, b = withoutEmpty(a), withoutEmpty(b)
			if a != b {
				t.Fatalf("round %d.%d, %v: %s", round, i, r.Matchers, firstDifference(a, b))
			}
		}
	}
	askSeries(t, bkt, team, deletion.Series{Selectors: []string{"m2"}, MaxTime: 2 * 3600_000})
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	names := ask(team, 0, 2*3600_000)
	names.SkipChunks = true
	if got := seriesOf(t, g.Select(t.Context(), names)); strings.Contains(got, `"m2"`) || !strings.Contains(got, `"m3"`) {
		t.Errorf("series that are hidden as a whole are named: %s", got)
	}
	if got := text(g.Select(t.Context(), ask("other", 0, 2*3600_000)), 0, 2*3600_000); got != other {
		t.Error("samples of another tenant are hidden")
	}
	for _, q := range g.current.view.Requests.SeriesOf(team) {
		if err := deletion.PutUndo(t.Context(), bkt, deletion.NewChange(q.ID, time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := text(g.Select(t.Context(), ask(team, 0, 2*3600_000)), 0, 2*3600_000); got != whole {
		t.Error("an undo does not bring all back")
	}
}

// TestHiddenIsSaid: a gateway says that what was answered about hidden samples does not hold, and again when they are
// found again.
func TestHiddenIsSaid(t *testing.T) {
	bkt := inMemory(t)
	upload(t, bkt, makeBlock(t, few()), nil)
	now := time.Now()
	g := opened(t, bkt, func(o *Options) { o.Now = func() time.Time { return now } })
	changed := func(mint, maxt int64, since time.Time) bool {
		t.Helper()
		if err := g.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		a, err := g.Arrivals(t.Context(), tenant.Default, since.UnixMilli())
		if err != nil {
			t.Fatal(err)
		}
		return a.MayHaveChanged(mint, maxt, since.UnixMilli())
	}
	start := now
	if changed(0, 5000, start) {
		t.Error("nothing was asked")
	}
	now = now.Add(time.Minute)
	q := askSeries(t, bkt, tenant.Default, deletion.Series{Selectors: []string{`{__name__="a"}`}, MinTime: 1000, MaxTime: 3000})
	if !changed(0, 1000, start) || !changed(3000, 5000, start) || changed(3001, 5000, start) || changed(0, 999, start) {
		t.Error("samples were hidden")
	}
	now = now.Add(time.Minute)
	hidden := now
	if changed(0, 5000, hidden) {
		t.Error("nothing changed since")
	}
	if err := deletion.PutUndo(t.Context(), bkt, deletion.NewChange(q.ID, now)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if !changed(0, 1000, hidden) {
		t.Error("samples are found again")
	}
}

// TestHideExternal: selectors see the external labels that queries see, also for callers that get them apart. Blocks
// that say no tenant are the default tenant's, as for reads.
func TestHideExternal(t *testing.T) {
	bkt := inMemory(t)
	upload(t, bkt, makeBlock(t, few()), map[string]string{"cluster": "eu"})
	upload(t, bkt, makeBlock(t, few()), map[string]string{"cluster": "us"})
	g := opened(t, bkt)
	askSeries(t, bkt, tenant.Default, deletion.Series{Selectors: []string{`{cluster="eu",__name__="a"}`, `{cluster="own"}`}, MaxTime: 5000})
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := `{__name__="a", b="x", cluster="us"} {__name__="a", cluster="us"} {__name__="a", cluster="us", d="y"} ` +
		`{__name__="b", cluster="eu"} {__name__="b", cluster="us"}`
	if got := seriesOf(t, g.Select(t.Context(), ask(tenant.Default, 0, 5000))); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for _, s := range g.Streams(tenant.Default) {
		got := seriesOf(t, s.Source.Select(t.Context(), ask(tenant.Default, 0, 5000)))
		if eu := s.External.Get("cluster") == "eu"; strings.Contains(got, `"a"`) == eu || !strings.Contains(got, `"b"`) {
			t.Errorf("%s: %s", s.External, got)
		}
	}
}
