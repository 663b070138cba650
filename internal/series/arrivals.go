package series

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"sync"
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
	Window time.Duration `json:"window_ns"`
	// Complete is the time up to which the data are complete: a sample with this timestamp or an older one is not
	// accepted any more, unless the window grows; then it is delayed.
	Complete int64 `json:"complete"`
	// Since is the time from which on Delays are known: what arrived before may have been delayed. MaxInt64 = nothing is
	// known.
	Since int64 `json:"since"`
	// BlocksSince is the time from which on it is known how blocks of a bucket changed: answers from before it may have
	// changed, whatever they read. 0 = there is no bucket, or it has always been known.
	BlocksSince int64 `json:"blocks_since"`
	// Delays are the clock hours in which delayed samples arrived, in order, at most MaxDelays. Hours without any are
	// left out.
	Delays []Delay `json:"delays"`
}

// Delay is a clock hour in which delayed samples arrived, or samples went away.
type Delay struct {
	// Hour is when it began; Lowest is the lowest timestamp of these samples.
	Hour   int64 `json:"hour"`
	Lowest int64 `json:"lowest"`
	// Latest is a time, in Unix ms, by which the last of them had come or gone, at most a second after that; 0 = some
	// time in the hour.
	Latest int64 `json:"latest,omitempty"`
	// Highest is a timestamp that none of them is above; 0 = any.
	Highest int64 `json:"highest,omitempty"`
}

// touches reports whether samples of d may be from mint to maxt.
func (d Delay) touches(mint, maxt int64) bool {
	return d.Lowest <= maxt && (d.Highest == 0 || d.Highest >= mint)
}

// after reports whether samples of d may have come or gone at time since, in Unix ms, or later.
func (d Delay) after(since int64) bool {
	if d.Latest == 0 {
		return d.Hour+hour > since
	}
	return d.Latest >= since
}

// and is d with another delay of its hour.
func (d Delay) and(o Delay) Delay {
	d.Lowest = min(d.Lowest, o.Lowest)
	if d.Latest == 0 || o.Latest == 0 {
		d.Latest = 0
	} else {
		d.Latest = max(d.Latest, o.Latest)
	}
	if d.Highest == 0 || o.Highest == 0 {
		d.Highest = 0
	} else {
		d.Highest = max(d.Highest, o.Highest)
	}
	return d
}

// ArrivalSource is a Source that takes samples and knows when they arrived.
type ArrivalSource interface {
	// Arrivals returns what is known of tenant id, with the delays of the clock hour of since (Unix ms) and of later
	// ones.
	Arrivals(ctx context.Context, id tenant.ID, since int64) (Arrivals, error)
}

// Never is the time from which on something is known that is not known.
const Never = math.MaxInt64

const hour = int64(time.Hour / time.Millisecond)

// HourOf returns the beginning of the clock hour of t (Unix ms).
func HourOf(t int64) int64 { return t - ((t%hour)+hour)%hour }

// MayHaveChanged reports whether samples with timestamps from mint to maxt may have arrived, or gone away, at time
// since or later.
func (a Arrivals) MayHaveChanged(mint, maxt, since int64) bool {
	// Newer samples need not have been delayed.
	if a.Since == Never || since < a.BlocksSince || maxt > since-DelayedAfter.Milliseconds() {
		return true
	}
	if since < a.Since && maxt >= since-a.Window.Milliseconds() {
		return true
	}
	return slices.ContainsFunc(a.Delays, func(d Delay) bool { return d.after(since) && d.touches(mint, maxt) })
}

// Add records that a sample with timestamp t arrived at time now, if it was delayed. It reports whether that changed
// a. Where there would be more than MaxDelays hours, the oldest ones are not known any more.
func (a *Arrivals) Add(now, t int64) bool {
	if t > now-DelayedAfter.Milliseconds() {
		return false
	}
	return a.Note(now, t, 0)
}

