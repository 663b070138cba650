package distributor

import (
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

const (
	// tenantQueueBytes bounds what one tenant has on the way to one member. A receiver reads no further while a stream has 64 MiB
	// in work, so a tenant whose writes hang must not have as much there.
	tenantQueueBytes = 16 << 20
	// tenantQueueIdle is how long a lane without copies is kept, for its pace.
	tenantQueueIdle = 10 * time.Second
)

// lane is what is on its way to one member for one tenant, in the order in which it is to arrive. It has a back-off of its own, so
// that what fails for one tenant alone delays nobody else. All of it is guarded by peer.mu.
type tenantQueue struct {
	tenant  tenant.ID
	queue   list   // copies that wait for a try
	last    uint64 // number of the newest copy
	flying  int    // copies being written
	sending int64  // bytes of these
	held    int    // of these, late ones that a copy started now could overtake
	late    lateness
	listed  bool // in peer.runnable
	rank    int  // in peer.withLate

	pace    progress
	seen    time.Time // until when pace is true
	heard   time.Time // when the member last answered here, or had nothing to answer
	off     backoff
	since   time.Time   // when off began to fail
	noticed bool        // the log has said that the lane fails
	timer   *time.Timer // lists the lane again when off is over
}

// lateness is what requests have left behind at a member.
type lateness struct {
	batches, series int
	bytes           int64
}

func (l *tenantQueue) busy() bool { return l.queue.n+l.flying > 0 }

// clock brings the pace up to date. While a failed try is waited out no answer is due.
func (l *tenantQueue) clock(now time.Time) {
	if l.busy() && (l.flying > 0 || !l.off.failing()) {
		l.pace.spend(now.Sub(l.seen))
	}
	l.seen = now
}

// ready reports whether the lane's first copy may start. most is how many the lane may have under way. After a failure copies
// go one by one: one that passes where an older one failed would put that out of order.
func (l *tenantQueue) ready(now time.Time, most int) bool {
	switch {
	case l.queue.n == 0 || l.held > 0:
		return false
	case l.off.failing():
		return l.flying == 0 && !now.Before(l.off.until)
	}
	return l.flying < most && (l.flying == 0 || l.sending+l.queue.head.bytes <= tenantQueueBytes)
}

// share is the part of the bounds that the lane's late copies take, by the bound of which they take more.
func (l *tenantQueue) share(o *Options) float64 {
	return max(float64(l.late.batches)/float64(o.MemberBatches), float64(l.late.bytes)/float64(o.MemberBytes))
}

// list is a queue of replicas, linked through them, from which any can be taken.
type list struct {
	head, tail *queuedShard
	n          int
}

// insert puts r behind all that have a smaller number.
func (l *list) insert(r *queuedShard) {
	after := l.tail
	if l.head != nil && r.number < l.head.number {
		after = nil // the usual place of a copy that comes back
	}
	for after != nil && after.number > r.number {
		after = after.prev
	}
	r.prev = after
	if after == nil {
		r.next, l.head = l.head, r
	} else {
		r.next, after.next = after.next, r
	}
	if r.next == nil {
		l.tail = r
	} else {
		r.next.prev = r
	}
	l.n++
}

func (l *list) remove(r *queuedShard) {
	if r.prev == nil {
		l.head = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		l.tail = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.next, r.prev = nil, nil
	l.n--
}
