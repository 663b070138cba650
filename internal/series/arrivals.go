package series

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// DelayedAfter: a sample that arrives that long after its timestamp, or later, is delayed. All versions must agree on
// it.
const DelayedAfter = 10 * time.Minute

// MaxDelays is how many clock hours Arrivals.Delays has at most: 14 days.
const MaxDelays = 14 * 24

// Arrivals says what a receiver knows of when samples of one tenant arrived: so it can be decided whether an answer
// from before still holds. Times are Unix ms by the receiver's clock.
type Arrivals struct {
	// Window is how old a sample may be when it arrives (W), at the moment.
	Window time.Duration
	// Complete is the time up to which the data are complete: a sample with this timestamp or an older one is not accepted
	// any more, unless the window grows; then it is delayed.
	Complete int64
	// Since is the time from which on Delays are known: what arrived before may have been delayed. MaxInt64 = nothing is
	// known.
	Since int64
	// Delays are the clock hours in which delayed samples arrived, in order, at most MaxDelays. Hours without any are left
	// out.
	Delays []Delay
}

// Delay is a clock hour in which delayed samples arrived.
type Delay struct {
	// Hour is when it began; Lowest is the lowest timestamp of the delayed samples that arrived in it.
	Hour, Lowest int64
}

// ArrivalSource is a Source that takes samples and knows when they arrived.
type ArrivalSource interface {
	// Arrivals returns what is known of tenant id, with the delays of the clock hour of since (Unix ms) and of later ones.
	Arrivals(ctx context.Context, id tenant.ID, since int64) (Arrivals, error)
}

const hour = int64(time.Hour / time.Millisecond)

// HourOf returns the beginning of the clock hour of t (Unix ms).
func HourOf(t int64) int64 { return t - ((t%hour)+hour)%hour }

// MayHaveChanged reports whether samples with timestamps up to maxt may have arrived at time since or later.
func (a Arrivals) MayHaveChanged(maxt, since int64) bool {
	// Newer samples need not have been delayed.
	if a.Since == math.MaxInt64 || maxt > since-DelayedAfter.Milliseconds() {
		return true
	}
	if since < a.Since && maxt >= since-a.Window.Milliseconds() {
		return true
	}
	return slices.ContainsFunc(a.Delays, func(d Delay) bool { return d.Hour+hour > since && d.Lowest <= maxt })
}

// Add records that a sample with timestamp t arrived at time now, if it was delayed. It reports whether that changed a.
// Where there would be more than MaxDelays hours, the oldest ones are not known any more.
func (a *Arrivals) Add(now, t int64) bool {
	if t > now-DelayedAfter.Milliseconds() {
		return false
	}
	byHour := func(d Delay, h int64) int { return cmp.Compare(d.Hour, h) }
	at, found := slices.BinarySearchFunc(a.Delays, HourOf(now), byHour)
	if found && a.Delays[at].Lowest <= t {
		return false
	}
	// Copied, since readers may hold the slice.
	delays := slices.Clone(a.Delays)
	if found {
		delays[at].Lowest = t
	} else {
		delays = slices.Insert(delays, at, Delay{HourOf(now), t})
	}
	a.Delays = delays
	a.trim()
	return true
}

// trim forgets the oldest hours beyond MaxDelays.
func (a *Arrivals) trim() {
	if more := len(a.Delays) - MaxDelays; more > 0 {
		a.Since = max(a.Since, a.Delays[more-1].Hour+hour)
		a.Delays = a.Delays[more:]
	}
}

// UniteArrivals returns what the receivers of a ring know together. said is what those say that responded; silent is
// how many others there were at any time from the moment asked about on, those that left included. A sample that was
// acknowledged is on copies receivers, a quorum. So of each moment less than that many receivers may know nothing.
func UniteArrivals(said []Arrivals, silent, copies int) Arrivals {
	out := Arrivals{Complete: math.MaxInt64, Since: math.MaxInt64}
	lowest := map[int64]int64{}
	var since []int64
	for _, a := range said {
		out.Window, out.Complete = max(out.Window, a.Window), min(out.Complete, a.Complete)
		since = append(since, a.Since)
		for _, d := range a.Delays {
			if was, found := lowest[d.Hour]; !found || d.Lowest < was {
				lowest[d.Hour] = d.Lowest
			}
		}
	}
	if len(said) == 0 {
		out.Complete = math.MinInt64
	}
	for h, t := range lowest {
		out.Delays = append(out.Delays, Delay{h, t})
	}
	slices.SortFunc(out.Delays, func(a, b Delay) int { return cmp.Compare(a.Hour, b.Hour) })
	slices.SortFunc(since, func(a, b int64) int { return cmp.Compare(b, a) })
	// From the time of the (copies-silent)-th newest on, less than copies receivers know nothing.
	switch unknown := copies - silent - 1; {
	case unknown < 0 || copies < 1 || len(said) == 0: // nothing is known
	case unknown < len(since):
		out.Since = since[unknown]
	default: // even all of them together are less than copies
		out.Since = math.MinInt64
	}
	out.trim()
	return out
}