// Note records that samples arrived, or went away, at time now, none of which is before lowest, or after highest; 0 =
// they may be of any later time. It reports whether that changed a.
func (a *Arrivals) Note(now, lowest, highest int64) bool {
	d := Delay{Hour: HourOf(now), Lowest: lowest, Latest: (now/1000 + 1) * 1000, Highest: highest}
	at, found := slices.BinarySearchFunc(a.Delays, d.Hour, func(d Delay, h int64) int { return cmp.Compare(d.Hour, h) })
	if found {
		if d = a.Delays[at].and(d); d == a.Delays[at] {
			return false
		}
	}
	// Copied, since readers may hold the slice.
	delays := slices.Clone(a.Delays)
	if found {
		delays[at] = d
	} else {
		delays = slices.Insert(delays, at, d)
	}
	a.Delays = delays
	a.trim()
	return true
}

// Changes are the times of samples that came or went, by tenant. It is safe for concurrent use.
type Changes struct {
	mu  sync.Mutex // guards all
	all map[tenant.ID]*Arrivals
}

// Note records a change of a tenant's samples, as Arrivals.Note.
func (c *Changes) Note(id tenant.ID, now, lowest, highest int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[tenant.ID]*Arrivals{}
	}
	if c.all[id] == nil {
		c.all[id] = &Arrivals{}
	}
	c.all[id].Note(now, lowest, highest)
}

// AddTo returns a, which is of a tenant, with the changes that were noted.
func (c *Changes) AddTo(a Arrivals, id tenant.ID) Arrivals {
	c.mu.Lock()
	defer c.mu.Unlock()
	if is := c.all[id]; is != nil {
		a.Delays, a.Since = uniteDelays(a.Delays, is.Delays), max(a.Since, is.Since)
		a.trim()
	}
	return a
}

// From is a without the delays of clock hours before that of since, in Unix ms.
func (a Arrivals) From(since int64) Arrivals {
	for len(a.Delays) > 0 && a.Delays[0].Hour < HourOf(since) {
		a.Delays = a.Delays[1:]
	}
	return a
}

// trim forgets the oldest hours beyond MaxDelays.
func (a *Arrivals) trim() {
	if more := len(a.Delays) - MaxDelays; more > 0 {
		a.Since = max(a.Since, a.Delays[more-1].Hour+hour)
		a.Delays = a.Delays[more:]
	}
}

// WithBlocks returns a, which is of receivers, with what store gateways say. buckets has the responses of the
// gateways of each bucket. One of them is enough for what it knows, since each sees all blocks of its bucket; a
// bucket without any makes nothing known.
func (a Arrivals) WithBlocks(buckets [][]Arrivals) Arrivals {
	for _, said := range buckets {
		since := int64(Never)
		for _, g := range said {
			since = min(since, g.BlocksSince)
			a.Delays = uniteDelays(a.Delays, g.Delays)
		}
		a.BlocksSince = max(a.BlocksSince, since)
	}
	a.trim()
	return a
}

// uniteDelays are the hours of all, in order.
func uniteDelays(all ...[]Delay) []Delay {
	hours := map[int64]Delay{}
	for _, delays := range all {
		for _, d := range delays {
			if was, found := hours[d.Hour]; found {
				d = was.and(d)
			}
			hours[d.Hour] = d
		}
	}
	return slices.SortedFunc(maps.Values(hours), func(a, b Delay) int { return cmp.Compare(a.Hour, b.Hour) })
}

// UniteArrivals returns what the receivers of a ring know together. said is what those say that responded; silent is
// how many others there were at any time from the moment asked about on, those that left included. A sample that was
// acknowledged is on copies receivers, a quorum. So of each moment less than that many receivers may know nothing.
func UniteArrivals(said []Arrivals, silent, copies int) Arrivals {
	out := Arrivals{Complete: math.MaxInt64, Since: Never}
	var since []int64
	for _, a := range said {
		out.Window, out.Complete = max(out.Window, a.Window), min(out.Complete, a.Complete)
		since = append(since, a.Since)
		out.Delays = uniteDelays(out.Delays, a.Delays)
	}
	if len(said) == 0 {
		out.Complete = math.MinInt64
	}
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
