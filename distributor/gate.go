package distributor

import (
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// gate bounds the requests being worked on and the memory they take: the body as it comes, what it decompresses to, and
// the batch it becomes, each before it is there. Nothing goes beyond the bounds: who finds no room is refused.
type gate struct {
	most    share
	metrics *metrics

	mu  sync.Mutex // guards what follows, and the shares of tickets and accounts
	now share
}

// share is a part of the gate.
type share struct{ requests, bytes int64 }

// greed keeps tenants from starving others: all requests of one may hold at most so many times what is free. One alone can
// have 8/9 of the gate, two together 8/17 each, and who comes next finds some of it free, however many there are.
const greed = 8

// answer is what comes of asking for a part of the gate.
type answer uint8

const (
	granted answer = iota
	never          // it can never be had
	full           // others hold it
	unfair         // it is free, and for others
)

// decide says whether a request that holds own of total, of which used is taken by anybody and others by requests of the
// same tenant, may have n more. A tenant's only request may have all that is free.
func decide(n, own, others, used, total int64) answer {
	free := total - used - n
	switch {
	case own+n > total:
		return never
	case free < 0:
		return full
	case others > 0 && others+own+n > greed*free:
		return unfair
	}
	return granted
}

// ticket is one request's place within the gate.
type ticket struct {
	gate    *gate
	account *account
	bytes   int64
}

// enter lets a request of a tenant in, of whose body so many bytes are announced, or refuses it with kind Exhausted. The
// bytes are not taken yet: a sender that is slow holds only what it has sent.
func (g *gate) enter(a *account, announced int64) (*ticket, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	held := &a.held
	verdict := decide(1, 0, held.requests, g.now.requests, g.most.requests)
	if verdict == granted && announced > 0 {
		verdict = decide(announced, 0, held.bytes, g.now.bytes, g.most.bytes)
	}
	if verdict != granted {
		return nil, g.refuse(a, verdict, announced)
	}
	held.requests++
	g.now.requests++
	g.report()
	return &ticket{gate: g, account: a}, nil
}

// ask takes bytes more, or refuses them with kind Exhausted, or TooLarge if no request can have as many. It is a wire.Room.
func (t *ticket) ask(bytes int64) error {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if verdict := decide(bytes, t.bytes, t.account.held.bytes-t.bytes, g.now.bytes, g.most.bytes); verdict != granted {
		return g.refuse(t.account, verdict, bytes+t.bytes)
	}
	t.add(bytes)
	return nil
}

var _ wire.Room = (*ticket)(nil).ask

// settle makes bytes all that the ticket holds.
func (t *ticket) settle(bytes int64) {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.add(bytes - t.bytes)
}

// done ends the request.
func (t *ticket) done() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.account.held.requests--
	t.gate.now.requests--
	t.add(-t.bytes)
}

// add is called with gate.mu held.
func (t *ticket) add(bytes int64) {
	t.bytes += bytes
	t.account.held.bytes += bytes
	t.gate.now.bytes += bytes
	t.gate.report()
}

// refuse is called with g.mu held.
func (g *gate) refuse(a *account, why answer, bytes int64) error {
	a.refused("inflight", 0)
	switch why {
	case never:
		return errs.E(errs.TooLarge, "tenant %s: request takes %d bytes of memory or more, over the %d that this process has for all requests", a.id, bytes, g.most.bytes)
	case unfair:
		return errs.E(errs.Exhausted, "tenant %s: its requests being worked on here, %d with %d bytes, leave too little for other tenants of %d requests and %d bytes in all: try again",
			a.id, a.held.requests, a.held.bytes, g.most.requests, g.most.bytes)
	}
	return errs.E(errs.Exhausted, "tenant %s: no room for more: %d requests with %d bytes are being worked on here, of at most %d and %d: try again",
		a.id, g.now.requests, g.now.bytes, g.most.requests, g.most.bytes)
}

// report is called with g.mu held, which keeps the gauges in order.
func (g *gate) report() {
	g.metrics.inflight.Set(float64(g.now.requests))
	g.metrics.inflightBytes.Set(float64(g.now.bytes))
}

// RequestMemory is a good Options.MaxRequestBytes for a process that may use memory bytes in all, math.MaxInt64 = no limit.
func RequestMemory(memory int64) int64 {
	const without, most = 512 << 20, 2 << 30
	if memory > 1<<60 {
		return without
	}
	return max(1<<20, min(memory/4, most))
}
