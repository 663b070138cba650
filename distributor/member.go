package distributor

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// memberTenants is how many tenants of one member may have hanging writes before the writes of other tenants wait. A
// tenant has up to Options.MemberConcurrency writes under way, and a member memberTenants times as many.
const memberTenants = 8

// noticeAfter is how long a member must refuse writes before the log says so. A member that restarts or opens its
// tenants refuses them for a moment, which is normal.
const noticeAfter = 3 * time.Second

// noticeEvery is the least time between two lines of the log about a member that takes the writes of some tenants and
// refuses those of others.
const noticeEvery = 10 * time.Second

// member is one member of the ring as a distributor sees it: a queue for each tenant, and the goroutines (workers) that
// write the queued shards. The queues take turns, shard by shard.
//
// A shard belongs to its request until the request is answered, and the bounds of requests hold for it. A shard whose
// request was answered without it is late: it belongs to the member, and Options.MemberBatches and MemberBytes bound
// it.
type member struct {
	d       *Distributor
	id      string // the member's
	local   bool   // the writer is Local; false if it could not be dialed at first
	metrics memberMetrics

	ctx    context.Context // of all writes
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex // guards what follows; before write.mu
	addr     string     // the address that writer reaches
	writer   Writer     // nil until the member could be dialed
	undialed error      // why it cannot be dialed at the address it has now; nil if it can

	ready    sync.Cond // a shard may be taken
	queues   map[tenant.ID]*tenantQueue
	swept    time.Time      // when idle queues were last looked for
	runnable []*tenantQueue // queues whose first shard may start, in the order of their turns
	withLate []*tenantQueue // queues that have late shards
	late     lateness       // of all queues
	fresh    int            // queued shards that were never tried
	waiting  int            // queued shards that were tried before
	flying   int            // shards being written
	probes   int            // shards being written that were started while down was failing
	workers  int
	idle     int     // workers that wait for something to do
	down     backoff // back-off of the member as a whole
	timer    *time.Timer
	heard    time.Time // when the member last answered anything
	failing  int       // queues whose back-off is failing
	noticed  time.Time // when the log last said that queues fail
	since    time.Time // when down began to fail
	said     bool      // the log has said that the member does not take writes
	closing  bool
}

// newMember makes a member that refuses all shards until connect is called.
func newMember(d *Distributor, id string) *member {
	m := &member{d: d, id: id, metrics: d.metrics.member(id), queues: map[tenant.ID]*tenantQueue{}}
	m.ready.L = &m.mu
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// reaches reports whether m has a writer for addr.
func (m *member) reaches(addr string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writer != nil && m.addr == addr
}

// undial notes why the member cannot be dialed. It reports whether it could be dialed before.
func (m *member) undial(err error) (news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	news = m.undialed == nil
	m.undialed = err
	return news
}

// connect makes w, which reaches addr, the writer. It returns the writer before, which may have calls under way. Queued
// shards go to w.
func (m *member) connect(addr string, w Writer) (before Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before = m.writer
	if before == nil && m.undialed == nil { // else writes read local already
		_, m.local = w.(Local)
	}
	m.addr, m.writer, m.undialed = addr, w, nil
	return before
}

// close waits for the shards that were never tried, up to the write timeout. It drops those that wait for a further
// try.
func (m *member) close() {
	m.mu.Lock()
	m.closing = true
	if m.timer != nil {
		m.timer.Stop()
	}
	for _, q := range m.queues {
		if q.timer != nil {
			q.timer.Stop()
		}
	}
	m.giveUp()
	m.mu.Unlock()
	stop := time.AfterFunc(m.d.opts.WriteTimeout, m.cancel)
	m.done.Wait()
	stop.Stop()
	m.cancel()
}

// giveUp drops the shards that would need a further try. The member is closing. m.mu is held.
func (m *member) giveUp() {
	for _, q := range m.queues {
		for q.queue.n > 0 && (q.off.failing() || m.down.failing() || q.queue.head.tried) {
			m.drop(q.queue.head, "closed")
		}
	}
	m.ready.Broadcast()
}

// enqueue takes r, or says at once why it does not.
func (m *member) enqueue(r *queuedShard) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.writer == nil:
		return errs.E(errs.Unavailable, "member cannot be dialed: %w", m.undialed)
	case m.closing:
		return errs.E(errs.Unavailable, "the member has left the ring")
	}
	now := time.Now()
	q := m.queue(r.shard.Batch.Tenant, now)
	q.clock(now)
	if !q.busy() {
		q.heard = now
	}
	q.last++
	r.queue, r.number, r.series = q, q.last, r.items()
	m.put(r)
	if q.off.failing() {
		q.off.hurry(m.d.opts.RetryMin, now, q.queue.n+q.flying == 1)
		m.await(q, now)
	}
	if m.down.failing() {
		m.down.hurry(m.d.opts.RetryMin, now, m.fresh+m.waiting+m.flying == 1)
		m.awaitMember(now)
	}
	m.list(q, now)
	return nil
}

