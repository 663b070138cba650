package receive

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/block/deletion"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// askSeries asks for the deletion of samples, and lets the receiver look.
func (d *deleting) askSeries(s deletion.Series) deletion.Request {
	d.t.Helper()
	q, err := deletion.NewSeries(team, s, d.opts.Now(), time.Hour)
	if err == nil {
		err = deletion.Put(d.t.Context(), d.bkt, q)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.followDeletions(d.t.Context())
	return q
}

// found are the samples of a set in the range of its request, by the text of the labels. A series may have none.
func found(t *testing.T, set series.Set, req *series.Request) map[string]map[int64]float64 {
	t.Helper()
	defer set.Close()
	out, last := map[string]map[int64]float64{}, labels.EmptyLabels()
	for set.Next() {
		s := set.At()
		if len(out) > 0 && labels.Compare(last, s.Labels) >= 0 {
			t.Fatalf("%s after %s", s.Labels, last)
		}
		last = s.Labels
		by := map[int64]float64{}
		it := series.NewIterator(s.Chunks, series.PickAvg)
		for it.Next() != chunkenc.ValNone {
			if ts, v := it.At(); ts >= req.MinTime && ts <= req.MaxTime {
				by[ts] = v
			}
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
		out[s.Labels.String()] = by
	}
	if set.Err() != nil || len(set.Warnings()) > 0 {
		t.Fatal(set.Err(), set.Warnings())
	}
	return out
}

// TestHideSeries compares a receiver, of which samples are in blocks, in the head and out of order, with a Prometheus
// TSDB that deletes the same. Random requests are read in each way; an undo brings all back.
func TestHideSeries(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	d := startDeleting(t)
	plain, err := promtsdb.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil, promtsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	now := time.Now().Add(-time.Minute).Truncate(time.Second)
	from := now.Add(-2 * time.Hour)
	all := map[string]map[int64]float64{}
	b := wire.NewBatch(team)
	var early, late []func(*wire.Batch)
	app := plain.Appender(t.Context())
	for i := range 30 {
		ls := labels.FromStrings("__name__", fmt.Sprint("m", i%4), "i", fmt.Sprint(i%7), "id", fmt.Sprint(i))
		by := map[int64]float64{}
		for ts := from.UnixMilli() + r.Int64N(600_000); ts < now.UnixMilli(); ts += 1000 + r.Int64N(60_000) {
			by[ts] = r.Float64()
		}
		for _, ts := range slices.Sorted(maps.Keys(by)) {
			if _, err := app.Append(0, ls, ts, by[ts]); err != nil {
				t.Fatal(err)
			}
			to := &early
			if ts > from.Add(time.Hour).UnixMilli() || r.IntN(5) == 0 { // some of the first hour come out of order
				to = &late
			}
			*to = append(*to, func(b *wire.Batch) {
				b.Add(ls).Samples = []wire.Sample{{T: ts, V: by[ts]}}
			})
		}
		all[ls.String()] = by
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	send := func(adds []func(*wire.Batch)) {
		t.Helper()
		for part := range slices.Chunk(adds, 1) {
			b = wire.NewBatch(team)
			for _, add := range part {
				add(b)
			}
			if f, err := d.Write(t.Context(), wire.All(b)); err != nil || len(f) > 0 {
				t.Fatal(f, err)
			}
		}
	}
	send(early)
	if err := d.db.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(late)

	oracle := func(req *series.Request) map[string]map[int64]float64 {
		q, err := plain.Querier(req.MinTime, req.MaxTime)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		out := map[string]map[int64]float64{}
		// Trimming panics in this Prometheus where intervals of deletions meet the range (tombstones.Intervals.Add).
		hints := &storage.SelectHints{Start: req.MinTime, End: req.MaxTime, DisableTrimming: true}
		set := q.Select(context.Background(), true, hints, req.Matchers...)
		for set.Next() {
			by := map[int64]float64{}
			for it := set.At().Iterator(nil); it.Next() != chunkenc.ValNone; {
				if ts, v := it.At(); ts >= req.MinTime && ts <= req.MaxTime {
					by[ts] = v
				}
			}
			if len(by) > 0 {
				out[set.At().Labels().String()] = by
			}
		}
		if set.Err() != nil {
			t.Fatal(set.Err())
		}
		return out
	}
	same := func(a, b map[string]map[int64]float64) bool { return maps.EqualFunc(a, b, maps.Equal) }
	check := func() {
		t.Helper()
		for range 20 {
			mint := from.UnixMilli() + r.Int64N(7_000_000)
			req := &series.Request{Tenant: team, MinTime: mint, MaxTime: mint + r.Int64N(4_000_000)}
			if r.IntN(2) == 0 {
				req.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "i", "[0-4]")}
			} else {
				req.Matchers = []*labels.Matcher{series.Everything}
			}
			want := oracle(req)
			got := found(t, d.Select(t.Context(), req), req)
			maps.DeleteFunc(got, func(_ string, by map[int64]float64) bool { return len(by) == 0 })
			if !same(got, want) {
				t.Fatalf("%d series, want %d", len(got), len(want))
			}
			stream := d.Streams(team)[0].Source
			got = found(t, stream.Select(t.Context(), req), req)
			maps.DeleteFunc(got, func(_ string, by map[int64]float64) bool { return len(by) == 0 })
			if !same(got, want) {
				t.Fatal("a stream, as Thanos reads it, differs")
			}
			limited := *req
			limited.Limit = 3
			if n := len(found(t, d.Select(t.Context(), &limited), req)); n < min(3, len(want)) || n > 3 {
				t.Fatalf("%d series with a limit of 3, of %d", n, len(want))
			}
			without := *req
			without.WithoutLabels, without.SkipChunks = []string{"__name__", "i"}, true
			names := found(t, d.Select(t.Context(), &without), req)
			for text := range want { // a series of which a chunk is left may be named and have no sample in the range
				ls := labels.EmptyLabels()
				for have := range all {
					if have == text {
						for id := range 30 {
							if l := fmt.Sprint(`id="`, id, `"`); len(text) > len(l) && text[len(text)-len(l)-1:len(text)-1] == l {
								ls = labels.FromStrings("id", fmt.Sprint(id))
							}
						}
					}
				}
				if _, ok := names[ls.String()]; !ok {
					t.Fatalf("%s of %s is not among %d series", ls, text, len(names))
				}
			}
		}
	}
	check()
	var undo []deletion.Request
	for range 6 {
		mint := from.UnixMilli() + r.Int64N(7_000_000)
		s := deletion.Series{MinTime: mint, MaxTime: mint + r.Int64N(3_000_000), Selectors: []string{
			fmt.Sprintf(`m%d{i=~"[%d-6]"}`, r.IntN(4), r.IntN(6)), fmt.Sprintf(`{id="%d"}`, r.IntN(30))}}
		undo = append(undo, d.askSeries(s))
		for _, ms := range undo[len(undo)-1].Series.Matchers() {
			if err := plain.Delete(t.Context(), s.MinTime, min(s.MaxTime, d.opts.Now().UnixMilli()), ms...); err != nil {
				t.Fatal(err)
			}
		}
		check()
	}
	// A whole series is not named any more either, and nothing of another tenant is hidden.
	whole := &series.Request{Tenant: team, MinTime: 0, MaxTime: now.UnixMilli(), SkipChunks: true,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "id", "5")}}
	if len(found(t, d.Select(t.Context(), whole), whole)) != 1 {
		t.Error("series 5 is not there")
	}
	write(t, d.Receiver, "other", labels.FromStrings("id", "5"), now, 1)
	undo = append(undo, d.askSeries(deletion.Series{Selectors: []string{`{id="5"}`}, MaxTime: now.UnixMilli()}))
	if len(found(t, d.Select(t.Context(), whole), whole)) != 0 {
		t.Error("series 5 is named")
	}
	other := *whole
	other.Tenant = "other"
	if len(found(t, d.Select(t.Context(), &other), &other)) != 1 {
		t.Error("a series of another tenant is hidden")
	}
	for _, q := range undo {
		if err := deletion.PutUndo(t.Context(), d.bkt, deletion.NewChange(q.ID, d.opts.Now())); err != nil {
			t.Fatal(err)
		}
	}
	d.followDeletions(t.Context())
	req := &series.Request{Tenant: team, MinTime: 0, MaxTime: now.UnixMilli()}
	if !same(found(t, d.Select(t.Context(), req), req), all) {
		t.Error("an undo does not bring all back")
	}
}

