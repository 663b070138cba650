package distributor

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// peer is one member as a distributor sees it: a bounded queue, the goroutines that empty it, and the shards that wait
// for another try. Queue and retries share one bound; shards in the queue come first.
type peer struct {
	d       *Distributor
	id      string // the member's
	local   bool   // the writer is Local; false if it could not be dialed at first
	metrics memberMetrics

	ctx    context.Context // of all writes
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex // guards what follows
	addr     string     // that writer reaches
	writer   Writer     // nil until the member could be dialed
	undialed error      // why it cannot be dialed at the address it has now; nil if it can

	ready   sync.Cond // queue or closing changed
	late    sync.Cond // retries or closing changed
	queue   fifo
	retries fifo
	batches int   // in queue, retries and being written
	bytes   int64 // of these
	failing bool  // the last answer was that the member cannot be reached
	closing chan struct{}
}

// replica is one shard on its way to one member. It belongs to its write, which outlives it.
type replica struct {
	write *write
	peer  *peer
	shard wire.Shard
	bytes int64
	since time.Time // when it was queued
	tried bool      // it was among the retries before
	next  *replica
}

// newPeer makes a peer that takes nothing until it is connected.
func newPeer(d *Distributor, id string) *peer {
	p := &peer{d: d, id: id, metrics: d.metrics.member(id), closing: make(chan struct{})}
	p.ready.L, p.late.L = &p.mu, &p.mu
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// reaches reports whether p has a writer for addr.
func (p *peer) reaches(addr string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writer != nil && p.addr == addr
}

// undial notes why the member cannot be dialed, and reports whether that is news.
func (p *peer) undial(err error) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news = p.undialed == nil
	p.undialed = err
	return news
}

// connect makes w, which reaches addr, the writer from here on, and returns the one before, which has calls under way.
// What is queued and waits for a retry goes to the new one.
func (p *peer) connect(addr string, w Writer) (before Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.writer
	if before == nil {
		if p.undialed == nil { // else writes know p already
			_, p.local = w.(Local)
		}
		for range p.d.opts.MemberConcurrency {
			p.done.Go(p.work)
		}
		p.done.Go(p.retry)
	}
	p.addr, p.writer, p.undialed = addr, w, nil
	return before
}

// close waits for the shards in the queue, up to the write timeout, and drops those that wait for a retry.
func (p *peer) close() {
	p.mu.Lock()
	close(p.closing)
	p.ready.Broadcast()
	p.late.Broadcast()
	p.mu.Unlock()
	stop := time.AfterFunc(p.d.opts.WriteTimeout, p.cancel)
	p.done.Wait()
	stop.Stop()
	p.cancel()
}

// isClosing is called with p.mu held.
func (p *peer) isClosing() bool {
	select {
	case <-p.closing:
		return true
	default:
		return false
	}
}

// enqueue takes r, or says at once why not. What it refuses is not on the account.
func (p *peer) enqueue(r *replica) error {
	p.mu.Lock()
	if p.writer == nil {
		defer p.mu.Unlock()
		return errs.E(errs.Unavailable, "member cannot be dialed: %w", p.undialed)
	}
	evicted := p.makeRoom(r.bytes)
	full := p.over(r.bytes)
	if !full {
		p.batches++
		p.bytes += r.bytes
		p.queue.push(r)
		p.ready.Signal()
		p.report()
	}
	p.mu.Unlock()
	for r := evicted.pop(); r != nil; r = evicted.pop() {
		p.drop(r, "evicted")
	}
	if full {
		p.d.metrics.dropped.WithLabelValues(p.id, "queue full").Inc()
		return errs.E(errs.Unavailable, "the queue of this member is full")
	}
	return nil
}

// over reports whether bytes more is too much; a single shard never is. With p.mu held.
func (p *peer) over(bytes int64) bool {
	return p.batches > 0 && (p.batches >= p.d.opts.MemberBatches || p.bytes+bytes > p.d.opts.MemberBytes)
}

// makeRoom takes out the oldest retries until bytes more fit. With p.mu held.
func (p *peer) makeRoom(bytes int64) (evicted fifo) {
	for p.over(bytes) {
		r := p.retries.pop()
		if r == nil {
			break
		}
		p.leave(r)
		evicted.push(r)
	}
	return evicted
}

// leave takes r off the account. With p.mu held.
func (p *peer) leave(r *replica) {
	p.batches--
	p.bytes -= r.bytes
	p.report()
}

// report is called with p.mu held, which keeps the gauges in order.
func (p *peer) report() {
	p.metrics.queued.Set(float64(p.queue.n))
	p.metrics.waiting.Set(float64(p.retries.n))
	p.metrics.bytes.Set(float64(p.bytes))
}

// work writes queued shards until the peer is closed and the queue empty.
func (p *peer) work() {
	for {
		p.mu.Lock()
		for p.queue.n == 0 && !p.isClosing() {
			p.ready.Wait()
		}
		r := p.queue.pop()
		p.mu.Unlock()
		if r == nil {
			return
		}
		failures, err := p.try(r)
		r.write.answer(r, failures, err)
		p.settle(r, failures, err)
	}
}

