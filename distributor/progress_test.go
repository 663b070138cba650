package distributor

import (
	"testing"
	"time"
)

func TestKeepsUp(t *testing.T) {
	f := func(own progress, lacks int, took time.Duration, want bool, others ...progress) {
		t.Helper()
		if got := keepsUp(own, lacks, others, took); got != want {
			t.Fatalf("%+v beside %+v, %d series behind, quorum after %s: %v, want %v", own, others, lacks, took, got, want)
		}
	}
	at := func(rate float64) progress { return progress{work: rate, busy: 1} }
	const ms = time.Millisecond
	f(at(100), 0, ms, true, at(100), at(100))
	f(at(34), 0, ms, true, at(100), at(100))
	f(at(33), 0, ms, false, at(100), at(100))
	f(at(30), 0, ms, true, at(100), at(70)) // one other is as slow: a quorum has no faster members
	f(at(30), 0, ms, false, at(100), at(91), at(20), at(95))
	f(at(0), 0, ms, false, at(100), at(100))
	f(at(40), 0, ms, true)                     // nobody to compare with
	f(at(100), 99, ms, true, at(100))          // less than a second behind
	f(at(100), 101, ms, false, at(100))        // that would take too long
	f(at(100), 301, 4*time.Second, true)       // unless the quorum takes as long
	f(progress{}, 0, 0, false, progress{5, 0}) // no time has passed, and the other has answered
	f(progress{5, 0}, 0, 0, true, progress{5, 0})
}

func TestProgressForgets(t *testing.T) {
	var p progress
	for range 100 {
		p.spend(10 * time.Millisecond)
		p.work += 10
	}
	if r := p.rate(); r < 900 || r > 1100 {
		t.Fatalf("rate %v of 10 series in 10 ms", r)
	}
	before := p.rate()
	p.spend(progressWindow)
	if r := p.rate(); r > before/tooSlow {
		t.Fatalf("rate %v after %s without an answer, %v before", r, progressWindow, before)
	}
	p.spend(-time.Hour)
	if p.rate() > before {
		t.Fatal("time that goes backwards counts")
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	now := time.Unix(1000, 0)
	for i, want := range []time.Duration{100, 200, 400, 500, 500} {
		b.fail(now, 100, 500, 0.5)
		if b.wait != want || b.until != now.Add(want) || !b.failing() {
			t.Fatalf("failure %d: %+v, want to wait %d", i, b, want)
		}
	}
	b.hurry(100, now, false)
	if b.until != now.Add(100) {
		t.Fatalf("somebody waits: next try %s after the last", b.until.Sub(now))
	}
	b.hurry(100, now.Add(7), true)
	if b.until != now.Add(7) {
		t.Fatal("a copy that is alone waits for a back-off")
	}
}
