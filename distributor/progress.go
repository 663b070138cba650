package distributor

import (
	"math"
	"slices"
	"time"
)

const (
	// progressWindow is over about how much busy time a pace is taken. A member that stops answering is found behind after about
	// as long.
	progressWindow = time.Second
	// tooSlow is how many times slower than the others a member must be to have fallen behind. It is far above what a
	// garbage collection or a busy core does to one of several equal members. Members that take turns on two cores of a shared
	// machine differ by more than two now and then, and what is put off then comes out of order, which costs four times as much.
	tooSlow = 3
	// maxCatchUp is how long what a member lacks may take it before requests stop waiting for its copies, unless the quorum
	// takes as long.
	maxCatchUp = time.Second
)

// progress is how fast a member answers what it is sent for one tenant while it has something to answer.
type progress struct {
	work float64 // series answered, older ones counting less
	busy float64 // seconds in which an answer was due, weighted alike
}

// spend adds time during which an answer was due.
func (p *progress) spend(d time.Duration) {
	if d <= 0 {
		return
	}
	window := progressWindow.Seconds()
	left := math.Exp(-d.Seconds() / window)
	p.work *= left
	p.busy = p.busy*left + window*(1-left)
}

// rate is in series per second. The least time that counts is a nanosecond.
func (p progress) rate() float64 { return p.work / max(p.busy, 1e-9) }

// keepsUp reports whether a member makes progress as the others do, so that a request waits for its copy: it is not far slower
// than they are, and it will soon have what a quorum has already. own counts what the member is writing as answered: judged by what
// it has not had time to answer, one member would be behind in every burst. lacks is how many series the
// member lacks of requests that were answered without it; took is how long the quorum took.
//
// The others are represented by the slower of the two in the middle, so that one fast member does not make all others late.
func keepsUp(own progress, lacks int, others []progress, took time.Duration) bool {
	rate := own.rate()
	if len(others) > 0 {
		rates := make([]float64, len(others))
		for i, o := range others {
			rates[i] = o.rate()
		}
		slices.Sort(rates)
		if tooSlow*rate <= rates[(len(rates)-1)/2] {
			return false
		}
	}
	return float64(lacks) <= rate*max(maxCatchUp, took).Seconds()
}

// backoff spaces the tries of what fails. The zero value is of what does not.
type backoff struct {
	wait   time.Duration // doubles with each failure; 0 = the last try did not fail
	failed time.Time     // when the last try did
	until  time.Time     // when the next one is due
}

func (b *backoff) failing() bool { return b.wait > 0 }

// fail notes a failed try. jitter is from 0 to 1, and spreads the tries of many over half to one and a half of the wait.
func (b *backoff) fail(now time.Time, least, most time.Duration, jitter float64) {
	b.wait = min(max(2*b.wait, least), most)
	b.failed, b.until = now, now.Add(time.Duration(float64(b.wait)*(0.5+jitter)))
}

// hurry brings the next try forward because somebody waits for its answer. Tries stay at least a time of least apart, unless
// nothing has been tried before: then what waits is alone, and as good as new.
func (b *backoff) hurry(least time.Duration, now time.Time, alone bool) {
	soon := b.failed.Add(least)
	if alone {
		soon = now
	}
	if soon.Before(b.until) {
		b.until = soon
	}
}
