package distributor

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// memberTenants is how many tenants with writes that hang a member can have before they keep the writes of others waiting: a
// tenant has up to Options.MemberConcurrency writes under way, and a member that many times as many.
const memberTenants = 8

// noticeAfter is how long a member must not take writes before the log says so: while it restarts, or opens its tenants, that is
// normal.
const noticeAfter = 3 * time.Second

// noticeEvery is how far apart the log's lines are about a member that takes the writes of some tenants and not of others.
const noticeEvery = 10 * time.Second

// peer is one member as a distributor sees it: a lane for each tenant, and the goroutines that write what is in them. Lanes
// take turns, copy by copy.
//
// A copy belongs to its request until that is answered, and is bounded with it. What a request leaves behind is late: it
// belongs to the member from then on, within Options.MemberBatches and MemberBytes.
type member struct {
	d       *Distributor
	id      string // the member's
	local   bool   // the writer is Local; false if it could not be dialed at first
	metrics memberMetrics

	ctx    context.Context // of all writes
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex // guards what follows; before write.mu
	addr     string     // that writer reaches
	writer   Writer     // nil until the member could be dialed
	undialed error      // why it cannot be dialed at the address it has now; nil if it can

	ready    sync.Cond // something may be taken
	queues   map[tenant.ID]*tenantQueue
	swept    time.Time      // when lanes that are idle were last looked for
	runnable []*tenantQueue // whose turn it is, in this order
	withLate []*tenantQueue // that have late copies
	late     lateness       // of all lanes
	fresh    int            // queued, never tried
	waiting  int            // queued, tried before
	flying   int            // being written
	probes   int            // of these, started while down
	workers  int
	idle     int     // workers that wait for something to do
	down     backoff // of the member as a whole
	timer    *time.Timer
	heard    time.Time // when the member last answered anything
	failing  int       // lanes that are
	noticed  time.Time // when that was last logged
	since    time.Time // when down began to fail
	said     bool      // the log has said that the member does not take writes
	closing  bool
}

// newMember makes a peer that takes nothing until it is connected.
func newMember(d *Distributor, id string) *member {
	p := &member{d: d, id: id, metrics: d.metrics.member(id), queues: map[tenant.ID]*tenantQueue{}}
	p.ready.L = &p.mu
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// reaches reports whether p has a writer for addr.
func (p *member) reaches(addr string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writer != nil && p.addr == addr
}

// undial notes why the member cannot be dialed, and reports whether that is news.
func (p *member) undial(err error) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news = p.undialed == nil
	p.undialed = err
	return news
}

// connect makes w, which reaches addr, the writer from here on, and returns the one before, which has calls under way.
// What is queued goes to the new one.
func (p *member) connect(addr string, w Writer) (before Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.writer
	if before == nil && p.undialed == nil { // else writes know p already
		_, p.local = w.(Local)
	}
	p.addr, p.writer, p.undialed = addr, w, nil
	return before
}

// close waits for the copies that were never tried, up to the write timeout, and drops those that wait for a further try.
func (p *member) close() {
	p.mu.Lock()
	p.closing = true
	if p.timer != nil {
		p.timer.Stop()
	}
	for _, l := range p.queues {
		if l.timer != nil {
			l.timer.Stop()
		}
	}
	p.giveUp()
	p.mu.Unlock()
	stop := time.AfterFunc(p.d.opts.WriteTimeout, p.cancel)
	p.done.Wait()
	stop.Stop()
	p.cancel()
}

// giveUp drops, as the peer is closing, what would have to be tried again. With p.mu held.
func (p *member) giveUp() {
	for _, l := range p.queues {
		for l.queue.n > 0 && (l.off.failing() || p.down.failing() || l.queue.head.tried) {
			p.drop(l.queue.head, "closed")
		}
	}
	p.ready.Broadcast()
}

