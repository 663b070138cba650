package distributor

import "time"

// backoff spaces the tries of what fails. The zero value means that the last try did not fail.
type backoff struct {
	wait   time.Duration // doubles with each failure; 0 = the last try did not fail
	failed time.Time     // when the last try failed
	until  time.Time     // when the next try is due
}

// failing reports whether the last try failed.
func (b *backoff) failing() bool { return b.wait > 0 }

// fail notes a failed try. jitter is from 0 to 1. It spreads the tries of many over half to one and a half of the wait.
func (b *backoff) fail(now time.Time, least, most time.Duration, jitter float64) {
	b.wait = min(max(2*b.wait, least), most)
	b.failed, b.until = now, now.Add(time.Duration(float64(b.wait)*(0.5+jitter)))
}

// hurry brings the next try forward because somebody waits for its answer. Tries stay at least the time least apart.
// alone says that nothing else is queued or being written: then the next try may start at once.
func (b *backoff) hurry(least time.Duration, now time.Time, alone bool) {
	soon := b.failed.Add(least)
	if alone {
		soon = now
	}
	if soon.Before(b.until) {
		b.until = soon
	}
}