// settle ends a try of r: a copy that is missing, and that somebody relies on, is kept for another.
func (p *peer) settle(r *replica, failures []wire.Failure, err error) (kept bool) {
	if err == nil {
		err = r.narrow(failures)
	}
	again := retryable(errs.KindOf(err)) && r.write.relied(r)
	p.mu.Lock()
	if again && !p.isClosing() {
		if r.tried {
			p.retries.unshift(r)
		} else {
			p.retries.push(r)
		}
		r.tried = true
		p.report()
		p.late.Signal()
		p.mu.Unlock()
		return true
	}
	p.leave(r)
	p.mu.Unlock()
	switch {
	case again:
		p.drop(r, "closed")
	case err != nil && r.write.relied(r):
		p.drop(r, "refused")
	default:
		r.write.release()
	}
	return false
}

// drop gives r up for good. It is off the account already.
func (p *peer) drop(r *replica, reason string) {
	p.d.metrics.dropped.WithLabelValues(p.id, reason).Inc()
	r.write.release()
}

// retry tries the shards that wait for it, oldest first, until the peer is closed. While the member answers it goes on at
// once; each failure doubles the wait.
func (p *peer) retry() {
	wait := p.d.opts.RetryMin
	for {
		p.mu.Lock()
		for p.retries.n == 0 && !p.isClosing() {
			p.late.Wait()
			wait = p.d.opts.RetryMin
		}
		p.mu.Unlock()
		p.sleep(wait)
		r, closing := p.due()
		if r != nil {
			p.metrics.retries.Inc()
			if failures, err := p.try(r); p.settle(r, failures, err) {
				wait = min(max(2*wait, p.d.opts.RetryMin), p.d.opts.RetryMax)
			} else {
				wait = 0
			}
		} else if closing {
			return
		}
	}
}

// due takes the oldest shard that is worth another try, and gives up those before it that are not. When the peer is being
// closed none is.
func (p *peer) due() (r *replica, closing bool) {
	for {
		p.mu.Lock()
		r, closing = p.retries.pop(), p.isClosing()
		p.mu.Unlock()
		if r == nil {
			return nil, closing
		}
		reason := ""
		switch {
		case closing:
			reason = "closed"
		case time.Since(r.since) > p.d.opts.RetryAge:
			reason = "too old"
		case r.write.relied(r):
			return r, false
		}
		p.mu.Lock()
		p.leave(r)
		p.mu.Unlock()
		if reason != "" {
			p.drop(r, reason)
		} else { // its sender was told to send it again
			r.write.release()
		}
	}
}

// sleep waits about d, or until the peer is closed.
func (p *peer) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.closing:
	}
}

// try is send on a goroutine of the peer's own, where nobody else looks after a panic.
func (p *peer) try(r *replica) (failures []wire.Failure, err error) {
	defer p.d.survive("write to member "+p.id, func(fault error) { failures, err = nil, fault })
	return p.send(r)
}

// send writes r to the member, for as long as the write timeout.
func (p *peer) send(r *replica) ([]wire.Failure, error) {
	ctx, cancel := context.WithTimeout(p.ctx, p.d.opts.WriteTimeout)
	defer cancel()
	start := time.Now()
	p.mu.Lock()
	writer := p.writer
	p.mu.Unlock()
	failures, err := writer.Write(ctx, r.shard)
	p.d.metrics.time.Observe(time.Since(start).Seconds())
	p.d.metrics.writes.WithLabelValues(p.id, errs.KindOf(err).String()).Inc()
	p.notice(err)
	return failures, err
}

// notice logs when the member stops and starts to answer.
func (p *peer) notice(err error) {
	failing := retryable(errs.KindOf(err))
	p.mu.Lock()
	changed, addr := failing != p.failing, p.addr
	p.failing = failing
	p.mu.Unlock()
	switch {
	case changed && failing:
		p.d.log.Warn("member does not take writes", "member", p.id, "address", addr, "err", err)
	case changed:
		p.d.log.Info("member takes writes again", "member", p.id, "address", addr)
	}
}

// retryable reports whether a member that answered kind may take the same later.
func retryable(kind errs.Kind) bool {
	switch kind {
	case errs.OK, errs.Invalid, errs.Conflict, errs.Limited, errs.TooLarge:
		return false
	}
	return true
}

// fifo is a queue of replicas, linked through them.
type fifo struct {
	head, tail *replica
	n          int
}

func (f *fifo) push(r *replica) {
	r.next = nil
	if f.tail == nil {
		f.head = r
	} else {
		f.tail.next = r
	}
	f.tail = r
	f.n++
}

func (f *fifo) unshift(r *replica) {
	r.next = f.head
	f.head = r
	if f.tail == nil {
		f.tail = r
	}
	f.n++
}

func (f *fifo) pop() *replica {
	r := f.head
	if r == nil {
		return nil
	}
	f.head, r.next = r.next, nil
	if f.head == nil {
		f.tail = nil
	}
	f.n--
	return r
}