// enqueue takes r, or says at once why not.
func (p *member) enqueue(r *queuedShard) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.writer == nil:
		return errs.E(errs.Unavailable, "member cannot be dialed: %w", p.undialed)
	case p.closing:
		return errs.E(errs.Unavailable, "the member has left the ring")
	}
	now := time.Now()
	l := p.tenantQueue(r.shard.Batch.Tenant, now)
	l.clock(now)
	if !l.busy() {
		l.heard = now
	}
	l.last++
	r.tenantQueue, r.number, r.series = l, l.last, r.items()
	p.put(r)
	if l.off.failing() {
		l.off.hurry(p.d.opts.RetryMin, now, l.queue.n+l.flying == 1)
		p.await(l, now)
	}
	if p.down.failing() {
		p.down.hurry(p.d.opts.RetryMin, now, p.fresh+p.waiting+p.flying == 1)
		p.awaitMember(now)
	}
	p.list(l, now)
	return nil
}

// lane is that of a tenant. With p.mu held.
func (p *member) tenantQueue(id tenant.ID, now time.Time) *tenantQueue {
	if now.Sub(p.swept) >= tenantQueueIdle {
		p.swept = now
		for id, l := range p.queues {
			if !l.busy() && now.Sub(l.seen) >= tenantQueueIdle {
				p.endBackoff(l)
				delete(p.queues, id)
			}
		}
	}
	l := p.queues[id]
	if l == nil {
		l = &tenantQueue{tenant: id, seen: now}
		p.queues[id] = l
	}
	return l
}

// put queues r in its lane, by its number. With p.mu held.
func (p *member) put(r *queuedShard) {
	r.place = queued
	r.tenantQueue.queue.insert(r)
	*p.counter(r)++
	p.report()
}

// unqueue takes r from its lane's queue. With p.mu held.
func (p *member) unqueue(r *queuedShard) {
	r.place = gone
	r.tenantQueue.queue.remove(r)
	*p.counter(r)--
}

func (p *member) counter(r *queuedShard) *int {
	if r.tried {
		return &p.waiting
	}
	return &p.fresh
}

// report is called with p.mu held, which keeps the gauges in order.
func (p *member) report() {
	p.metrics.queued.Set(float64(p.fresh))
	p.metrics.waiting.Set(float64(p.waiting))
	p.metrics.bytes.Set(float64(p.late.bytes))
}

// list gives l a turn if its first copy may start, and finds it a worker. With p.mu held.
func (p *member) list(l *tenantQueue, now time.Time) {
	if !l.listed && l.ready(now, p.most()) {
		l.listed = true
		p.runnable = append(p.runnable, l)
	}
	p.wake(now)
}

// most is how many writes of one tenant may be under way. With p.mu held.
func (p *member) most() int {
	if p.down.failing() {
		return 1
	}
	return p.d.opts.MemberConcurrency
}

// free reports whether another write may start. While the member fails some tenants probe it, each with one write: what
// hangs may be one tenant's trouble, and then the next one gets through. With p.mu held.
func (p *member) free(now time.Time) bool {
	if p.down.failing() {
		return p.probes < memberTenants && !now.Before(p.down.until)
	}
	return p.flying < memberTenants*p.d.opts.MemberConcurrency
}

// wake finds a worker for the lane whose turn it is. With p.mu held.
func (p *member) wake(now time.Time) {
	switch {
	case len(p.runnable) == 0 || !p.free(now):
	case p.idle > 0:
		p.ready.Signal()
	case p.workers < memberTenants*p.d.opts.MemberConcurrency:
		p.workers++
		p.done.Go(p.work)
	}
}

// await lists l again when its back-off is over. With p.mu held.
func (p *member) await(l *tenantQueue, now time.Time) {
	if p.closing {
		return
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(l.off.until.Sub(now), func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.list(l, time.Now())
		})
		return
	}
	l.timer.Reset(max(0, l.off.until.Sub(now)))
}

// awaitMember wakes a worker when the member's back-off is over. With p.mu held.
func (p *member) awaitMember(now time.Time) {
	if p.closing {
		return
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(p.down.until.Sub(now), func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.wake(time.Now())
		})
		return
	}
	p.timer.Reset(max(0, p.down.until.Sub(now)))
}

