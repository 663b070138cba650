package tsdb

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/wire"
)

const cutsUnderStress = 15

// stress makes writers append while Cut runs in a loop, and checks that all acknowledged samples, and no others, are
// read back once: at the end, and after the DB was opened again. Before and during each cut the writers write about
// perCut samples, at full speed; then they wait for the next, so that a busy machine only takes longer.
func stress(t *testing.T, writers, perWriter int, perCut int64, write func(d *DB, w *stressWriter)) {
	o := testOptions(t)
	d := openDB(t, o)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var total, allowed atomic.Int64
	allowed.Store(2 * perCut)
	all := make([]*stressWriter, writers)
	for i := range all {
		w := &stressWriter{t: t, stop: stop, count: &total, allowed: &allowed}
		for j := range perWriter {
			w.series = append(w.series,
				labels.FromStrings("__name__", "stress", "writer", fmt.Sprintf("%03d", i), "series", fmt.Sprintf("%05d", j)))
			w.written = append(w.written, nil)
		}
		all[i] = w
		wg.Go(func() { write(d, w) })
	}
	for i := range int64(cutsUnderStress) {
		eventually(t, func() bool { return total.Load() >= (i+1)*perCut }) // something to cut
		allowed.Store((i + 2) * perCut)
		if err := d.Cut(t.Context()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	n := check(t, d, all)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	check(t, openDB(t, o), all)
	t.Logf("%d samples, %d cuts", n, cutsUnderStress)
}

type stressWriter struct {
	t       *testing.T
	stop    chan struct{}
	series  []labels.Labels
	written [][]int64 // acknowledged timestamps by series

	count, allowed *atomic.Int64 // samples of all writers; nil allowed: any number
}

// stopped waits while there is nothing to do, and is true in the end.
func (w *stressWriter) stopped() bool {
	for {
		select {
		case <-w.stop:
			return true
		default:
		}
		if w.allowed == nil || w.count.Load() < w.allowed.Load() {
			return false
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// append stores the samples given by series index and time; its value is the time.
func (w *stressWriter) append(d *DB, at map[int][]int64) {
	b := wire.NewBatch(team)
	for i, ts := range at {
		s := b.Add(w.series[i])
		for _, t := range ts {
			s.Samples = append(s.Samples, wire.Sample{T: t, V: float64(t)})
		}
	}
	failures, err := d.Append(context.Background(), wire.All(b))
	if err != nil || len(failures) > 0 {
		w.t.Errorf("append: %v %v", failures, err)
		return
	}
	for i, ts := range at {
		w.written[i] = append(w.written[i], ts...)
		if w.count != nil {
			w.count.Add(int64(len(ts)))
		}
	}
}

func check(t *testing.T, d *DB, all []*stressWriter) (total int) {
	t.Helper()
	got := map[string][]int64{}
	set := d.Select(t.Context(), request(team, 0, math.MaxInt64/2))
	defer set.Close()
	for set.Next() {
		var ts []int64
		for _, p := range points(t, set.At()) {
			if v, err := strconv.ParseFloat(p.v, 64); err != nil || v != float64(p.t) {
				t.Fatalf("%s at %d: %s", set.At().Labels, p.t, p.v)
			}
			ts = append(ts, p.t)
		}
		if len(slices.Compact(slices.Clone(ts))) != len(ts) {
			t.Fatalf("%s: a sample is there twice", set.At().Labels)
		}
		got[set.At().Labels.String()] = ts
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	lost := 0
	for _, w := range all {
		for i, want := range w.written {
			want = slices.Clone(want)
			slices.Sort(want)
			want = slices.Compact(want)
			total += len(want)
			have := got[w.series[i].String()]
			if slices.Equal(want, have) {
				continue
			}
			for _, ts := range want {
				if _, ok := slices.BinarySearch(have, ts); !ok {
					lost++
				}
			}
			if len(have) > len(want) {
				t.Errorf("%s: %d samples, only %d acknowledged", w.series[i], len(have), len(want))
			}
		}
	}
	if lost > 0 {
		t.Fatalf("%d of %d acknowledged samples lost", lost, total)
	}
	if total == 0 {
		t.Fatal("nothing was written")
	}
	return total
}

// TestCutUnderWrites writes in order, at now.
func TestCutUnderWrites(t *testing.T) {
	stress(t, 4, 50, 40_000, func(d *DB, w *stressWriter) {
		last := int64(0)
		for !w.stopped() {
			now := max(last+1, time.Now().UnixMilli())
			last = now
			at := map[int][]int64{}
			for i := range w.series {
				at[i] = []int64{now}
			}
			w.append(d, at)
		}
	})
}

// TestCutUnderOutOfOrderWrites writes bursts of old samples, longer than an out-of-order chunk, to one series after
// another. Without the fence around the scan of out-of-order chunks one sample in ten was lost.
func TestCutUnderOutOfOrderWrites(t *testing.T) {
	stress(t, 4, 3000, 60_000, func(d *DB, w *stressWriter) {
		base := time.Now().Add(-time.Hour).UnixMilli()
		for n := 0; !w.stopped(); n++ {
			i := n % len(w.series)
			round := int64(n / len(w.series))
			// Newest first in steps, so that all but the first are out of order, and each is its own timestamp.
			at := base + 1800_000 - round*2000
			w.append(d, map[int][]int64{i: {at}})
			var old []int64
			for k := range int64(100) {
				old = append(old, at-1000+k*10)
			}
			w.append(d, map[int][]int64{i: old})
		}
	})
}

func TestRangeEnd(t *testing.T) {
	f := func(at, width, want int64) {
		t.Helper()
		if got := rangeEnd(at, width); got != want {
			t.Fatalf("rangeEnd(%d, %d) = %d, want %d", at, width, got, want)
		}
	}
	f(0, 10, 10)
	f(9, 10, 10)
	f(10, 10, 20)
	f(-1, 10, 0)
	f(-10, 10, 0)
	f(-11, 10, -10)
}

func TestCutBlocks(t *testing.T) {
	o := testOptions(t)
	now := time.Now().Truncate(2 * time.Hour).Add(30 * time.Minute)
	o.Now = func() time.Time { return now }
	d := openDB(t, o)
	width := o.BlockDuration.Milliseconds()
	boundary := now.Truncate(2 * time.Hour).UnixMilli()
	var want []float64
	for at := boundary - 2*width/3; at < now.UnixMilli(); at += 60_000 { // across a boundary
		want = append(want, float64(at), 1)
	}
	put(t, d, team, labels.FromStrings("a", "b"), want...)
	put(t, d, team, labels.FromStrings("late", "b"), float64(boundary-width/2), 1)
	if err := d.Cut(t.Context(), team); err != nil {
		t.Fatal(err)
	}
	blocks, err := d.Blocks(team)
	if err != nil || len(blocks) < 2 {
		t.Fatalf("blocks %v %v", blocks, err)
	}
	for _, b := range blocks {
		if rangeEnd(b.Meta.MinTime, width) != rangeEnd(b.Meta.MaxTime-1, width) {
			t.Fatalf("block [%d, %d) crosses a boundary", b.Meta.MinTime, b.Meta.MaxTime)
		}
	}
	in := d.lookup(team).in
	if n := in.db.Head().NumSeries(); n != 0 {
		t.Fatalf("%d series left in the head", n)
	}
	if in.refs.Len() != 0 {
		t.Fatalf("%d references left of series that are gone", in.refs.Len())
	}
	// What comes late for the range that was cut is accepted, also when it was there already.
	put(t, d, team, labels.FromStrings("a", "b"), want[0], 1, want[2]+1, 7)
	got := collect(t, d.Select(t.Context(), request(team, 0, math.MaxInt64)))
	if n := len(got[`{a="b"}`]); n != len(want)/2+1 {
		t.Fatalf("%d samples, want %d", n, len(want)/2+1)
	}
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := collect(t,
		d.Select(t.Context(), request(team, 0, math.MaxInt64))); !slices.Equal(again[`{a="b"}`], got[`{a="b"}`]) {
		t.Fatal("the second cut changed what is read")
	}
	// Nothing new: no block, and the head's bounds stay.
	before, _ := d.Blocks(team)
	if err := d.Cut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, _ := d.Blocks(team); len(after) != len(before) {
		t.Fatalf("a cut of nothing made blocks: %d -> %d", len(before), len(after))
	}
}

// TestCutWithReader holds a set open over what is being cut: it stays readable, and the cut waits for it.
func TestCutWithReader(t *testing.T) {
	d := openDB(t, testOptions(t))
	now := float64(time.Now().UnixMilli())
	put(t, d, team, labels.FromStrings("a", "b"), now, 1, now+1, 2)
	set := d.Select(t.Context(), &series.Request{Tenant: team, MaxTime: math.MaxInt64})
	done := make(chan error)
	go func() { done <- d.Cut(context.Background()) }()
	eventually(t, func() bool { b, _ := d.Blocks(team); return len(b) > 0 })
	if got := collect(t, set); len(got[`{a="b"}`]) != 2 {
		t.Fatalf("read %v", got)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestCutStopsWithContext(t *testing.T) {
	d := openDB(t, testOptions(t))
	put(t, d, team, labels.FromStrings("a", "b"), float64(time.Now().UnixMilli()), 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Cut(ctx); err == nil {
		t.Fatal("a cut whose context had ended did not say so")
	}
	put(t, d, team, labels.FromStrings("a", "b"), float64(time.Now().UnixMilli()), 2)
}

// TestCutWaitsForAppender commits, during a cut, with an appender that was made before it.
func TestCutWaitsForAppender(t *testing.T) {
	d := openDB(t, testOptions(t))
	now := time.Now().UnixMilli()
	ls := labels.FromStrings("a", "b")
	put(t, d, team, ls, float64(now), 1)
	put(t, d, team, labels.FromStrings("a", "ahead"), float64(now+10_000), 1) // so that the cut reaches further
	in := d.lookup(team).in
	_ = in.fence.take(t.Context())
	app := in.db.Head().AppenderV2(t.Context())
	done := make(chan error)
	go func() { done <- d.Cut(context.Background()) }()
	eventually(t, func() bool { // the cut waits: nobody new gets in
		if !in.fence.tryTake() {
			return true
		}
		in.fence.give()
		return false
	})
	if _, err := app.Append(0, ls, 0, now+5000, 2, nil, nil, storage.AOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	in.fence.give()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := read(t, d, team)[`{a="b"}`]; len(got) != 2 {
		t.Fatalf("read %v, want both samples", got)
	}
}
