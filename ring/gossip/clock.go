package gossip

import (
	"slices"
	"time"

	dring "github.com/grafana/dskit/ring"
)

// maxSkew is how far a clock may be from those of the other members before its times are not used.
const maxSkew = time.Minute

// skewHolds is for how long a clock must be seen to be off before its member says so: heartbeats that a pause of this
// process delayed look like a clock that is off, until the next ones come.
const skewHolds = 10 * time.Second

// pulse is what this process observed of one heartbeat. Heartbeats order entries. How old one is is judged by when it came
// here, by a clock that nobody sets. The writer's clock is believed once: for a heartbeat that was there when this
// process first met the entry, and then only if it makes the heartbeat older.
type heartbeat struct {
	sent      int64         // the heartbeat, in the writer's Unix seconds
	came      time.Duration // when it came, by Gossip.uptime
	age       time.Duration // how old it said it was when the entry was met; 0 for one that came later
	skew      time.Duration // how far the writer's clock is ahead of this process's
	skewKnown bool          // skew is known: the heartbeat came while this process listened
}

// listen is the pulse after entry e was seen at now; p is the one before, met = false when there was none.
func (p heartbeat) listen(e dring.InstanceDesc, met bool, now time.Time, up time.Duration) heartbeat {
	switch {
	case !met:
		return heartbeat{sent: e.Timestamp, came: up, age: max(0, -ahead(e.Timestamp, now))}
	case e.Timestamp == p.sent:
		return p
	}
	return heartbeat{sent: e.Timestamp, came: up, skew: ahead(e.Timestamp, now), skewKnown: true}
}

// ahead is how far t, in Unix seconds, is ahead of now: two centuries at most, either way.
func ahead(t int64, now time.Time) time.Duration {
	const most = 2 * int64(maxAhead/time.Second)
	at := now.Unix()
	return time.Duration(min(max(t, at-most), at+most)-at) * time.Second
}

// fresh reports whether the member sent a heartbeat within timeout.
func (p heartbeat) fresh(up, timeout time.Duration) bool {
	return p.age <= timeout && p.silence(up) <= timeout-p.age
}

// silence is for how long this process itself has waited for the next heartbeat. A member is forgotten by it alone: whose
// clock is behind looks old when it is met, and is alive.
func (p heartbeat) silence(up time.Duration) time.Duration { return up - p.came }

// heard is when the last heartbeat came, by this process's clock, or when it was sent where that is all that is known.
func (p heartbeat) heard(now time.Time, up time.Duration) time.Time {
	return now.Add(-p.silence(up) - p.age)
}

// skew is how far the clock of the live members is ahead of the one of this process, self: the median, this process
// included. Of two in the middle the one nearer to this clock counts.
func (v *snapshot) skew(self string, up, timeout time.Duration) time.Duration {
	skews, seen := []time.Duration{0}, map[string]bool{self: true}
	for _, role := range roles {
		for id, p := range v.rings[role].heartbeats {
			if !seen[id] && p.skewKnown && p.fresh(up, timeout) {
				seen[id] = true
				skews = append(skews, p.skew)
			}
		}
	}
	slices.Sort(skews)
	low, high := skews[(len(skews)-1)/2], skews[len(skews)/2]
	if low.Abs() < high.Abs() {
		return low
	}
	return high
}

// wallClock is what this process knows of its own clock. The keeper writes it.
type wallClock struct {
	// skew is how far the others' clocks are ahead; 0 when that is within maxSkew.
	skew time.Duration
	// off says that the times this process wrote or will write are not to be used.
	off bool
	// since is from when on skew has not been 0, by Gossip.uptime; sure that this is so for skewHolds.
	since time.Duration
	sure  bool
}

// next is the clock after a look at the others' that are ahead by skew. began is the start of this process's data by its
// own clock.
func (c wallClock) next(skew time.Duration, now, began time.Time, up time.Duration) wallClock {
	if skew.Abs() <= maxSkew {
		skew = 0
	}
	if skew != 0 && c.skew == 0 {
		c.since = up
	}
	c.skew, c.sure = skew, skew != 0 && up-c.since >= skewHolds
	if c.sure || skew == 0 && began.After(now.Add(maxSkew)) { // a disk made before the clock was set back
		c.off = true
	}
	return c
}

// latest is now, or what the others call now if that is later, or surely right. Ends of incarnations are written by it: too
// late costs a warning, too early would hide a hole.
func (c wallClock) latest(now time.Time) time.Time {
	if c.sure {
		return now.Add(c.skew)
	}
	return now.Add(max(0, c.skew))
}

// common is what most members call now.
func (c wallClock) common(now time.Time) time.Time { return now.Add(c.skew) }

// lookAtClock compares this process's clock with the others', and says when it is wrong.
func (g *Gossip) checkClock() {
	up, old := g.opts.uptime(), *g.clock.Load()
	c := old.next(g.snapshot.Load().skew(g.opts.Instance.ID, up, g.opts.HeartbeatTimeout), g.opts.Now(), g.opts.Instance.Since, up)
	g.clock.Store(&c)
	switch {
	case c.off && !old.off:
		g.log.Error("the clock of this process is wrong, or was when its data began: incomplete answers are reported for more times than needed",
			"ahead_of_most_members", -c.skew, "data_since", g.opts.Instance.Since)
	case c.skew == 0 && old.skew != 0:
		g.log.Info("the clock agrees with those of the other members again")
	}
}
