package distributor

import (
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

const (
	// tenantQueueBytes bounds what one tenant has on the way to one member. A receiver stops reading a stream that has 64
	// MiB in work, so one tenant whose writes hang must not have as much there.
	tenantQueueBytes = 16 << 20
	// tenantQueueIdle is how long a queue without shards is kept, for its progress.
	tenantQueueIdle = 10 * time.Second
)

// tenantQueue holds the shards of one tenant on their way to one member, in the order in which they are to arrive. It
// has a back-off of its own, so that a failure of one tenant delays no other tenant. All of it is guarded by member.mu.
type tenantQueue struct {
	tenant  tenant.ID
	queue   list   // shards that wait for a try
	last    uint64 // number of the newest shard
	flying  int    // shards being written
	sending int64  // bytes of the shards being written
	held    int    // late shards being written that one started now could overtake
	late    lateness
	listed  bool // in member.runnable
	rank    int  // position in member.withLate

	progress progress
	seen     time.Time // until when progress is true
	heard    time.Time // when the member last answered here, or had nothing to answer
	off      backoff
	since    time.Time   // when off began to fail
	noticed  bool        // the log has said that the queue fails
	timer    *time.Timer // lists the queue again when off is over
}

// lateness counts late shards: those whose requests were answered without them.
type lateness struct {
	batches, series int
	bytes           int64
}

// busy reports whether there are shards, queued or being written.
func (q *tenantQueue) busy() bool { return q.queue.n+q.flying > 0 }

// clock brings the progress up to date. While the queue waits for the end of a back-off no answer is due, so that time
// does not count.
func (q *tenantQueue) clock(now time.Time) {
	if q.busy() && (q.flying > 0 || !q.off.failing()) {
		q.progress.spend(now.Sub(q.seen))
	}
	q.seen = now
}

// ready reports whether the first shard may start. most is how many may be under way. After a failure shards go one by
// one: one that succeeds while an older one fails would be out of order.
func (q *tenantQueue) ready(now time.Time, most int) bool {
	switch {
	case q.queue.n == 0 || q.held > 0:
		return false
	case q.off.failing():
		return q.flying == 0 && !now.Before(q.off.until)
	}
	return q.flying < most && (q.flying == 0 || q.sending+q.queue.head.bytes <= tenantQueueBytes)
}

// share is the part of the bounds that the late shards take: of the bound of which they take more.
func (q *tenantQueue) share(o *Options) float64 {
	return max(float64(q.late.batches)/float64(o.MemberBatches), float64(q.late.bytes)/float64(o.MemberBytes))
}

// list is a queue of shards, linked through them, from which any can be taken.
type list struct {
	head, tail *queuedShard
	n          int
}

// insert puts r behind all shards that have a smaller number.
func (l *list) insert(r *queuedShard) {
	after := l.tail
	if l.head != nil && r.number < l.head.number {
		after = nil // the usual place of a shard that comes back after a failure
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

// remove takes r out.
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
