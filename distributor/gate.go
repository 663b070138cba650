package distributor

import (
	"errors"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// gate bounds how many requests are worked on and how much memory they take: the body as it comes, what it decompresses
// to, and the batch that it becomes, each before the memory is used. A request takes its place when its body has come,
// and memory as its body comes, so that a sender that sends nothing holds nothing. A request that does not fit the
// bounds is refused.
type gate struct {
	most    usage
	metrics *metrics

	mu        sync.Mutex // guards what follows, and what reservations and tenants hold
	now       usage
	byAddress map[string]*usage // client addresses that hold something
}

// usage is a number of requests and of bytes of memory.
type usage struct{ requests, bytes int64 }

// addressRatio is the fair ratio of client addresses. A sender that may name any tenant could pose as many tenants, so
// bounds by tenant are not enough. One address always leaves a thirty-third for other addresses. This hardly binds the
// tenants behind one proxy.
const addressRatio memory.FairRatio = 32

// reservation is what one request holds of the gate's bounds.
type reservation struct {
	gate    *gate
	tenant  *tenantState
	address string
	entered bool // the request has a place
	bytes   int64
	spare   int64 // of these bytes, left from earlier requests, whether the request needs them or not
}

// begin gives a reservation that holds nothing yet to a request of a tenant, from an address. announced is the length
// of its body in bytes, 0 if it is not known. A request that would be refused now is refused before its body is read,
// with kind Exhausted or TooLarge.
func (g *gate) begin(a *tenantState, address string, announced int64) (*reservation, error) {
	t := &reservation{gate: g, tenant: a, address: address}
	g.mu.Lock()
	defer g.mu.Unlock()
	verdict := t.mayEnter()
	if verdict == memory.Granted && announced > 0 {
		verdict = t.mayHave(announced)
	}
	if verdict != memory.Granted {
		return nil, g.refuse(a, verdict, announced)
	}
	return t, nil
}

// enter takes a place for a request whose body has come, or refuses it with kind Exhausted.
func (t *reservation) enter() error {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.entered {
		return nil
	}
	if verdict := t.mayEnter(); verdict != memory.Granted {
		return g.refuse(t.tenant, verdict, t.bytes)
	}
	t.entered = true
	t.add(usage{requests: 1})
	return nil
}

// mayEnter decides about a place. gate.mu is held.
func (t *reservation) mayEnter() memory.Verdict {
	g := t.gate
	verdict := memory.PerTenant.DecideEntry(t.tenant.held.requests, g.now.requests, g.most.requests)
	if verdict != memory.Granted {
		return verdict
	}
	return addressRatio.DecideEntry(g.heldBy(t.address).requests, g.now.requests, g.most.requests)
}

// mayHave decides about bytes more. gate.mu is held.
func (t *reservation) mayHave(bytes int64) memory.Verdict {
	g := t.gate
	verdict := memory.PerTenant.Decide(bytes, t.bytes, t.tenant.held.bytes-t.bytes, g.now.bytes, g.most.bytes)
	if verdict != memory.Granted {
		return verdict
	}
	return addressRatio.Decide(bytes, t.bytes, g.heldBy(t.address).bytes-t.bytes, g.now.bytes, g.most.bytes)
}

// heldBy is what the requests of an address hold. g.mu is held.
func (g *gate) heldBy(address string) usage {
	if s := g.byAddress[address]; s != nil {
		return *s
	}
	return usage{}
}

// ask takes bytes more. It refuses them with kind Exhausted, or TooLarge if no request can have as many. It is a
// wire.Budget.
func (t *reservation) ask(bytes int64, spare bool) error {
	g := t.gate
	if spare && bytes > g.most.bytes/spareFraction {
		return errSpare
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	verdict := t.mayHave(bytes)
	switch {
	case verdict == memory.Granted:
		t.add(usage{bytes: bytes})
		if spare {
			t.spare += bytes
		}
		return nil
	case spare:
		return errSpare
	case verdict == memory.Never && t.bytes-t.spare+bytes <= g.oneMay(): // with smaller buffers it might fit
		verdict = memory.Full
	}
	return g.refuse(t.tenant, verdict, bytes+t.bytes)
}

// spareFraction says how much spare memory a request may hold: one part in spareFraction of the gate's bytes.
const spareFraction = 32

var errSpare = errors.New("no memory for what is not needed")

// oneMay is how many bytes one request may have at most.
func (g *gate) oneMay() int64 { return memory.PerTenant.Most(g.most.bytes) }

var _ wire.Budget = (*reservation)(nil).ask

// settle makes bytes all that the reservation holds.
func (t *reservation) settle(bytes int64) {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.add(usage{bytes: bytes - t.bytes})
}

// done ends the request. It holds nothing from then on.
func (t *reservation) done() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	more := usage{bytes: -t.bytes}
	if t.entered {
		more.requests = -1
	}
	t.entered = false
	t.add(more)
}

// add changes what the request holds, and all sums that it is part of. gate.mu is held.
func (t *reservation) add(more usage) {
	g := t.gate
	t.bytes += more.bytes
	of := g.byAddress[t.address]
	if of == nil {
		of = &usage{}
		g.byAddress[t.address] = of
	}
	for _, s := range []*usage{&t.tenant.held, &g.now, of} {
		s.requests += more.requests
		s.bytes += more.bytes
	}
	if *of == (usage{}) {
		delete(g.byAddress, t.address)
	}
	g.report()
}

// refuse counts a refusal and makes its error. g.mu is held.
func (g *gate) refuse(a *tenantState, why memory.Verdict, bytes int64) error {
	a.refused("inflight", 0)
	switch why {
	case memory.Never:
		return errs.E(errs.TooLarge, "tenant %s: request takes %d bytes of memory or more, and one may take %d at most "+
			"of the %d that this process has for all", a.id, bytes, g.oneMay(), g.most.bytes)
	case memory.Unfair:
		return errs.E(errs.Exhausted, "tenant %s: its requests being worked on here, %d with %d bytes, or all of its "+
			"address leave too little for others of %d requests and %d bytes in all: try again",
			a.id, a.held.requests, a.held.bytes, g.most.requests, g.most.bytes)
	}
	return errs.E(errs.Exhausted, "tenant %s: no memory for more: %d requests with %d bytes are being worked on here, of "+
		"at most %d and %d: try again", a.id, g.now.requests, g.now.bytes, g.most.requests, g.most.bytes)
}

// report sets the gauges. g.mu is held, so that they are set in order.
func (g *gate) report() {
	g.metrics.inflight.Set(float64(g.now.requests))
	g.metrics.inflightBytes.Set(float64(g.now.bytes))
}

// RequestMemory is a good Options.MaxRequestBytes for a process that may use memory bytes in all. math.MaxInt64 means
// that it has no limit.
func RequestMemory(memory int64) int64 {
	const without, most = 512 << 20, 2 << 30
	if memory > 1<<60 {
		return without
	}
	return max(1<<20, min(memory/4, most))
}
