package memory

import (
	"context"
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Places bounds how many requests are worked on at a time, fairly among tenants. It is safe for concurrent use.
type Places struct {
	what, limit  string
	total, queue int

	mu      sync.Mutex // guards what follows
	used    int
	held    map[tenant.ID]int // places of each tenant that has any
	queued  map[tenant.ID]int // requests of each tenant in waiting
	waiting []*entrant        // the longest waiting first
}

// entrant is a request that waits for a place.
type entrant struct {
	id      tenant.ID
	granted chan struct{} // closed when it has the place
}

// NewPlaces makes total places for what (a noun for messages), a number that the flag or limit named limit sets. At most
// queue requests wait for one; 0 = none waits.
func NewPlaces(what, limit string, total, queue int) *Places {
	return &Places{what: what, limit: limit, total: total, queue: queue, held: map[tenant.ID]int{}, queued: map[tenant.ID]int{}}
}

// Enter takes a place for a request of a tenant; leave gives it back, and is idempotent. Errors: Exhausted when too many
// wait already, Unavailable when ctx ends first.
func (p *Places) Enter(ctx context.Context, id tenant.ID) (leave func(), err error) {
	p.mu.Lock()
	if p.queued[id] == 0 && PerTenant.DecideEntry(int64(p.held[id]), int64(p.used), int64(p.total)) == Granted {
		p.takeLocked(id)
		p.mu.Unlock()
		return p.leave(id), nil
	}
	if PerTenant.DecideEntry(int64(p.queued[id]), int64(len(p.waiting)), int64(p.queue)) != Granted {
		defer p.mu.Unlock()
		return nil, errs.WithRetryAfter(errs.E(errs.Exhausted, "tenant %s: %d of its %s are worked on here and %d wait, of %d and %d in all: try again (limit %s)",
			id, p.held[id], p.what, p.queued[id], p.total, p.queue, p.limit), retryAfter)
	}
	e := &entrant{id, make(chan struct{})}
	p.waiting = append(p.waiting, e)
	p.queued[id]++
	p.mu.Unlock()
	select {
	case <-e.granted:
		return p.leave(id), nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-e.granted: // in the meantime
		return p.leave(id), nil
	default:
	}
	p.waiting = slices.DeleteFunc(p.waiting, func(o *entrant) bool { return o == e })
	p.dequeueLocked(id)
	return nil, errs.E(errs.Unavailable, "tenant %s: waited for one of %d places for %s (limit %s): %w", id, p.total, p.what, p.limit, ctx.Err())
}

// Used is how many places are taken.
func (p *Places) Used() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

func (p *Places) takeLocked(id tenant.ID) {
	p.used++
	p.held[id]++
}

func (p *Places) dequeueLocked(id tenant.ID) {
	if p.queued[id]--; p.queued[id] == 0 {
		delete(p.queued, id)
	}
}

func (p *Places) leave(id tenant.ID) func() {
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.used--
		if p.held[id]--; p.held[id] == 0 {
			delete(p.held, id)
		}
		for p.wakeLocked() {
		}
	})
}

// wakeLocked gives a free place to the tenant that holds the fewest, and of its requests to the one that waits longest.
func (p *Places) wakeLocked() bool {
	next := -1
	for i, e := range p.waiting {
		if next >= 0 && p.held[e.id] >= p.held[p.waiting[next].id] {
			continue
		}
		if PerTenant.DecideEntry(int64(p.held[e.id]), int64(p.used), int64(p.total)) == Granted {
			next = i
		}
	}
	if next < 0 {
		return false
	}
	e := p.waiting[next]
	p.waiting = slices.Delete(p.waiting, next, next+1)
	p.dequeueLocked(e.id)
	p.takeLocked(e.id)
	close(e.granted)
	return true
}
