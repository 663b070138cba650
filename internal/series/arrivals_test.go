package series

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const minute = int64(time.Minute / time.Millisecond)

func TestArrivals(t *testing.T) {
	at := func(h, m int64) int64 { return h*hour + m*minute }
	a := Arrivals{Window: 3 * time.Hour, Since: at(5, 30)}
	f := func(name string, maxt, since int64, want bool) {
		t.Helper()
		if got := a.MayHaveChanged(maxt-10*minute, maxt, since); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
	f("what was new", at(6, 0), at(6, 5), true)
	f("what was not", at(5, 55), at(6, 5), false)
	f("an answer from before the start", at(4, 0), at(5, 20), true)
	f("the same, older than the window", at(2, 19), at(5, 20), false)
	a.Add(at(6, 10), at(6, 0))
	f("a sample that was not delayed", at(5, 55), at(6, 5), false)
	a.Add(at(6, 10), at(4, 0))
	f("a delayed one", at(4, 0), at(6, 5), true)
	f("a range before it", at(4, 0)-1, at(6, 5), false)
	f("an answer of the same hour, after it", at(4, 0), at(6, 30), false)
	f("an answer of the next hour", at(4, 0), at(7, 0), false)
	a.Add(at(6, 50), at(5, 0))
	a.Add(at(8, 0), at(7, 0))
	want := []Delay{{Hour: at(6, 0), Lowest: at(4, 0), Latest: at(6, 50) + 1000},
		{Hour: at(8, 0), Lowest: at(7, 0), Latest: at(8, 0) + 1000}}
	if !slices.Equal(a.Delays, want) {
		t.Errorf("delays %v", a.Delays)
	}
	a = Arrivals{Window: 3 * time.Hour, Since: at(5, 30)}
	a.Note(at(30, 5), at(2, 0), at(4, 0))
	f("samples that went away", at(4, 5), at(30, 0), true)
	f("later ones than those", at(4, 11), at(30, 0), false)
	f("older ones", at(2, 0)-1, at(30, 0), false)
	a.Note(at(30, 7), at(1, 0), at(2, 0))
	f("more of them in one hour", at(2, 0)-1, at(30, 0), true)
	f("later ones than all of those", at(4, 11), at(30, 0), false)
	a.Note(at(30, 9), at(3, 0), 0)
	f("and some of any later time", at(29, 11), at(30, 0), true)
	f("after all of them", at(4, 0), at(30, 10), false)
	a.Delays[0].Latest = 0 // as an earlier version says it
	f("at some time in the hour", at(4, 0), at(30, 10), true)
	if HourOf(-1) != -hour || HourOf(-hour) != -hour || HourOf(hour-1) != 0 {
		t.Error("hours before 1970")
	}
	a = Arrivals{}
	for h := range int64(2 * MaxDelays) {
		a.Add(at(10+h, 0), at(h, 0))
	}
	if len(a.Delays) != MaxDelays || a.Since != a.Delays[0].Hour {
		t.Errorf("%d hours, known since %d, the first is %d", len(a.Delays), a.Since, a.Delays[0].Hour)
	}
}

func TestUniteArrivals(t *testing.T) {
	f := func(name string, silent, copies int, want int64, since ...int64) {
		t.Helper()
		var said []Arrivals
		for _, s := range since {
			said = append(said, Arrivals{Since: s, Complete: s})
		}
		if got := UniteArrivals(said, silent, copies); got.Since != want {
			t.Errorf("%s: since %d, want %d", name, got.Since, want)
		}
	}
	f("nobody", 0, 2, math.MaxInt64)
	f("one copy", 0, 1, 30, 10, 20, 30)
	f("a quorum of three", 0, 2, 20, 10, 20, 30)
	f("one is silent", 1, 2, 20, 10, 20)
	f("two are silent", 2, 2, math.MaxInt64, 10)
	f("replication factor 5", 1, 3, 30, 10, 20, 30, 40)
	f("a ring smaller than a quorum", 0, 3, math.MinInt64, 10, 20)
	f("no copies", 0, 0, math.MaxInt64, 10)
}

// TestArrivalsNeverSilent plays random rings whose members restart, leave, and do not respond, and looks for an answer
// that is said to hold and lacks a sample that was acknowledged.
func TestArrivalsNeverSilent(t *testing.T) {
	held, changed := 0, 0
	for seed := range uint64(5000) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		n := 1 + rnd.IntN(5)
		rf := 1 + rnd.IntN(n)
		quorum := rf/2 + 1
		window := time.Duration(1+rnd.IntN(5)) * time.Hour
		ring := make([]Arrivals, n)
		left := 0
		asked := 10*hour + rnd.Int64N(5*hour) // when the answer was made
		maxt := asked - rnd.Int64N(6*hour)
		lacks := false
		now := asked - 3*hour
		for range 10 + rnd.IntN(30) {
			now += 1 + rnd.Int64N(20*minute)
			switch k := rnd.IntN(20); {
			case k == 0:
				ring[rnd.IntN(len(ring))] = Arrivals{Since: now}
			case k == 1 && len(ring) > rf:
				if now >= asked {
					left++
				}
				ring = slices.Delete(ring, 0, 1)
			case k == 2:
				ring = append(ring, Arrivals{Since: now})
			default:
				sample := now - rnd.Int64N(window.Milliseconds()+1)
				replicas := rnd.Perm(len(ring))
				for _, i := range replicas[:min(len(ring), quorum+rnd.IntN(rf-quorum+1))] {
					ring[i].Add(now, sample)
				}
				lacks = lacks || now >= asked && sample <= maxt
			}
		}
		var said []Arrivals
		silent := left
		for _, a := range ring {
			if a.Window, a.Complete = window, now-window.Milliseconds(); rnd.IntN(4) == 0 {
				silent++
				continue
			}
			said = append(said, a)
		}
		switch all := UniteArrivals(said, silent, quorum); {
		case all.MayHaveChanged(maxt-5*hour, maxt, asked):
			changed++
		case lacks:
			t.Fatalf("seed %d: the answer lacks a sample, and is said to hold", seed)
		default:
			held++
		}
	}
	t.Logf("%d answers hold, %d may not", held, changed)
	if held < 500 || changed < 500 {
		t.Error("too few of some kind to tell anything")
	}
}
