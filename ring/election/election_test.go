package election

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

const failover = 30 * time.Second

var start = time.UnixMilli(1_000_000)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// play runs a script of what comes of replicas: "20 a ok" is at 20s, stored; "x" is not stored; after "@" is the time
// of the newest sample in seconds, which is known in scripts that say it. The last word is what is wanted: keep, drop
// or wait, and after "/" who is elected then.
func play(t *testing.T, k Known, script ...string) Known {
	t.Helper()
	for _, line := range script {
		var second int
		var what, outcome, want string
		if n, err := fmt.Sscan(line, &second, &what, &outcome, &want); n != 4 {
			t.Fatalf("%q: %v", line, err)
		}
		replica, sample, _ := strings.Cut(what, "@")
		newest := int64(0)
		if sample != "" {
			n, err := strconv.Atoi(sample)
			if err != nil {
				t.Fatal(err)
			}
			newest = at(n).UnixMilli()
		}
		now, before := at(second), k
		var fate Fate
		k, fate = Judge(now, k, replica, newest, failover)
		if fate == Keep {
			if outcome == "ok" {
				k = Stored(now, k, replica, newest, failover)
			} else {
				k = Failed(k, replica)
			}
		}
		if got := [...]string{"keep", "drop", "wait"}[fate] + "/" + k.Replica; got != want {
			t.Fatalf("%q: got %s: %+v", line, got, k)
		}
		if got := Merge(before.State, k.State); got != k.State {
			t.Fatalf("%q: %+v does not win over %+v", line, k.State, before.State)
		}
	}
	return k
}

func TestSilence(t *testing.T) {
	play(t, Known{},
		"0 a ok keep/a",
		"1 b ok drop/a",
		"20 a ok keep/a",
		"50 b ok drop/a", // 30s after the last of a: not longer
		"51 b ok keep/b",
		"52 a ok drop/b",
		"53 c ok drop/b",
		"81 c ok drop/b",
		"82 a ok keep/a", // whoever comes first
		"82 c ok drop/a",
		"200 a ok keep/a", // a pause of all changes nothing for the elected
		"60 a ok keep/a",  // a clock that goes back neither
		"60 b ok drop/a")
}

// TestNothingStored: what keeps a replica elected is what is stored of it, and meanwhile others' samples are not
// dropped.
func TestNothingStored(t *testing.T) {
	play(t, Known{},
		"0 a ok keep/a",
		"1 b ok drop/a",
		"10 a x keep/a",
		"11 b ok wait/a", // to be sent again: they may be needed
		"20 a x keep/a",
		"30 b ok wait/a",
		"30 a x keep/a",
		"31 b ok keep/b", // in time, though a sends on
		"32 a ok drop/b")
	play(t, Known{}, // it recovers in time
		"0 a ok keep/a",
		"10 a x keep/a",
		"11 b ok wait/a",
		"29 a ok keep/a",
		"30 b ok drop/a")
	play(t, Known{}, // nothing of it was ever stored
		"0 a x keep/a",
		"1 b x keep/a",
		"2 a x keep/a",
		"3 c ok keep/c",
		"4 a ok drop/c",
		"4 b ok drop/c")
	play(t, Known{}, // nothing of anybody is stored: nobody is elected anew, and whose are stored first is elected
		"0 a ok keep/a",
		"10 a x keep/a",
		"11 b x wait/a",
		"40 b x keep/a",
		"41 a x keep/a",
		"90 b x keep/a",
		"91 a x keep/a",
		"1000 a ok keep/a",
		"1001 b ok drop/a")
	play(t, Known{},
		"0 a ok keep/a",
		"10 a x keep/a",
		"40 b x keep/a",
		"41 a x keep/a",
		"1000 b ok keep/b",
		"1001 a ok drop/b",
		"1030 b x keep/b",
		"1030 a ok wait/b")
}

// TestFailingAgainAndAgain: a replica that fails again whenever something of it was stored keeps others waiting for no
// longer than the failover timeout.
func TestFailingAgainAndAgain(t *testing.T) {
	script := []string{"0 a ok keep/a", "0 a x keep/a"}
	for s := 1; s < 32; s++ {
		script = append(script, fmt.Sprintf("%d b ok wait/a", s), fmt.Sprintf("%d a ok keep/a", s),
			fmt.Sprintf("%d a x keep/a", s))
	}
	play(t, Known{}, append(script, "32 b ok keep/b", "33 a ok drop/b", "34 b ok keep/b")...)
	play(t, Known{}, // a moment in which it does not fail ends the wait
		"0 a ok keep/a",
		"1 a x keep/a",
		"2 b ok wait/a",
		"20 a ok keep/a",
		"21 b ok drop/a",
		"22 a x keep/a",
		"23 b ok wait/a",
		"40 a ok keep/a",
		"41 a x keep/a",
		"42 b ok wait/a",
		"53 b ok wait/a",
		"54 b x keep/a", // it may, and elected is only who is stored
		"55 b ok keep/b",
		"56 a ok drop/b")
}