// queue gives the queue of a tenant, and forgets queues that have been idle. m.mu is held.
func (m *member) queue(id tenant.ID, now time.Time) *tenantQueue {
	if now.Sub(m.swept) >= tenantQueueIdle {
		m.swept = now
		for id, q := range m.queues {
			if !q.busy() && now.Sub(q.seen) >= tenantQueueIdle {
				m.endBackoff(q)
				delete(m.queues, id)
			}
		}
	}
	q := m.queues[id]
	if q == nil {
		q = &tenantQueue{tenant: id, seen: now}
		m.queues[id] = q
	}
	return q
}

// put queues r at the place of its number. m.mu is held.
func (m *member) put(r *queuedShard) {
	r.place = queued
	r.queue.queue.insert(r)
	*m.counter(r)++
	m.report()
}

// unqueue takes r out of its queue. m.mu is held.
func (m *member) unqueue(r *queuedShard) {
	r.place = gone
	r.queue.queue.remove(r)
	*m.counter(r)--
}

// counter is the number that counts r while it is queued. m.mu is held.
func (m *member) counter(r *queuedShard) *int {
	if r.tried {
		return &m.waiting
	}
	return &m.fresh
}

// report sets the gauges. m.mu is held, so that they are set in order.
func (m *member) report() {
	m.metrics.queued.Set(float64(m.fresh))
	m.metrics.waiting.Set(float64(m.waiting))
	m.metrics.bytes.Set(float64(m.late.bytes))
}

// list gives q a turn if its first shard may start, and finds a worker. m.mu is held.
func (m *member) list(q *tenantQueue, now time.Time) {
	if !q.listed && q.ready(now, m.most()) {
		q.listed = true
		m.runnable = append(m.runnable, q)
	}
	m.wake(now)
}

// most is how many writes of one tenant may be under way. m.mu is held.
func (m *member) most() int {
	if m.down.failing() {
		return 1
	}
	return m.d.opts.MemberConcurrency
}

// free reports whether another write may start. While the member fails, some tenants probe it, each with one write: a
// write that hangs may be one tenant's trouble, and then the probe of the next tenant succeeds. m.mu is held.
func (m *member) free(now time.Time) bool {
	if m.down.failing() {
		return m.probes < memberTenants && !now.Before(m.down.until)
	}
	return m.flying < memberTenants*m.d.opts.MemberConcurrency
}

// wake finds a worker for the queue whose turn it is. m.mu is held.
func (m *member) wake(now time.Time) {
	switch {
	case len(m.runnable) == 0 || !m.free(now):
	case m.idle > 0:
		m.ready.Signal()
	case m.workers < memberTenants*m.d.opts.MemberConcurrency:
		m.workers++
		m.done.Go(m.work)
	}
}

// await lists q again when its back-off is over. m.mu is held.
func (m *member) await(q *tenantQueue, now time.Time) {
	m.alarm(&q.timer, q.off.until.Sub(now), func(now time.Time) { m.list(q, now) })
}

// awaitMember wakes a worker when the member's back-off is over. m.mu is held.
func (m *member) awaitMember(now time.Time) {
	m.alarm(&m.timer, m.down.until.Sub(now), m.wake)
}

// alarm calls f after d, with m.mu held. at is its timer, nil before the first use, whose f stays. m.mu is held.
func (m *member) alarm(at **time.Timer, d time.Duration, f func(now time.Time)) {
	switch {
	case m.closing:
	case *at == nil:
		*at = time.AfterFunc(d, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			f(time.Now())
		})
	default:
		(*at).Reset(max(0, d))
	}
}

