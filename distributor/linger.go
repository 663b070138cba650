package distributor

import (
	"context"
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

const (
	// lingerStep is how often, or more often, a request that waits for its last copies looks whether their members keep up.
	lingerStep = 25 * time.Millisecond
	// tooSilent is for how many times as long as the quorum took a member may answer nothing before requests stop waiting for
	// it. Under little load a member that goes dark is so found within milliseconds.
	tooSilent = 16
)

// linger waits, after the quorum, for the copies of members that make progress as the others do. A sender that is answered
// before would send what comes next, and where all members are at their limit the copies that it leaves behind would grow
// without end. peers are all members; took is how long the quorum took.
func (w *write) linger(ctx context.Context, peers []*peer, took time.Duration) {
	if !w.stored() {
		return
	}
	var tick *time.Ticker
	end := time.Now().Add(max(0, w.d.opts.WriteTimeout-took))
	for w.lacks() && w.worthWaiting(peers, took) && time.Now().Before(end) {
		if tick == nil {
			tick = time.NewTicker(min(lingerStep, max(time.Millisecond, tooSilent*took)))
			defer tick.Stop()
		}
		select {
		case <-w.changed:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// stored reports whether a quorum has some item.
func (w *write) stored() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.tallies, func(t tally) bool { return int(t.ok) >= w.need })
}

// lacks reports whether some member has not answered.
func (w *write) lacks() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open > 0
}

func (w *write) worthWaiting(peers []*peer, took time.Duration) bool {
	for i := range w.replicas {
		if r := &w.replicas[i]; r.peer != nil && r.peer.holdsUp(r, peers, took) {
			return true
		}
	}
	return false
}

// part hands what is left of the write to its members. Nobody waits for it any more.
func (w *write) part() {
	for i := range w.replicas {
		if r := &w.replicas[i]; r.peer != nil {
			r.peer.inherit(r)
		}
	}
}

// holdsUp reports whether r's request, which a quorum has stored, should wait for it: if the member has not
// fallen silent, and keeps up.
func (p *peer) holdsUp(r *replica, peers []*peer, took time.Duration) bool {
	own, lacks, due := p.due(r, took)
	if !due { // the usual answer, for which the others need not be asked: a request may have as many copies as there are members
		return false
	}
	id := r.write.batch.Tenant
	others := make([]progress, 0, 8)
	for _, other := range peers {
		if other != p {
			others = other.paceOf(others, id)
		}
	}
	return keepsUp(own, lacks, others, took)
}

// due reports whether r's request may still wait for it at all, and then gives the member's pace and how many series it lacks.
func (p *peer) due(r *replica, took time.Duration) (own progress, lacks int, due bool) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	l := r.lane
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
func (p *peer) paceOf(to []progress, id tenant.ID) []progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[id]
	if l == nil || l.off.failing() || p.down.failing() {
		return to
	}
	l.clock(time.Now())
	return append(to, l.pace)
}

// inherit makes r the member's, because its request is over, or lets it go if nobody relies on it.
func (p *peer) inherit(r *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.place == gone || r.late {
		return
	}
	if r.place == queued && !r.write.relied(r) {
		p.let(r) // its sender was told to send it again
		return
	}
	p.owe(r)
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
func (p *peer) owe(r *replica) {
	l := r.lane
	if l.late.batches == 0 {
		l.rank = len(p.indebted)
		p.indebted = append(p.indebted, l)
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
func (p *peer) forgive(r *replica) {
	if !r.late {
		return
	}
	l := r.lane
	r.late = false
	for _, a := range []*lateness{&l.late, &p.late} {
		a.batches--
		a.series -= r.series
		a.bytes -= r.bytes
	}
	if l.late.batches == 0 {
		end := len(p.indebted) - 1
		p.indebted[l.rank] = p.indebted[end]
		p.indebted[l.rank].rank = l.rank
		p.indebted[end] = nil
		p.indebted = p.indebted[:end]
	}
}

// victim is the oldest late copy, not being written, of the tenant that takes most of the bounds. There are no more such
// tenants than copies, so their number is bounded. With p.mu held.
func (p *peer) victim() (oldest *replica) {
	most := 0.0
	for _, l := range p.indebted {
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