// TestSamplesStayBehind: a replica whose samples stay behind those of another is replaced.
func TestSamplesStayBehind(t *testing.T) {
	play(t, Known{}, // it sends the same again and again
		"0 a@0 ok keep/a",
		"30 a@0 ok keep/a",
		"60 b@60 ok drop/a",
		"61 a@0 ok keep/a",
		"61 b@61 ok drop/a",
		"80 a@0 ok keep/a",
		"91 b@91 ok drop/a", // 30s behind by more than a minute: not longer
		"92 a@0 ok keep/a",
		"92 b@92 ok keep/b",
		"93 a@0 ok drop/b")
	play(t, Known{}, // always ten minutes late
		"600 a@0 ok keep/a",
		"600 b@600 ok drop/a",
		"615 a@15 ok keep/a",
		"615 b@615 ok drop/a",
		"630 a@30 ok keep/a",
		"631 b@631 ok keep/b")
	play(t, Known{}, // late, and catching up
		"600 a@0 ok keep/a",
		"600 b@600 ok drop/a",
		"631 a@100 ok keep/a",
		"631 b@631 ok drop/a",
		"662 a@200 ok keep/a",
		"662 b@662 ok drop/a",
		"670 a@205 ok keep/a",
		"693 b@693 ok keep/b") // no more
	play(t, Known{}, // as late as each other, or the others later
		"600 a@0 ok keep/a",
		"600 b@10 ok drop/a",
		"640 a@5 ok keep/a",
		"640 b@20 ok drop/a",
		"700 a@10 ok keep/a",
		"700 b@30 ok drop/a")
	play(t, Known{}, // another one's clock is a day ahead
		"600 a@600 ok keep/a",
		"600 b@87000 ok drop/a",
		"650 a@650 ok keep/a",
		"650 b@87050 ok drop/a",
		"700 a@700 ok keep/a",
		"700 b@87100 ok drop/a")
	play(t, Known{}, // b is current, c is as late as the elected
		"600 a@0 ok keep/a",
		"600 b@600 ok drop/a",
		"610 c@10 ok drop/a",
		"620 a@20 ok keep/a",
		"640 a@40 ok keep/a",
		"640 c@40 ok drop/a",
		"641 b@641 ok keep/b")
	play(t, Known{}, "0 a ok keep/a", "100 a ok keep/a", "101 b@101 ok drop/a", "120 a ok keep/a",
		"140 b@140 ok drop/a") // not known
	k, _ := Judge(at(0), Known{}, "a", 0, failover)
	k = Stored(at(0), k, "a", at(0).UnixMilli(), failover)
	for _, newest := range []int64{math.MinInt64, -1, math.MaxInt64} {
		next, fate := Judge(at(1), k, "b", newest, failover)
		if fate != Drop || next.State != k.State {
			t.Fatalf("a sample of %d: %v, %+v", newest, fate, next)
		}
	}
}

// TestFlappingIsBounded: whatever two replicas send, and whatever is stored of it, the elected one changes once in a
// failover timeout at most.
func TestFlappingIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		k, last := Known{}, time.Time{}
		for second := range 600 {
			now, replica := at(second), fmt.Sprint("r", r.IntN(3))
			newest, old := at(r.IntN(700)).UnixMilli(), k
			var fate Fate
			k, fate = Judge(now, k, replica, newest, failover)
			if fate == Keep && r.IntN(2) == 0 {
				k = Stored(now, k, replica, newest, failover)
			} else if fate == Keep {
				k = Failed(k, replica)
			}
			if k.Replica == old.Replica {
				continue
			}
			if proven := old.Received > old.Elected; proven && now.Sub(last) <= failover {
				t.Fatalf("%s replaced %s after %s", k.Replica, old.Replica, now.Sub(last))
			}
			last = now
		}
	}
}

func TestElectAgainstALateClock(t *testing.T) {
	k := Learn(at(0), Known{}, State{Replica: "a", Elected: 9_000_000, Received: 9_500_000})
	next, fate := Judge(at(31), k, "b", 0, failover)
	next = Stored(at(31), next, "b", 0, failover)
	if fate != Keep || next.Replica != "b" || next.Elected <= 9_500_000 || next.Received <= next.Elected {
		t.Fatalf("an election by a clock that is behind: %+v", next)
	}
	if Merge(k.State, next.State) != next.State {
		t.Fatal("it does not win")
	}
	again := Stored(at(32), next, "b", 0, failover)
	if again.Received <= next.Received {
		t.Fatalf("others do not learn that it is stored: %+v", again)
	}
}

func TestLearn(t *testing.T) {
	k, _ := Judge(at(0), Known{}, "a", 0, failover)
	same := k.State
	if k = Learn(at(20), k, same); !k.Heard.Equal(at(0)) {
		t.Fatal("what is known already counts as news")
	}
	newer := same
	newer.Received += 5
	k.Failing = true
	if k = Learn(at(20), k, newer); !k.Heard.Equal(at(20)) || k.Received != newer.Received || k.Failing {
		t.Fatalf("%+v", k)
	}
	if _, fate := Judge(at(45), k, "b", 0, failover); fate != Drop {
		t.Fatal("failover though another process stored samples of the elected 25s ago")
	}
	if k = Learn(at(30), k,
		State{Replica: "b", Elected: same.Elected - 1, Received: newer.Received + 100}); k.Replica != "a" ||
		!k.Heard.Equal(at(20)) {
		t.Fatalf("an older election won: %+v", k)
	}
	k.Failing = true
	if k = Learn(at(30), k,
		State{Replica: "b", Elected: same.Elected + 1, Received: same.Elected + 1}); k.Replica != "b" || !k.Heard.Equal(at(30)) ||
		k.Failing {
		t.Fatalf("a newer election lost: %+v", k)
	}
}

func TestGiveUp(t *testing.T) {
	k, _ := Judge(at(0), Known{}, "a", 0, failover)
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
	back, fate := Judge(at(1802), k, "b", 0, failover)
	if fate != Keep || back.Gone() || Merge(back.State, k.State) != back.State {
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
		return State{Replica: fmt.Sprint("r", r.IntN(3)), Elected: e, Received: e + r.Int64N(3), Deleted: r.Int64N(6),
			Sample: r.Int64N(3)}
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