// work writes copies until the peer is closed and nothing is queued.
func (p *member) work() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		r := p.take(time.Now())
		switch {
		case r != nil:
			p.mu.Unlock()
			p.write(r)
			p.mu.Lock()
		case p.closing && p.fresh+p.waiting == 0:
			p.workers--
			return
		default:
			p.idle++
			p.ready.Wait()
			p.idle--
		}
	}
}

// take starts the first copy of the lane whose turn it is. With p.mu held.
func (p *member) take(now time.Time) *queuedShard {
	o := &p.d.opts
	for len(p.runnable) > 0 && p.free(now) {
		l := p.runnable[0]
		p.runnable[0] = nil
		p.runnable = p.runnable[1:]
		l.listed = false
		for l.queue.n > 0 && l.queue.head.late && now.Sub(l.queue.head.since) > o.RetryAge {
			p.drop(l.queue.head, "too old")
		}
		if !l.ready(now, p.most()) {
			continue
		}
		l.clock(now)
		r := l.queue.head
		p.unqueue(r)
		r.place, r.placed, r.probe = flying, false, p.down.failing()
		if r.probe {
			p.probes++
		}
		p.flying++
		l.flying++
		l.sending += r.bytes
		p.hold(r)
		if r.tried {
			p.metrics.retries.Inc()
		}
		p.report()
		p.list(l, now)
		return r
	}
	return nil
}

// hold counts r among those that keep newer ones back: its request was answered, so that newer samples of its series may
// be behind it, and they could still overtake it. With p.mu held.
func (p *member) hold(r *queuedShard) {
	if held := r.place == flying && r.late && !r.placed; held != r.held {
		r.held = held
		if held {
			r.tenantQueue.held++
		} else {
			r.tenantQueue.held--
		}
	}
}

// write is one try of r.
func (p *member) write(r *queuedShard) {
	start := time.Now()
	failures, err := p.try(r, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		r.placed = true
		p.hold(r)
		p.list(r.tenantQueue, time.Now())
	})
	r.write.answer(r, failures, err)
	whole := err != nil
	if err == nil {
		err = r.narrow(failures)
	}
	p.settle(r, start, err, whole)
}

// settle ends a try of r that began at start: a copy that is missing, and that somebody relies on, is kept for another. whole
// says that err is of the shard and not of some of its series.
func (p *member) settle(r *queuedShard, start time.Time, err error, whole bool) {
	again := retryable(errs.KindOf(err))
	needed := err != nil && r.write.needed(r)
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	l := r.tenantQueue
	l.clock(now)
	r.place = gone
	p.hold(r)
	if r.probe {
		r.probe = false
		p.probes--
	}
	p.flying--
	l.flying--
	l.sending -= r.bytes
	switch {
	case again && whole && p.membersFault(start, err):
		p.unreachable(start, now, err)
	case again:
		p.alive(now)
		p.refused(l, now, err, whole)
	default:
		p.alive(now)
		p.endBackoff(l)
		l.pace.work += float64(r.series)
		l.heard = now
	}
	switch {
	case again && needed && !p.closing:
		if !whole || errs.KindOf(err) == errs.Internal { // the cause may be in this copy alone: others need not wait for it
			l.last++
			r.number = l.last
		}
		r.tried = true
		p.put(r)
	case again && needed:
		p.drop(r, "closed")
	case err != nil && needed:
		p.drop(r, "refused")
	default:
		p.let(r)
	}
	if l.off.failing() && l.queue.n > 0 {
		p.await(l, now)
	}
	if p.closing {
		p.giveUp()
	}
	p.list(l, now)
}

// membersFault reports whether err, of a try that began at start, is of the member as a whole: it was not reached, or nothing at all
// came from it meanwhile. Anything else may be one tenant's trouble there. With p.mu held.
func (p *member) membersFault(start time.Time, err error) bool {
	return errs.IsUnreached(err) || errors.Is(err, context.DeadlineExceeded) && p.heard.Before(start)
}

