package httpx

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// inLine has n ask for a turn of l, one after the other, while somebody has it; order is of those that got one.
func inLine(t *testing.T, l *turns, sources ...passwordSource) (order func() []passwordSource, refused *atomic.Int64) {
	t.Helper()
	var mu sync.Mutex
	var got []passwordSource
	refused = new(atomic.Int64)
	for _, from := range sources {
		go func() {
			if err := l.enter(t.Context(), from); err != nil {
				if errs.KindOf(err) != errs.Limited || errs.RetryAfter(err) == 0 {
					t.Error(err)
				}
				refused.Add(1)
				return
			}
			mu.Lock()
			got = append(got, from)
			mu.Unlock()
			l.leave()
		}()
		synctest.Wait()
	}
	return func() []passwordSource {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return got
	}, refused
}

// A source that sends many passwords delays another's by one of its own, and waits for no more than a few.
func TestSourcesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l turns
		if err := l.enter(t.Context(), passwordSource{}); err != nil {
			t.Fatal(err)
		}
		greedy, calm := passwordSource{address: "1"}, passwordSource{address: "2"}
		var all []passwordSource
		for range 200 {
			all = append(all, greedy)
		}
		order, refused := inLine(t, &l, append(all, calm)...)
		l.leave()
		if got := order(); fmt.Sprint(got) != fmt.Sprint([]passwordSource{greedy, calm, greedy, greedy, greedy}) {
			t.Errorf("served: %v", got)
		}
		if refused.Load() != 200-maxWaitingEach {
			t.Errorf("%d refused", refused.Load())
		}
		if l.taken || l.waiting != 0 || len(l.queues) != 0 || len(l.order) != 0 {
			t.Errorf("left over: %+v", &l)
		}
	})
}

// What waits is bounded however many sources there are, and one that gives up leaves its place.
func TestLineIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l turns
		if err := l.enter(t.Context(), passwordSource{}); err != nil {
			t.Fatal(err)
		}
		var all []passwordSource
		for i := range 200 {
			all = append(all, passwordSource{address: fmt.Sprint(i)})
		}
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { gone <- l.enter(ctx, passwordSource{address: "impatient"}) }()
		synctest.Wait()
		cancel()
		if err := <-gone; err == nil {
			t.Error("a turn for somebody who is gone")
		}
		order, refused := inLine(t, &l, all...)
		l.leave()
		if n := len(order()); n != maxWaiting || refused.Load() != 200-maxWaiting {
			t.Errorf("%d served, %d refused", n, refused.Load())
		}
		if l.taken || l.waiting != 0 || len(l.queues) != 0 || len(l.order) != 0 {
			t.Errorf("left over: %+v", &l)
		}
	})
}

// Wrong passwords, however many, take nothing from the right ones: neither what is remembered of them, nor, from other
// addresses, the way to the first comparison.
func TestWrongPasswordsDoNotStarveRightOnes(t *testing.T) {
	v := newVerifier()
	hash := bcryptOf(t, "right")
	verify := func(address, password string) (bool, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return v.verify(ctx, address, "alice", hash, true, password)
	}
	if ok, err := verify("good", "right"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for i := range 3 * maxWrong {
		v.remember(passwordSource{address: fmt.Sprint(i)}, "alice", v.digest("alice", hash, fmt.Sprint("wrong", i)), false,
			true)
	}
	// All lines are taken for ever: what is remembered needs none of them.
	for _, l := range []*turns{&v.normal, &v.suspect} {
		if err := l.enter(t.Context(), passwordSource{}); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := verify("bad", "right"); !ok || err != nil {
		t.Errorf("the right password is forgotten: %v %v", ok, err)
	}
	if len(v.wrong) > maxWrong || len(v.failing) > maxWrong {
		t.Errorf("%d wrong passwords of %d sources are remembered", len(v.wrong), len(v.failing))
	}
	v.normal.leave()
	// An address that failed waits in another queue than one that did not.
	delete(v.right, "alice")
	v.remember(passwordSource{"bad", "alice"}, "alice", digest{}, false, true)
	if ok, err := verify("good", "right"); !ok || err != nil {
		t.Errorf("behind wrong passwords: %v %v", ok, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.verify(ctx, "bad", "alice", hash, true, "another"); err == nil {
		t.Error("a suspect address does not wait for the others")
	}
	v.keepOnly(nil)
	if len(v.right) != 0 {
		t.Error("the password of a user that is no more is remembered")
	}
}

func TestSuspicionPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, from := newVerifier(), passwordSource{"a", "alice"}
		v.remember(from, "alice", digest{}, false, true)
		if !v.isSuspect(from) || v.isSuspect(passwordSource{"b", "alice"}) || v.isSuspect(passwordSource{"a", "bob"}) {
			t.Error("suspicion falls on others")
		}
		time.Sleep(suspicion)
		if v.isSuspect(from) {
			t.Error("suspicion does not pass")
		}
		v.remember(from, "alice", digest{1}, false, true)
		v.remember(from, "alice", digest{2}, true, true)
		if v.isSuspect(from) {
			t.Error("suspicion outlives the right password")
		}
	})
}

func TestClientNetwork(t *testing.T) {
	f := func(remote, want string) {
		t.Helper()
		if got := ClientNetwork(remote); got != want {
			t.Errorf("%s: %q, want %q", remote, got, want)
		}
	}
	f("192.0.2.1:99", "192.0.2.1")
	f("[::ffff:192.0.2.1]:99", "192.0.2.1")
	f("[2001:db8:1:2:3:4:5:6]:99", "2001:db8:1:2::/64")
	f("[2001:db8:1:2:ffff::1]:1", "2001:db8:1:2::/64")
	f("[fe80::1%eth0]:1", "fe80::/64")
	f("pipe", "")
}
