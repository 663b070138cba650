package tsdb

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// stream is a write stream without the network: what comes out of it has hints.
type stream struct {
	t testing.TB
	e *wire.StreamEncoder
	d *wire.StreamDecoder
}

func newStream(t testing.TB) *stream {
	s := &stream{t, wire.NewStreamEncoder(), wire.NewStreamDecoder(wire.NewSharedSeries(0))}
	t.Cleanup(s.d.Close)
	return s
}

// batch has one sample at time at of each series; its value is at.
func (s *stream) batch(id tenant.ID, at int64, series ...string) *wire.Batch {
	s.t.Helper()
	b := wire.NewBatch(id)
	for _, name := range series {
		b.Add(labels.FromStrings("__name__", name)).Samples = []wire.Sample{{T: at, V: float64(at)}}
	}
	frame, _ := s.e.Add(s.e.Begin(nil, id), wire.All(b))
	out, err := s.d.Decode(frame)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// holds fails unless the tenant has exactly the samples at these times of each series, with their times as values.
func holds(t *testing.T, d *DB, id tenant.ID, want map[string][]int64) {
	t.Helper()
	got := read(t, d, id)
	for name, times := range want {
		var ps []point2
		for _, at := range times {
			ps = append(ps, point2{at, fmt.Sprint(float64(at))})
		}
		if have := got[fmt.Sprintf("{__name__=%q}", name)]; fmt.Sprint(have) != fmt.Sprint(ps) {
			t.Errorf("%s has %v, want %v", name, have, ps)
		}
	}
	if len(got) != len(want) {
		t.Errorf("series %v, want %v", got, want)
	}
}

// TestHintAfterGC: a series that the head has forgotten comes back by its number, whose labels do not travel again.
func TestHintAfterGC(t *testing.T) {
	d := openDB(t, testOptions(t))
	s := newStream(t)
	now := time.Now().UnixMilli()
	mustAppend(t, d, s.batch(team, now, "a", "b"))
	mustAppend(t, d, s.batch(team, now+1, "a", "b"))
	if err := d.Cut(t.Context(), team); err != nil {
		t.Fatal(err)
	}
	if n := d.lookup(team).in.db.Head().NumSeries(); n != 0 {
		t.Fatalf("%d series are left", n)
	}
	for at := now + 2; at < now+5; at++ { // and the hints of the two are not of one head any more
		mustAppend(t, d, s.batch(team, at, "b"))
	}
	b := s.batch(team, now+5, "a", "b")
	mustAppend(t, d, b)
	in := d.lookup(team).in
	for i := range b.Series {
		want := new(atomic.Uint64)
		in.refs.Hint(want, in.refs.Get(b.Series[i].Key))
		if hint := b.Series[i].Hint.Load(); hint != want.Load() || hint == 0 {
			t.Errorf("the hint of series %d is %#x, want %#x", i, hint, want.Load())
		}
		if b.Series[i].KeepsLabels() {
			t.Errorf("the labels of series %d are in memory twice", i)
		}
	}
	holds(t, d, team,
		map[string][]int64{"a": {now, now + 1, now + 5}, "b": {now, now + 1, now + 2, now + 3, now + 4, now + 5}})
}

// TestHintOfAnotherHead: hints outlive the head that set them, when the tenant or the process's database is closed and
// opened again, where the same reference is another series.
func TestHintOfAnotherHead(t *testing.T) {
	s := newStream(t)
	o := testOptions(t)
	now := time.Now().UnixMilli()
	d := openDB(t, o)
	mustAppend(t, d, s.batch(team, now, "a", "b", "c"))
	mustAppend(t, d, s.batch("other", now, "x"))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = openDB(t, o) // the receiver started again
	mustAppend(t, d, s.batch(team, now+1, "c", "b", "a", "d"))
	holds(t, d, team, map[string][]int64{"a": {now, now + 1}, "b": {now, now + 1}, "c": {now, now + 1}, "d": {now + 1}})

	empty := openDB(t, testOptions(t)) // and lost its disk: references begin at 1 again
	mustAppend(t, empty, s.batch(team, now+2, "d", "c", "b", "a"))
	mustAppend(t, empty, s.batch("other", now+2, "x"))
	holds(t, empty, team, map[string][]int64{"a": {now + 2}, "b": {now + 2}, "c": {now + 2}, "d": {now + 2}})
	holds(t, empty, "other", map[string][]int64{"x": {now + 2}})
}

// TestHintOfRolledBack: what a transaction that was rolled back knew of a series is not hinted.
func TestHintOfRolledBack(t *testing.T) {
	o := testOptions(t)
	d := openDB(t, o)
	s := newStream(t)
	now := time.Now().UnixMilli()
	mustAppend(t, d, s.batch(team, now, "a"))
	in := d.lookup(team).in
	lost := s.batch(team, now+1, "a", "b")
	tx := transactions.Get().(*transaction)
	tx.in, tx.m = in, d.m
	if err := tx.begin(); err != nil {
		t.Fatal(err)
	}
	tx.seen.Reset(len(lost.Series))
	tx.app = in.db.Head().AppenderV2(t.Context())
	if err := tx.appendAll(t.Context(), wire.All(lost)); err != nil {
		t.Fatal(err)
	}
	if err := tx.app.Rollback(); err != nil {
		t.Fatal(err)
	}
	tx.put()
	if lost.Series[1].Hint.Load() != 0 || in.refs.Get(lost.Series[1].Key) != 0 {
		t.Error("a reference was kept")
	}
	mustAppend(t, d, s.batch(team, now+2, "a", "b"))
	holds(t, d, team, map[string][]int64{"a": {now, now + 2}, "b": {now + 2}})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	holds(t, openDB(t, o), team, map[string][]int64{"a": {now, now + 2}, "b": {now + 2}})
}