// work is a worker: it writes shards until the member is closed and nothing is queued.
func (m *member) work() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		r := m.take(time.Now())
		switch {
		case r != nil:
			m.mu.Unlock()
			m.write(r)
			m.mu.Lock()
		case m.closing && m.fresh+m.waiting == 0:
			m.workers--
			return
		default:
			m.idle++
			m.ready.Wait()
			m.idle--
		}
	}
}

// take starts the first shard of the queue whose turn it is. It is nil when no shard may start. m.mu is held.
func (m *member) take(now time.Time) *queuedShard {
	o := &m.d.opts
	for len(m.runnable) > 0 && m.free(now) {
		q := m.runnable[0]
		m.runnable[0] = nil
		m.runnable = m.runnable[1:]
		q.listed = false
		for q.queue.n > 0 && q.queue.head.late && now.Sub(q.queue.head.since) > o.RetryAge {
			m.drop(q.queue.head, "too old")
		}
		if !q.ready(now, m.most()) {
			continue
		}
		q.clock(now)
		r := q.queue.head
		m.unqueue(r)
		r.place, r.placed, r.probe = flying, false, m.down.failing()
		if r.probe {
			m.probes++
		}
		m.flying++
		q.flying++
		q.sending += r.bytes
		m.hold(r)
		if r.tried {
			m.metrics.retries.Inc()
		}
		m.report()
		m.list(q, now)
		return r
	}
	return nil
}

// hold keeps tenantQueue.held true for r. A late shard that is being written holds newer shards back as long as they
// could overtake it: the request of r was answered, so the queue may have newer samples of the same series. m.mu is
// held.
func (m *member) hold(r *queuedShard) {
	if held := r.place == flying && r.late && !r.placed; held != r.held {
		r.held = held
		if held {
			r.queue.held++
		} else {
			r.queue.held--
		}
	}
}

// write is one try of r.
func (m *member) write(r *queuedShard) {
	start := time.Now()
	failures, err := m.try(r, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		r.placed = true
		m.hold(r)
		m.list(r.queue, time.Now())
	})
	r.write.answer(r, failures, err)
	whole := err != nil
	if err == nil {
		err = r.narrow(failures)
	}
	m.settle(r, start, err, whole)
}

// settle ends a try of r that began at start. A shard that is missing at the member, and that somebody still needs, is
// kept for another try. whole says that err is about the shard and not about some of its series.
func (m *member) settle(r *queuedShard, start time.Time, err error, whole bool) {
	again := retryable(errs.KindOf(err))
	needed := err != nil && r.write.needed(r)
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	q := r.queue
	q.clock(now)
	r.place = gone
	m.hold(r)
	if r.probe {
		r.probe = false
		m.probes--
	}
	m.flying--
	q.flying--
	q.sending -= r.bytes
	switch {
	case again && whole && m.membersFault(start, err):
		m.unreachable(start, now, err)
	case again:
		m.alive(now)
		m.refused(q, now, err, whole)
	default:
		m.alive(now)
		m.endBackoff(q)
		q.progress.work += float64(r.series)
		q.heard = now
	}
	switch {
	case again && needed && !m.closing:
		if !whole || errs.KindOf(err) == errs.Internal { // the cause may be in this shard alone: others need not wait for it
			q.last++
			r.number = q.last
		}
		r.tried = true
		m.put(r)
	case again && needed:
		m.drop(r, "closed")
	case err != nil && needed:
		m.drop(r, "refused")
	default:
		m.let(r)
	}
	if q.off.failing() && q.queue.n > 0 {
		m.await(q, now)
	}
	if m.closing {
		m.giveUp()
	}
	m.list(q, now)
}

// membersFault reports whether err, of a try that began at start, is about the member as a whole: the member was not
// reached, or nothing came from it since. Any other failure may be one tenant's trouble there. m.mu is held.
func (m *member) membersFault(start time.Time, err error) bool {
	return errs.IsUnreached(err) || errors.Is(err, context.DeadlineExceeded) && m.heard.Before(start)
}

