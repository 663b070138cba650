package memory

import (
	"context"
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Gate bounds how many requests are worked on at a time, fairly among tenants. It is safe for concurrent use.
type Gate struct {
	what, limit  string
	total, queue int

	mu      sync.Mutex // guards what follows
	used    int
	held    map[tenant.ID]int // requests inside, of each tenant that has any
	queued  map[tenant.ID]int // requests in waiting, of each tenant that has any
	waiting []*queued         // the longest waiting first
}

// queued is a request that waits.
type queued struct {
	id      tenant.ID
	entered chan struct{} // closed when the request may go on
}

// NewGate makes a gate that lets total requests in at a time, and at most queue wait (0 = a request that cannot enter
// is refused at once). Messages call the requests what (a noun), and limit is the name of the flag or limit that sets
// total.
func NewGate(what, limit string, total, queue int) *Gate {
	return &Gate{
		what: what, limit: limit, total: total, queue: queue, held: map[tenant.ID]int{}, queued: map[tenant.ID]int{},
	}
}

// Enter lets a request of a tenant in, or waits until it may. The caller calls leave when the request is done; a second
// call of leave does nothing. Errors: Exhausted when too many wait already, Unavailable when ctx ends first.
func (g *Gate) Enter(ctx context.Context, id tenant.ID) (leave func(), err error) {
	g.mu.Lock()
	if g.queued[id] == 0 && PerTenant.DecideEntry(int64(g.held[id]), int64(g.used), int64(g.total)) == Granted {
		g.takeLocked(id)
		g.mu.Unlock()
		return g.leave(id), nil
	}
	if PerTenant.DecideEntry(int64(g.queued[id]), int64(len(g.waiting)), int64(g.queue)) != Granted {
		defer g.mu.Unlock()
		return nil, errs.WithRetryAfter(errs.E(errs.Exhausted,
			"tenant %s: %d of its %s are worked on here and %d wait, of %d and %d in all: try again (limit %s)",
			id, g.held[id], g.what, g.queued[id], g.total, g.queue, g.limit), retryAfter)
	}
	e := &queued{id, make(chan struct{})}
	g.waiting = append(g.waiting, e)
	g.queued[id]++
	g.mu.Unlock()
	select {
	case <-e.entered:
		return g.leave(id), nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-e.entered: // just before the lock was taken
		return g.leave(id), nil
	default:
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(o *queued) bool { return o == e })
	g.dequeueLocked(id)
	return nil, errs.E(errs.Unavailable, "tenant %s: waited for one of %d places for %s (limit %s): %w",
		id, g.total, g.what, g.limit, ctx.Err())
}

// Used is how many requests are inside.
func (g *Gate) Used() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used
}

func (g *Gate) takeLocked(id tenant.ID) {
	g.used++
	g.held[id]++
}

func (g *Gate) dequeueLocked(id tenant.ID) {
	if g.queued[id]--; g.queued[id] == 0 {
		delete(g.queued, id)
	}
}

func (g *Gate) leave(id tenant.ID) func() {
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.used--
		if g.held[id]--; g.held[id] == 0 {
			delete(g.held, id)
		}
		for g.wakeLocked() {
		}
	})
}

// wakeLocked lets one request in, if it may: of the tenant that has the fewest inside, the request that waits longest.
func (g *Gate) wakeLocked() bool {
	next := -1
	for i, e := range g.waiting {
		if next >= 0 && g.held[e.id] >= g.held[g.waiting[next].id] {
			continue
		}
		if PerTenant.DecideEntry(int64(g.held[e.id]), int64(g.used), int64(g.total)) == Granted {
			next = i
		}
	}
	if next < 0 {
		return false
	}
	e := g.waiting[next]
	g.waiting = slices.Delete(g.waiting, next, next+1)
	g.dequeueLocked(e.id)
	g.takeLocked(e.id)
	close(e.entered)
	return true
}