// TestHideExemplars: those of deleted samples are hidden, too.
// TestHiddenIsSaid: a receiver says that what was answered about hidden samples does not hold.
func TestHiddenIsSaid(t *testing.T) {
	d := startDeleting(t)
	since := d.opts.Now().Add(time.Millisecond).UnixMilli()
	changed := func(mint, maxt int64) bool {
		t.Helper()
		a, err := d.Arrivals(t.Context(), team, since)
		if err != nil {
			t.Fatal(err)
		}
		return a.MayHaveChanged(mint, maxt, since)
	}
	d.followDeletions(t.Context())
	if changed(1000, 2000) {
		t.Error("nothing was asked")
	}
	d.askSeries(deletion.Series{Selectors: []string{`{a="b"}`}, MinTime: 1000, MaxTime: 2000})
	if !changed(2000, 3000) || changed(2001, 3000) || changed(0, 999) {
		t.Error("samples were hidden")
	}
}

func TestHideExemplars(t *testing.T) {
	d := startDeleting(t)
	now := time.Now().Add(-time.Minute).UnixMilli()
	b := wire.NewBatch(team)
	s := b.Add(labels.FromStrings("a", "b"))
	for i := range int64(10) {
		s.Samples = append(s.Samples, wire.Sample{T: now + i, V: 1})
		trace := wire.AppendLabels(nil, labels.FromStrings("id", fmt.Sprint(i)))
		s.Exemplars = append(s.Exemplars, wire.Exemplar{T: now + i, V: float64(i), Labels: trace})
	}
	if f, err := d.Write(t.Context(), wire.All(b)); err != nil || len(f) > 0 {
		t.Fatal(f, err)
	}
	count := func() (n int) {
		all := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "b")}
		res, _, err := d.Exemplars(t.Context(), team, 0, now+100, all)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range res {
			n += len(q.Exemplars)
		}
		return n
	}
	if n := count(); n != 10 {
		t.Fatalf("%d exemplars", n)
	}
	d.askSeries(deletion.Series{Selectors: []string{`{a="b"}`}, MinTime: now + 2, MaxTime: now + 5})
	if n := count(); n != 6 {
		t.Errorf("%d exemplars", n)
	}
	d.askSeries(deletion.Series{Selectors: []string{`{a="b"}`}, MaxTime: now + 50})
	if n := count(); n != 0 {
		t.Errorf("%d exemplars", n)
	}
}
