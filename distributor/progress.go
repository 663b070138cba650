package distributor

import (
	"math"
	"slices"
	"time"
)

const (
	// progressWindow is the busy time over which progress is averaged, about. A member that stops answering is found to be
	// behind after about as long.
	progressWindow = time.Second
	// tooSlow is how many times slower than the others a member must be to have fallen behind. It is far above what a
	// garbage collection or a busy core does to one of several equal members. Members that take turns on two cores of a
	// shared machine sometimes differ by more than two. What is put off then comes out of order, which costs four times as
	// much.
	tooSlow = 3
	// maxCatchUp is how long a member may need for what it lacks before requests stop waiting for it. A quorum that takes
	// longer raises it.
	maxCatchUp = time.Second
)

// progress is how fast a member answers the shards of one tenant while it has something to answer.
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

// rate is in series per second. A busy time below a nanosecond counts as a nanosecond.
func (p progress) rate() float64 { return p.work / max(p.busy, 1e-9) }

// keepsUp reports whether a member makes progress as the others do, so that a request waits for its shard: it is not
// far slower than they are, and it will soon have what a quorum has already. own counts what the member is writing as
// answered. Otherwise a member would seem behind in every burst, because of shards that it has had no time to answer.
// lacks is how many series the member lacks of requests that were answered without it, and took is how long the quorum
// took.
//
// The others are represented by the slower of the two in the middle, so that one fast member does not make all others
// late.
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