// unreachable makes all lanes wait until a probe gets through. Of tries that were under way together, the wait grows once.
// With p.mu held.
func (p *member) unreachable(start, now time.Time, err error) {
	if !p.down.failing() {
		p.since = now
	}
	if !p.said && now.Sub(p.since) >= noticeAfter {
		p.said = true
		p.d.log.Warn("member does not take writes", "member", p.id, "address", p.addr, "err", err)
	}
	if !start.Before(p.down.failed) {
		p.down.fail(now, p.d.opts.RetryMin, p.d.opts.RetryMax, rand.Float64())
		p.awaitMember(now)
	}
	for _, l := range p.queues {
		p.failWaiting(l, err)
	}
}

// alive notes that the member has answered. With p.mu held.
func (p *member) alive(now time.Time) {
	p.heard = now
	if p.down.failing() {
		p.down = backoff{}
		if p.said {
			p.d.log.Info("member takes writes again", "member", p.id, "address", p.addr)
		}
		p.said = false
	}
}

// refused makes l wait, which the member does not take now. With p.mu held.
func (p *member) refused(l *tenantQueue, now time.Time, err error, whole bool) {
	if !l.off.failing() {
		p.failing++
		l.since = now
	}
	l.off.fail(now, p.d.opts.RetryMin, p.d.opts.RetryMax, rand.Float64())
	if whole {
		p.logRefusal(l, now, err)
		p.failWaiting(l, err)
	}
}

// heal ends the back-off of l. With p.mu held.
func (p *member) endBackoff(l *tenantQueue) {
	if !l.off.failing() {
		return
	}
	l.off, l.noticed = backoff{}, false
	p.failing--
}

// notice logs, not too often, that the member does not take what a tenant writes. With p.mu held.
func (p *member) logRefusal(l *tenantQueue, now time.Time, err error) {
	if l.noticed || now.Sub(l.since) < noticeAfter || now.Sub(p.noticed) < noticeEvery {
		return
	}
	l.noticed = true
	p.noticed = now
	p.d.log.Warn("member does not take the writes of some tenants", "member", p.id, "address", p.addr,
		"tenants", p.failing, "tenant", l.tenant, "err", err)
}

// failWaiting lets the requests whose copies wait behind one that failed with err know, so that none waits for a member that
// refuses. The copies stay. With p.mu held.
func (p *member) failWaiting(l *tenantQueue, err error) {
	for r := l.queue.tail; r != nil && p.fresh > 0; r = r.prev {
		if r.tried {
			continue
		}
		p.fresh--
		p.waiting++
		r.tried = true
		r.write.answer(r, nil, err)
	}
}

// let lets go of r, which is needed no more. With p.mu held.
func (p *member) let(r *queuedShard) {
	if r.place == queued {
		p.unqueue(r)
	}
	p.removeLate(r)
	p.report()
	r.write.release()
}

// drop gives up r, which is missing at the member for good. With p.mu held.
func (p *member) drop(r *queuedShard, reason string) {
	p.d.metrics.dropped.WithLabelValues(p.id, reason).Inc()
	if !r.tried {
		r.write.answer(r, nil, errs.E(errs.Unavailable, "copy given up: %s", reason))
	}
	p.let(r)
}

// try is send on a goroutine of the peer's own, where nobody else looks after a panic.
func (p *member) try(r *queuedShard, placed func()) (failures []wire.Failure, err error) {
	defer p.d.recoverAs("write to member "+p.id, func(fault error) { failures, err = nil, fault })
	return p.send(r, placed)
}

// send writes r to the member, for as long as the write timeout. placed is called when the member gets r before whatever
// is sent from then on, if that is known before the answer.
func (p *member) send(r *queuedShard, placed func()) ([]wire.Failure, error) {
	ctx, cancel := context.WithTimeout(p.ctx, p.d.opts.WriteTimeout)
	defer cancel()
	start := time.Now()
	p.mu.Lock()
	writer := p.writer
	p.mu.Unlock()
	var failures []wire.Failure
	var err error
	if ordered, ok := writer.(Ordered); ok {
		failures, err = ordered.WriteInOrder(ctx, r.shard, placed)
	} else {
		failures, err = writer.Write(ctx, r.shard)
	}
	p.d.metrics.time.Observe(time.Since(start).Seconds())
	p.d.metrics.writes.WithLabelValues(p.id, errs.KindOf(err).String()).Inc()
	return failures, err
}

