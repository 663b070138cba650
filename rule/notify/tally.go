package notify

// counts are what a notifier has counted for one Alertmanager: alerts that it took, that it did not take, and all that
// were dropped, which are the ones it did not take and those that found its queue full.
type counts struct{ sent, failed, dropped, queued float64 }

// tally adds up what Thanos's ruler counts once for all Alertmanagers, from what is counted for each.
type tally struct {
	seen map[string]counts // by Alertmanager, at the last look
	// untaken are the alerts that an Alertmanager did not take since the last time that any of them took some.
	untaken map[string]float64
	left    map[string]float64 // alerts that left the queue of each; one that is new begins where the others are

	popped   float64 // left a queue, counted once for all of the queues
	overflow float64 // found a queue full
	lost     float64 // were taken by no Alertmanager
	longest  float64 // the longest queue
}

// look takes what is counted now. How often it is called matters little: an Alertmanager that took alerts in between
// is believed to have taken those that others did not.
func (t *tally) look(now map[string]counts) {
	taken := false
	t.longest = 0
	untaken, left := make(map[string]float64, len(now)), make(map[string]float64, len(now))
	for am, c := range now {
		was, known := t.seen[am]
		if !known || c.sent < was.sent || c.failed < was.failed { // it was gone in between, and is counted anew
			was, known = counts{}, false
		}
		if left[am] = t.popped; known {
			left[am] = t.left[am]
		}
		left[am] += c.sent - was.sent + c.failed - was.failed
		// An alert that is not taken is counted as failed a moment before it is counted as dropped.
		full := max(c.dropped-c.failed, was.dropped-was.failed, 0)
		t.overflow += full - max(was.dropped-was.failed, 0)
		c.dropped = c.failed + full
		taken = taken || c.sent > was.sent
		untaken[am] = t.untaken[am] + c.failed - was.failed
		t.longest = max(t.longest, c.queued)
		now[am] = c
	}
	for _, n := range left {
		t.popped = max(t.popped, n)
	}
	t.seen, t.untaken, t.left = now, untaken, left
	if taken {
		clear(t.untaken)
		return
	}
	none := -1.0
	for _, n := range t.untaken {
		if none < 0 || n < none {
			none = n
		}
	}
	for am := range t.untaken {
		t.untaken[am] -= max(none, 0)
	}
	t.lost += max(none, 0)
}