// unreachable makes all queues wait until a probe succeeds. Tries that were under way together make the wait grow once.
// m.mu is held.
func (m *member) unreachable(start, now time.Time, err error) {
	if !m.down.failing() {
		m.since = now
	}
	if !m.said && now.Sub(m.since) >= noticeAfter {
		m.said = true
		m.d.log.Warn("member does not take writes", "member", m.id, "address", m.addr, "err", err)
	}
	if !start.Before(m.down.failed) {
		m.down.fail(now, m.d.opts.RetryMin, m.d.opts.RetryMax, rand.Float64())
		m.awaitMember(now)
	}
	for _, q := range m.queues {
		m.failWaiting(q, err)
	}
}

// alive notes that the member has answered. m.mu is held.
func (m *member) alive(now time.Time) {
	m.heard = now
	if m.down.failing() {
		m.down = backoff{}
		if m.said {
			m.d.log.Info("member takes writes again", "member", m.id, "address", m.addr)
		}
		m.said = false
	}
}

// refused makes q wait, since the member refuses its shards now. m.mu is held.
func (m *member) refused(q *tenantQueue, now time.Time, err error, whole bool) {
	if !q.off.failing() {
		m.failing++
		q.since = now
	}
	q.off.fail(now, m.d.opts.RetryMin, m.d.opts.RetryMax, rand.Float64())
	if whole {
		m.logRefusal(q, now, err)
		m.failWaiting(q, err)
	}
}

// endBackoff ends the back-off of q. m.mu is held.
func (m *member) endBackoff(q *tenantQueue) {
	if !q.off.failing() {
		return
	}
	q.off, q.noticed = backoff{}, false
	m.failing--
}

// logRefusal logs, not too often, that the member refuses the writes of a tenant. m.mu is held.
func (m *member) logRefusal(q *tenantQueue, now time.Time, err error) {
	if q.noticed || now.Sub(q.since) < noticeAfter || now.Sub(m.noticed) < noticeEvery {
		return
	}
	q.noticed = true
	m.noticed = now
	m.d.log.Warn("member does not take the writes of some tenants", "member", m.id, "address", m.addr,
		"tenants", m.failing, "tenant", q.tenant, "err", err)
}

// failWaiting counts err as the answer for all shards that wait in q, so that no request waits for a member that
// refuses. The shards stay queued. m.mu is held.
func (m *member) failWaiting(q *tenantQueue, err error) {
	for r := q.queue.tail; r != nil && m.fresh > 0; r = r.prev {
		if r.tried {
			continue
		}
		m.fresh--
		m.waiting++
		r.tried = true
		r.write.answer(r, nil, err)
	}
}

// let gives r up: nobody needs it any more. m.mu is held.
func (m *member) let(r *queuedShard) {
	if r.place == queued {
		m.unqueue(r)
	}
	m.removeLate(r)
	m.report()
	r.write.release()
}

// drop gives r up although it is missing at the member. m.mu is held.
func (m *member) drop(r *queuedShard, reason string) {
	m.d.metrics.dropped.WithLabelValues(m.id, reason).Inc()
	if !r.tried {
		r.write.answer(r, nil, errs.E(errs.Unavailable, "copy given up: %s", reason))
	}
	m.let(r)
}

// try is send on a goroutine of the member's own. A panic becomes an error, since nothing else would catch it.
func (m *member) try(r *queuedShard, placed func()) (failures []wire.Failure, err error) {
	defer m.d.recoverAs("write to member "+m.id, func(fault error) { failures, err = nil, fault })
	return m.send(r, placed)
}

// send writes r to the member, within the write timeout. placed is called when it is certain that the member gets r
// before all that is sent from then on, if that is known before the answer.
func (m *member) send(r *queuedShard, placed func()) ([]wire.Failure, error) {
	ctx, cancel := context.WithTimeout(m.ctx, m.d.opts.WriteTimeout)
	defer cancel()
	if span := r.write.span; span != nil && span.SpanContext().IsSampled() {
		ctx = trace.ContextWithSpan(ctx, span)
	}
	start := time.Now()
	m.mu.Lock()
	writer := m.writer
	m.mu.Unlock()
	var failures []wire.Failure
	var err error
	if ordered, ok := writer.(Ordered); ok {
		failures, err = ordered.WriteInOrder(ctx, r.shard, placed)
	} else {
		failures, err = writer.Write(ctx, r.shard)
	}
	m.d.metrics.time.Observe(time.Since(start).Seconds())
	m.d.metrics.writes.WithLabelValues(m.id, errs.KindOf(err).String()).Inc()
	return failures, err
}

