package election

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

const failover = 30 * time.Second

var start = time.UnixMilli(1_000_000)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

func TestElect(t *testing.T) {
	var k Known
	f := func(second int, replica string, accept bool, elected string) {
		t.Helper()
		before := k
		next, ok := Elect(at(second), k, replica, failover)
		if ok != accept || next.Replica != elected {
			t.Fatalf("%ds, %s: accept %v, elected %q; want %v, %q", second, replica, ok, next.Replica, accept, elected)
		}
		if got := Merge(before.State, next.State); got != next.State {
			t.Fatalf("%ds, %s: %+v does not win over %+v", second, replica, next.State, before.State)
		}
		k = next
	}
	f(0, "a", true, "a")
	f(1, "b", false, "a")
	f(20, "a", true, "a")
	f(50, "b", false, "a") // 30s after the last of a: not longer
	f(51, "b", true, "b")
	f(52, "a", false, "b")
	f(53, "c", false, "b")
	f(81, "c", false, "b")
	f(82, "a", true, "a") // whoever comes first
	f(82, "c", false, "a")
	f(200, "a", true, "a") // a pause of all changes nothing for the elected
	f(60, "a", true, "a")  // a clock that goes back neither
	f(60, "b", false, "a")
}

func TestElectAgainstALateClock(t *testing.T) {
	k := Learn(at(0), Known{}, State{Replica: "a", Elected: 9_000_000, Received: 9_500_000})
	next, ok := Elect(at(31), k, "b", failover)
	if !ok || next.Elected <= 9_500_000 || next.Received < next.Elected {
		t.Fatalf("an election by a clock that is behind: %+v", next)
	}
	if Merge(k.State, next.State) != next.State {
		t.Fatal("it does not win")
	}
}

func TestLearn(t *testing.T) {
	k, _ := Elect(at(0), Known{}, "a", failover)
	same := k.State
	if k = Learn(at(20), k, same); !k.Heard.Equal(at(0)) {
		t.Fatal("what is known already counts as news")
	}
	newer := same
	newer.Received += 5
	if k = Learn(at(20), k, newer); !k.Heard.Equal(at(20)) || k.Received != newer.Received {
		t.Fatalf("%+v", k)
	}
	if _, ok := Elect(at(45), k, "b", failover); ok {
		t.Fatal("failover though another process heard of the elected 25s ago")
	}
	if k = Learn(at(30), k, State{Replica: "b", Elected: same.Elected - 1, Received: newer.Received + 100}); k.Replica != "a" || !k.Heard.Equal(at(20)) {
		t.Fatalf("an older election won: %+v", k)
	}
	if k = Learn(at(30), k, State{Replica: "b", Elected: same.Elected + 1, Received: same.Elected + 1}); k.Replica != "b" || !k.Heard.Equal(at(30)) {
		t.Fatalf("a newer election lost: %+v", k)
	}
}

func TestGiveUp(t *testing.T) {
	k, _ := Elect(at(0), Known{}, "a", failover)
	if _, ok := GiveUp(at(1800), k, 30*time.Minute); ok {
		t.Fatal("given up in time")
	}
	k, ok := GiveUp(at(1801), k, 30*time.Minute)
	if !ok || !k.Gone() {
		t.Fatalf("%+v", k)
	}
	if _, again := GiveUp(at(4000), k, 30*time.Minute); again {
		t.Fatal("given up twice")
	}
	alive := k.State
	alive.Received, alive.Deleted = k.Deleted+1, 0
	if Merge(k.State, alive).Gone() {
		t.Fatal("given up by one process though another one received samples later")
	}
	back, accept := Elect(at(1802), k, "b", failover)
	if !accept || back.Gone() || Merge(back.State, k.State) != back.State {
		t.Fatalf("the cluster came back: %+v", back)
	}
}

// TestMergeAgrees merges random states in every order and grouping.
func TestMergeAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() State {
		if r.IntN(10) == 0 {
			return State{}
		}
		e := 1 + r.Int64N(3)
		return State{Replica: fmt.Sprint("r", r.IntN(3)), Elected: e, Received: e + r.Int64N(3), Deleted: r.Int64N(6)}
	}
	for range 20000 {
		a, b, c := random(), random(), random()
		switch {
		case Merge(a, a) != a:
			t.Fatalf("not idempotent: %+v", a)
		case Merge(a, b) != Merge(b, a):
			t.Fatalf("not commutative: %+v %+v", a, b)
		case Merge(Merge(a, b), c) != Merge(a, Merge(b, c)):
			t.Fatalf("not associative: %+v %+v %+v", a, b, c)
		case Merge(Merge(a, b), b) != Merge(a, b):
			t.Fatalf("absorbs twice differently: %+v %+v", a, b)
		}
	}
}
