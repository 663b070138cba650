package memory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

func TestDecide(t *testing.T) {
	f := func(n, own, others, used, total int64, want Verdict) {
		t.Helper()
		if got := PerTenant.Decide(n, own, others, used, total); got != want {
			t.Errorf("%d more to %d and %d of %d used of %d: %v, want %v", n, own, others, used, total, got, want)
		}
	}
	f(80, 0, 0, 0, 90, Granted) // one alone has 8/9
	f(81, 0, 0, 0, 90, Never)
	f(41, 40, 0, 40, 90, Never)
	f(10, 0, 0, 85, 90, Full)
	f(5, 0, 80, 80, 90, Unfair) // others of its tenant have all that one tenant may
	f(5, 0, 0, 80, 90, Granted) // and this is for the next one
	f(0, 0, 0, 90, 90, Granted)
	f(40, 41, 0, 41, 90, Never)
	f(1, 0, 0, 90, 90, Full)
	f(8, 0, 72, 72, 90, Granted)
	f(9, 0, 72, 72, 90, Unfair)
	f(8, 36, 36, 72, 90, Granted)
	f(8, 0, 0, 80, 90, Granted) // one that has nothing yet may have nearly all of what is left
	f(9, 0, 0, 80, 90, Unfair)
	f(1, 0, 40, 85, 90, Unfair)
	f(1, 0, 30, 85, 90, Granted)
	entry := func(others, used, total int64, want Verdict) {
		t.Helper()
		if got := PerTenant.DecideEntry(others, used, total); got != want {
			t.Errorf("one more than %d, with %d of %d taken: %v, want %v", others, used, total, got, want)
		}
	}
	entry(0, 0, 1, Granted)
	entry(1, 1, 1, Full)
	entry(0, 8, 9, Granted)
	entry(8, 8, 9, Unfair)
	entry(7, 7, 9, Granted)
	if got := FairRatio(32).Decide(3000, 0, 0, 0, 3300); got != Granted {
		t.Errorf("a ratio of 32 leaves less than a thirty-third: %v", got)
	}
}

// TestTenantsLeaveSome: whatever a tenant does, the next one finds an eighth of what the others hold each.
func TestTenantsLeaveSome(t *testing.T) {
	o := NewBudget(nil, "--max", 9000).Owner("test", 0)
	for i, want := range []int64{8000, 888, 99} { // each 8/9 of what is left
		id := tenant.ID(fmt.Sprintf("t%d", i))
		var held int64
		for { // as many requests as it can get
			l := o.Open(id)
			if err := l.Grow(1); err != nil {
				if errs.KindOf(err) != errs.Exhausted || errs.RetryAfter(err) <= 0 || !strings.Contains(err.Error(), "--max") ||
					!strings.Contains(err.Error(), string(id)) {
					t.Fatalf("%v: want a retry, the limit and the tenant", err)
				}
				l.Close()
				break
			}
			held++
		}
		if held != want {
			t.Errorf("tenant %d holds %d bytes, want %d", i, held, want)
		}
	}
}

func TestLease(t *testing.T) {
	b := NewBudget(nil, "--max", 900)
	o := b.Owner("test", 0)
	l := o.Open("a")
	f := func(err error, kind errs.Kind, held int64) {
		t.Helper()
		if errs.KindOf(err) != kind || l.Bytes() != held || b.Free() != 900-held {
			t.Fatalf("%v, %d held, %d free; want %v and %d held", err, l.Bytes(), b.Free(), kind, held)
		}
	}
	f(l.Take(t.Context(), 500), errs.OK, 500)
	f(l.Grow(100), errs.OK, 600)
	f(l.Take(t.Context(), 300), errs.Limited, 600)
	l.Settle(700) // no more than it has
	f(nil, errs.OK, 600)
	l.Give(350)
	f(nil, errs.OK, 250)
	l.Settle(200)
	f(nil, errs.OK, 200)
	if got := fmt.Sprint(b.Holders()); got != "[{test a 1 200}]" {
		t.Error(got)
	}
	l.Close()
	l.Close()
	l.Give(1)
	f(l.Grow(1), errs.Unavailable, 0)
	f(l.Take(t.Context(), 1), errs.Unavailable, 0)
	if len(b.Holders()) != 0 || len(b.tenants) != 0 || len(b.leases) != 0 {
		t.Error("something is left", b.Holders(), b.tenants)
	}
}

// TestPartsOfRequest: what one request may have is for all its leases, and each is given back by itself.
func TestPartsOfRequest(t *testing.T) {
	b := NewBudget(nil, "--max", 900)
	one, two := b.Owner("one", 0), b.Owner("two", 0)
	whole := one.Open("a")
	part := two.OpenFor(whole)
	f := func(err error, kind errs.Kind, free int64) {
		t.Helper()
		if errs.KindOf(err) != kind || b.Free() != free {
			t.Fatalf("%v and %d free, want %v and %d", err, b.Free(), kind, free)
		}
	}
	f(whole.Grow(500), errs.OK, 400)
	f(part.Grow(300), errs.OK, 100)
	f(part.Grow(1), errs.Limited, 100) // not "try again": it would not help
	f(two.Open("a").Grow(1), errs.Exhausted, 100)
	f(nil, errs.OK, 100)
	whole.Settle(100)
	f(two.OpenFor(part).Grow(401), errs.Limited, 500)
	part.Close()
	f(whole.Grow(700), errs.OK, 100)
	whole.Close()
	f(nil, errs.OK, 900)
}

func TestTakeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(nil, "--max", 900)
		o := b.Owner("test", time.Second)
		first, second := o.Open("a"), o.Open("b")
		if err := first.Take(t.Context(), 800); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := second.Take(t.Context(), 200); errs.KindOf(err) != errs.Exhausted || time.Since(begin) != time.Second {
			t.Fatal(err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := second.Take(ctx, 200); errs.KindOf(err) != errs.Unavailable {
			t.Fatal(err)
		}
		if len(b.waiting) != 0 {
			t.Fatal("somebody who gave up still waits")
		}
		go func() {
			time.Sleep(time.Millisecond)
			first.Close()
		}()
		if err := second.Take(t.Context(), 200); err != nil || second.Bytes() != 200 {
			t.Fatal(err)
		}
		second.Close()
		for range maxWaiting {
			b.waiting = append(b.waiting, &waiter{lease: o.Open("c"), bytes: 1000})
		}
		first = o.Open("a")
		first.Grow(800)
		begin = time.Now()
		if err := o.Open("b").Take(t.Context(), 200); errs.KindOf(err) != errs.Exhausted || time.Since(begin) != 0 {
			t.Fatal("one more than may wait:", err, time.Since(begin))
		}
	})
}

// TestManyLeases: whatever happens at once, no more is held than there is, and at the end nothing.
func TestManyLeases(t *testing.T) {
	b := NewBudget(nil, "--max", 1000)
	o := b.Owner("test", time.Millisecond)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			for range 300 {
				l := o.Open(tenant.ID(fmt.Sprint(i % 4)))
				for range rnd.IntN(4) {
					switch rnd.IntN(3) {
					case 0:
						_ = l.Take(t.Context(), rnd.Int64N(400))
					case 1:
						_ = l.Grow(rnd.Int64N(400))
					default:
						l.Settle(rnd.Int64N(400))
					}
					if free := b.Free(); free < 0 || free > 1000 {
						t.Errorf("%d bytes are free", free)
					}
				}
				l.Close()
			}
		})
	}
	wg.Wait()
	if b.Free() != 1000 || len(b.waiting) != 0 || len(b.tenants) != 0 {
		t.Fatal("not all was given back", b.Holders())
	}
}

func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewGate("reads", "--reads", 10, 9)
		var leave []func()
		for i := range 9 { // one tenant's many
			l, err := p.Enter(t.Context(), "a")
			if err != nil {
				t.Fatal(i, err)
			}
			leave = append(leave, l)
		}
		var got []string
		var mu sync.Mutex // guards got, leave among those who enter
		enter := func(id tenant.ID) {
			go func() {
				l, err := p.Enter(t.Context(), id)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					got = append(got, string(id)+" "+errs.KindOf(err).String())
					return
				}
				got = append(got, string(id))
				leave = append(leave, l)
			}()
			synctest.Wait()
		}
		for range 9 {
			enter("a") // 8 wait, and one does not find a place to wait
		}
		enter("b") // the last place
		enter("c") // waits
		if s := strings.Join(got, " "); s != "a exhausted b" {
			t.Fatal(s)
		}
		first := leave[0]
		first()
		first() // again: nothing
		synctest.Wait()
		if s := strings.Join(got, " "); s != "a exhausted b c" {
			t.Fatal(s, "want c, who has no place yet, before a, who waits for longer")
		}
		for len(leave) > 0 {
			first, leave = leave[0], leave[1:]
			first()
			synctest.Wait()
		}
		if s := strings.Join(got, " "); s != "a exhausted b c"+strings.Repeat(" a", 8) || p.Used() != 0 ||
			len(p.held)+len(p.queued)+len(p.waiting) != 0 {
			t.Fatal(s, p.Used(), p.held, p.queued)
		}
		l, err := p.Enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		l()
		ctx, cancel := context.WithCancel(t.Context())
		q := NewGate("reads", "--reads", 1, 5)
		l, _ = q.Enter(ctx, "a")
		cancel()
		if _, err := q.Enter(ctx, "b"); errs.KindOf(err) != errs.Unavailable {
			t.Fatal(err)
		}
		l()
		if q.Used() != 0 || len(q.waiting) != 0 || len(q.queued) != 0 {
			t.Fatal("somebody who gave up still waits")
		}
	})
}

func BenchmarkGrow(b *testing.B) {
	l := NewBudget(nil, "--max", 1<<40).Owner("test", 0).Open("a")
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Grow(1); err != nil {
			b.Fatal(err)
		}
	}
}
