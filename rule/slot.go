package rule

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// grid is when a group is evaluated: at the times k*interval + offset after the Unix epoch, its slots. All processes
// have the same slots for a group, so samples of a slot that was evaluated twice are equal.
type grid struct {
	interval, offset time.Duration
}

// gridOf is the grid of a group. file and name are hashed as Prometheus hashes those of a group, so that not all groups
// of an interval are evaluated at the same moment.
func gridOf(file, name string, interval time.Duration) grid {
	hash := labels.FromStrings("file", file, "name", name).Hash()
	return grid{interval, time.Duration(hash % uint64(interval))}
}

// before is the last slot that is not after t.
func (g grid) before(t time.Time) time.Time {
	since := t.UnixNano() - int64(g.offset)
	return time.Unix(0, since-since%int64(g.interval)+int64(g.offset)).UTC()
}

// next is the slot to evaluate after last, and how many slots between them are left out. last is a slot. A group that
// is late skips to the newest slot that is due.
func (g grid) next(last, now time.Time) (slot time.Time, missed int) {
	slot = last.Add(g.interval)
	if newest := g.before(now); newest.After(slot) {
		missed = int(newest.Sub(slot) / g.interval)
		slot = newest
	}
	return slot, missed
}

// has reports whether t is a slot.
func (g grid) has(t time.Time) bool { return g.before(t).Equal(t) }