// retryable reports whether a member that answered kind may take the same write later.
func retryable(kind errs.Kind) bool {
	switch kind {
	case errs.OK, errs.Invalid, errs.Conflict, errs.Limited, errs.TooLarge:
		return false
	}
	return true
}

// holdsUp reports whether the request of r, which a quorum has stored, should wait for r: if the member answers, and
// keeps up with the other members.
func (m *member) holdsUp(r *queuedShard, members []*member, took time.Duration) bool {
	own, lacks, due := m.due(r, took)
	if !due { // the usual case; a request may have as many shards as there are members, so do not ask them all
		return false
	}
	id := r.write.batch.Tenant
	others := make([]progress, 0, 8)
	for _, other := range members {
		if other != m {
			others = other.progressOf(others, id)
		}
	}
	return keepsUp(own, lacks, others, took)
}

// due reports whether the request of r may still wait for it. If so it gives the progress of the member and how many
// series it lacks.
func (m *member) due(r *queuedShard, took time.Duration) (own progress, lacks int, due bool) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	q := r.queue
	switch {
	case r.place == gone || r.tried || r.late:
		return own, 0, false
	case q.off.failing() || m.down.failing():
		return own, 0, false
	case now.Sub(q.heard) >= tooSilent*took:
		return own, 0, false
	}
	q.clock(now)
	own = q.progress
	own.work += float64(q.flying * r.series)
	return own, q.late.series, true
}

// progressOf appends the member's progress for a tenant, if it is known.
func (m *member) progressOf(to []progress, id tenant.ID) []progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queues[id]
	if q == nil || q.off.failing() || m.down.failing() {
		return to
	}
	q.clock(time.Now())
	return append(to, q.progress)
}

// keepLate makes r the member's, because the request of r was answered. It gives r up if nobody needs it.
func (m *member) keepLate(r *queuedShard) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.place == gone || r.late {
		return
	}
	if r.place == queued && !r.write.needed(r) {
		m.let(r) // its sender sends it again
		return
	}
	m.addLate(r)
	m.metrics.putOff.Inc()
	for m.late.batches > m.d.opts.MemberBatches || m.late.bytes > m.d.opts.MemberBytes {
		victim := m.victim()
		if victim == nil || m.late.batches == 1 {
			return
		}
		m.drop(victim, "evicted")
	}
}

// addLate counts r as late. m.mu is held.
func (m *member) addLate(r *queuedShard) {
	q := r.queue
	if q.late.batches == 0 {
		q.rank = len(m.withLate)
		m.withLate = append(m.withLate, q)
	}
	r.late = true
	m.hold(r)
	for _, a := range []*lateness{&q.late, &m.late} {
		a.batches++
		a.series += r.series
		a.bytes += r.bytes
	}
	m.report()
}

// removeLate stops counting r as late, if it was. m.mu is held.
func (m *member) removeLate(r *queuedShard) {
	if !r.late {
		return
	}
	q := r.queue
	r.late = false
	for _, a := range []*lateness{&q.late, &m.late} {
		a.batches--
		a.series -= r.series
		a.bytes -= r.bytes
	}
	if q.late.batches == 0 {
		end := len(m.withLate) - 1
		m.withLate[q.rank] = m.withLate[end]
		m.withLate[q.rank].rank = q.rank
		m.withLate[end] = nil
		m.withLate = m.withLate[:end]
	}
}

// victim is the oldest late shard, not being written, of the tenant that takes most of the bounds. It looks at every
// tenant with late shards, of which there are no more than late shards, so their number is bounded. m.mu is held.
func (m *member) victim() (oldest *queuedShard) {
	most := 0.0
	for _, q := range m.withLate {
		share := q.share(&m.d.opts)
		if share <= most {
			continue
		}
		for r := q.queue.head; r != nil; r = r.next {
			if r.late {
				oldest, most = r, share
				break
			}
		}
	}
	return oldest
}
