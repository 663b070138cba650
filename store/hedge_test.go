package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestDurations: when a read gets a second try, after durations of given lengths in ms.
func TestDurations(t *testing.T) {
	repeat := func(n int, each ...int) (all []int) {
		for range n {
			all = append(all, each...)
		}
		return all
	}
	for _, f := range []struct {
		ms   []int
		want int
	}{
		{nil, 0},
		{repeat(19, 1000), 0}, // too few to judge by
		{repeat(24, 1000), 1000},
		{repeat(24, 1), 50}, // a disk: the floor
		{append(repeat(100, 100), 9000, 9000, 9000, 9000), 100}, // 4 of 104
		{append(repeat(90, 100), repeat(14, 400)...), 400},
		{append(repeat(500, 9000), repeat(128, 100)...), 100}, // what was long ago is forgotten
	} {
		var ds durations
		for _, ms := range f.ms {
			ds.add(time.Duration(ms) * time.Millisecond)
		}
		if got := ds.delay().Milliseconds(); got != int64(f.want) {
			t.Errorf("after %d durations: %d ms, want %d", len(f.ms), got, f.want)
		}
	}
}

// step is what one call of a fake bucket does: it waits, and then has an outcome.
type step struct {
	wait time.Duration
	err  error
	got  int64
}

// played is what came of a read.
type played struct {
	text           string
	got            int64
	err            error
	took           time.Duration
	calls, stopped int // of the bucket, and those that were cancelled
}

// play reads from a bucket that does steps.
func play(t *testing.T, h *hedger, steps ...step) (p played) {
	t.Helper()
	ended := make(chan bool, 10)
	next := make(chan int, len(steps))
	for i := range steps {
		next <- i
	}
	begun := time.Now()
	into := [][]byte{make([]byte, 1), make([]byte, 2)}
	p.got, p.err = h.read(t.Context(), ofIndex, into, func(ctx context.Context, into [][]byte) (int64, error) {
		i := <-next
		s := steps[i]
		if err := sleep(ctx, s.wait); err != nil {
			ended <- true
			return 0, errs.E(errs.Unavailable, "%w", err)
		}
		into[0][0], into[1][0], into[1][1] = 'a'+byte(i), 'a'+byte(i), 'a'+byte(i)
		ended <- false
		return s.got, s.err
	})
	p.took = time.Since(begun)
	synctest.Wait() // for the call that lost
	for range len(ended) {
		if <-ended {
			p.stopped++
		}
	}
	p.text, p.calls = string(into[0])+string(into[1]), len(steps)-len(next)
	return p
}

// knowing is a hedger that has seen reads of 100 ms.
func knowing() *hedger {
	h := newHedger(newMetrics(nil, 1))
	for range 2 * minSamples {
		h.took(hedgeKind{what: ofIndex}, 100*time.Millisecond, false)
	}
	return h
}

// TestHedge: which of two calls gives the answer, and when.
func TestHedge(t *testing.T) {
	const ms = time.Millisecond
	fault, gone := errs.E(errs.Unavailable, "fault"), errs.E(errs.NotFound, "gone")
	for name, f := range map[string]struct {
		steps          []step
		text           string
		err            error
		took           time.Duration
		calls, stopped int
	}{
		"in time":                      {[]step{{99 * ms, nil, 3}, {}}, "aaa", nil, 99 * ms, 1, 0},
		"slow, the second wins":        {[]step{{5000 * ms, nil, 3}, {100 * ms, nil, 3}}, "bbb", nil, 200 * ms, 2, 1},
		"slow, the first wins":         {[]step{{150 * ms, nil, 3}, {100 * ms, nil, 3}}, "aaa", nil, 150 * ms, 2, 1},
		"slow, the second fails":       {[]step{{300 * ms, nil, 3}, {10 * ms, fault, 0}}, "aaa", nil, 300 * ms, 2, 0},
		"slow, the first fails":        {[]step{{150 * ms, fault, 0}, {100 * ms, nil, 3}}, "bbb", nil, 200 * ms, 2, 0},
		"slow, both fail":              {[]step{{150 * ms, fault, 0}, {100 * ms, fault, 0}}, "", fault, 200 * ms, 2, 0},
		"slow, and gone":               {[]step{{150 * ms, gone, 0}, {100 * ms, nil, 3}}, "", gone, 150 * ms, 2, 1},
		"fails: fetch has tried again": {[]step{{10 * ms, fault, 0}, {}}, "", fault, 10 * ms, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := knowing()
				p := play(t, h, f.steps...)
				if !errors.Is(p.err, f.err) || p.err == nil && (p.text != f.text || p.got != 3) || h.bytes != 0 ||
					p.took != f.took || p.calls != f.calls || p.stopped != f.stopped {
					t.Errorf("%+v, %d bytes are held", p, h.bytes)
				}
			})
		})
	}
}

// TestHedgesAreFew: of many slow reads about one in 20 gets a second try, and none does while second tries hold too
// much memory, or where nothing is known of reads of that kind.
func TestHedgesAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := knowing()
		const reads = 1000
		for range reads {
			play(t, h, step{130 * time.Millisecond, nil, 3}, step{130 * time.Millisecond, nil, 3})
			for range 8 { // the others are as fast as ever
				h.took(hedgeKind{what: ofIndex}, 100*time.Millisecond, false)
			}
		}
		n := testutil.ToFloat64(h.metrics.hedges)
		if most := reads*hedgePart + hedgeBurst; n < reads*hedgePart || n > most+0.5 {
			t.Errorf("%v second tries of %d reads, at most %v", n, reads, most)
		}
		h = knowing()
		h.bytes = hedgeBytes - 2
		if p := play(t, h, step{time.Second, nil, 3}, step{}); p.calls != 1 || p.took != time.Second {
			t.Errorf("%+v", p)
		}
		h = newHedger(newMetrics(nil, 1))
		if p := play(t, h, step{time.Hour, nil, 3}, step{}); p.calls != 1 {
			t.Errorf("%+v", p)
		}
	})
}
