package gossip

import (
	"slices"
	"time"

	dring "github.com/grafana/dskit/ring"
)

// maxSkew is how far a clock may be from those of the other members before its times are not used.
const maxSkew = time.Minute

// skewHolds is for how long a clock must look wrong before its process says so. Heartbeats that were delayed by a
// pause of this process make its clock look wrong until the next ones come.
const skewHolds = 10 * time.Second

// heartbeat is what this process observed of the last heartbeat of a member. Its age is judged by when it came here,
// by a clock that nobody sets. The clock of the member that wrote it is believed in one case: the heartbeat was there
// when this process first met the entry, and that clock makes it older.
type heartbeat struct {
	sent      int64         // when it was written, by the member's clock, Unix seconds
	came      time.Duration // when it came, by Gossip.uptime
	age       time.Duration // how old it was, by its own time, when this process met the entry; 0 for one that came later
	skew      time.Duration // how far the member's clock is ahead of this process's
	skewKnown bool          // the heartbeat came while this process listened, so skew is known
}

// listen returns the heartbeat after entry e was seen at now. p is the one before; met is false if there was none.
func (p heartbeat) listen(e dring.InstanceDesc, met bool, now time.Time, up time.Duration) heartbeat {
	switch {
	case !met:
		return heartbeat{sent: e.Timestamp, came: up, age: max(0, -ahead(e.Timestamp, now))}
	case e.Timestamp == p.sent:
		return p
	}
	return heartbeat{sent: e.Timestamp, came: up, skew: ahead(e.Timestamp, now), skewKnown: true}
}

// ahead is how far t, in Unix seconds, is ahead of now. It is at most two centuries either way, since a larger
// difference does not fit a duration.
func ahead(t int64, now time.Time) time.Duration {
	const most = 2 * int64(maxAhead/time.Second)
	at := now.Unix()
	return time.Duration(min(max(t, at-most), at+most)-at) * time.Second
}

// fresh reports whether the member sent a heartbeat within timeout.
func (p heartbeat) fresh(up, timeout time.Duration) bool {
	return p.age <= timeout && p.silence(up) <= timeout-p.age
}

// silence is for how long this process has waited for the next heartbeat. Only silence decides whether a member is
// forgotten: the heartbeat of a member whose clock is behind looks old when it is met, and the member is alive.
func (p heartbeat) silence(up time.Duration) time.Duration { return up - p.came }

// heard is when the last heartbeat came, by this process's clock. For one that was there when the entry was met it is
// when the heartbeat was written, if that was earlier.
func (p heartbeat) heard(now time.Time, up time.Duration) time.Time {
	return now.Add(-p.silence(up) - p.age)
}

// skew is how far the clocks of the live members are ahead of that of this process, whose id is self: the median,
// this process included. Of two in the middle the one that is nearer to this clock counts.
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

// wallClock is what this process knows of its own clock. The heartbeat loop writes it.
type wallClock struct {
	// skew is how far the others' clocks are ahead; 0 if that is within maxSkew.
	skew time.Duration
	// off says that nobody may use the times that this process wrote or will write. It stays set until the process ends.
	off bool
	// since is from when on skew has not been 0, by Gossip.uptime. sure says that this has lasted for skewHolds.
	since time.Duration
	sure  bool
}

// next returns c after the others' clocks were found to be ahead by skew. began is the start of this process's data
// by its own clock.
func (c wallClock) next(skew time.Duration, now, began time.Time, up time.Duration) wallClock {
	if skew.Abs() <= maxSkew {
		skew = 0
	}
	if skew != 0 && c.skew == 0 {
		c.since = up
	}
	c.skew, c.sure = skew, skew != 0 && up-c.since >= skewHolds
	// If the data began in the future, the clock was set back since.
	if c.sure || skew == 0 && began.After(now.Add(maxSkew)) {
		c.off = true
	}
	return c
}

// latest is this process's now or that of the others: the later of the two, or the others' if sure. Ends of
// incarnations are written by it. An end that is too late only costs a warning; one that is too early would hide
// missing samples.
func (c wallClock) latest(now time.Time) time.Time {
	if c.sure {
		return now.Add(c.skew)
	}
	return now.Add(max(0, c.skew))
}

// common is now by the clock of most members.
func (c wallClock) common(now time.Time) time.Time { return now.Add(c.skew) }

// checkClock compares this process's clock with the others', and logs when it is wrong.
func (g *Gossip) checkClock() {
	up, old := g.opts.uptime(), *g.clock.Load()
	skew := g.snapshot.Load().skew(g.opts.Instance.ID, up, g.opts.HeartbeatTimeout)
	c := old.next(skew, g.opts.Now(), g.opts.Instance.Since, up)
	g.clock.Store(&c)
	switch {
	case c.off && !old.off:
		g.log.Error("the clock of this process is wrong, or was when its data began: "+
			"incomplete answers are reported for more times than needed",
			"ahead_of_most_members", -c.skew, "data_since", g.opts.Instance.Since)
	case c.skew == 0 && old.skew != 0:
		g.log.Info("the clock agrees with those of the other members again")
	}
}