// retryable reports whether a member that answered kind may take the same later.
func retryable(kind errs.Kind) bool {
	switch kind {
	case errs.OK, errs.Invalid, errs.Conflict, errs.Limited, errs.TooLarge:
		return false
	}
	return true
}

// holdsUp reports whether r's request, which a quorum has stored, should wait for it: if the member has not
// fallen silent, and keeps up.
func (p *member) holdsUp(r *queuedShard, members []*member, took time.Duration) bool {
	own, lacks, due := p.due(r, took)
	if !due { // the usual answer, for which the others need not be asked: a request may have as many copies as there are members
		return false
	}
	id := r.write.batch.Tenant
	others := make([]progress, 0, 8)
	for _, other := range members {
		if other != p {
			others = other.paceOf(others, id)
		}
	}
	return keepsUp(own, lacks, others, took)
}

// due reports whether r's request may still wait for it at all, and then gives the member's pace and how many series it lacks.
func (p *member) due(r *queuedShard, took time.Duration) (own progress, lacks int, due bool) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	l := r.tenantQueue
	switch {
	case r.place == gone || r.tried || r.late:
		return own, 0, false
	case l.off.failing() || p.down.failing():
		return own, 0, false
	case now.Sub(l.heard) >= tooSilent*took:
		return own, 0, false
	}
	l.clock(now)
	own = l.pace
	own.work += float64(l.flying * r.series)
	return own, l.late.series, true
}

// paceOf appends the member's pace for a tenant, if it is known.
func (p *member) paceOf(to []progress, id tenant.ID) []progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.queues[id]
	if l == nil || l.off.failing() || p.down.failing() {
		return to
	}
	l.clock(time.Now())
	return append(to, l.pace)
}

// inherit makes r the member's, because its request is over, or lets it go if nobody relies on it.
func (p *member) keepLate(r *queuedShard) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.place == gone || r.late {
		return
	}
	if r.place == queued && !r.write.needed(r) {
		p.let(r) // its sender was told to send it again
		return
	}
	p.addLate(r)
	p.metrics.putOff.Inc()
	for p.late.batches > p.d.opts.MemberBatches || p.late.bytes > p.d.opts.MemberBytes {
		victim := p.victim()
		if victim == nil || p.late.batches == 1 {
			return
		}
		p.drop(victim, "evicted")
	}
}

// owe puts r on the member's account. With p.mu held.
func (p *member) addLate(r *queuedShard) {
	l := r.tenantQueue
	if l.late.batches == 0 {
		l.rank = len(p.withLate)
		p.withLate = append(p.withLate, l)
	}
	r.late = true
	p.hold(r)
	for _, a := range []*lateness{&l.late, &p.late} {
		a.batches++
		a.series += r.series
		a.bytes += r.bytes
	}
	p.report()
}

// forgive takes r off the account, if it is on it. With p.mu held.
func (p *member) removeLate(r *queuedShard) {
	if !r.late {
		return
	}
	l := r.tenantQueue
	r.late = false
	for _, a := range []*lateness{&l.late, &p.late} {
		a.batches--
		a.series -= r.series
		a.bytes -= r.bytes
	}
	if l.late.batches == 0 {
		end := len(p.withLate) - 1
		p.withLate[l.rank] = p.withLate[end]
		p.withLate[l.rank].rank = l.rank
		p.withLate[end] = nil
		p.withLate = p.withLate[:end]
	}
}

// victim is the oldest late copy, not being written, of the tenant that takes most of the bounds. There are no more such
// tenants than copies, so their number is bounded. With p.mu held.
func (p *member) victim() (oldest *queuedShard) {
	most := 0.0
	for _, l := range p.withLate {
		share := l.share(&p.d.opts)
		if share <= most {
			continue
		}
		for r := l.queue.head; r != nil; r = r.next {
			if r.late {
				oldest, most = r, share
				break
			}
		}
	}
	return oldest
}
