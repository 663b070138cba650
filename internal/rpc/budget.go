package rpc

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// budget is memory that requests share. Requests that need more than is free wait, in the order in which they came.
// Once the tenant of a request is known, its memory counts as that tenant's, and no tenant gets more than its part.
type budget struct {
	free         *semaphore.Weighted
	all          int64
	line         *semaphore.Weighted // bytes of those who wait in line
	decoding     int64               // bytes that tenants leave free, so that further messages can be decoded
	tenantMemory *tenantMemory
}

// newBudget returns a budget of the given bytes, divided into equal parts. One part is left free for decoding.
func newBudget(bytes, parts int64) budget {
	decoding := max(bytes/parts, 1)
	return budget{
		free: semaphore.NewWeighted(bytes), all: bytes, line: semaphore.NewWeighted(bytes),
		decoding: decoding, tenantMemory: newTenantMemory(bytes - decoding),
	}
}

// A frame takes little more when it is decoded than it did before, and a RemoteWrite message several times as much.
const (
	streamParts = 4
	remoteParts = 2
)

// reservation is memory that was taken from a budget. It belongs to one goroutine at a time.
type reservation struct {
	from  *semaphore.Weighted
	bytes int64

	tenantMemory *tenantMemory
	id           tenant.ID // of the tenant as whose memory claimed bytes count
	claimed      int64
}

// atMost bounds what a message reserves before it is decoded, given the most that it may become. It is not more than
// tenants leave free, so that a tenant whose writes hang does not keep other messages from being decoded.
func (r budget) atMost(bytes int64) int64 { return min(bytes, r.decoding) }

// take waits for bytes, or for all there is if that is less.
func (r budget) take(ctx context.Context, bytes int64) (*reservation, error) {
	bytes = min(bytes, r.all)
	if err := r.free.Acquire(ctx, bytes); err != nil {
		return nil, errs.E(errs.Exhausted, "no memory free for a write of %d bytes, of %d for all: %w", bytes, r.all, err)
	}
	return &reservation{from: r.free, bytes: bytes, tenantMemory: r.tenantMemory}, nil
}

// maxInLine is how long a call whose message has come as a whole waits for memory.
const maxInLine = 10 * time.Second

// takeInLine is take for a call that holds message bytes while it waits. It waits no longer than maxInLine, and not at
// all when the waiting calls hold as much as the budget already: the error is Unavailable, and the sender tries again.
func (r budget) takeInLine(ctx context.Context, bytes, message int64) (*reservation, error) {
	bytes, message = min(bytes, r.all), min(message, r.all)
	if !r.line.TryAcquire(message) {
		return nil, errs.E(errs.Unavailable,
			"the writes that wait for memory have %d bytes already: too many at a time", r.all)
	}
	defer r.line.Release(message)
	ctx, cancel := context.WithTimeout(ctx, maxInLine)
	defer cancel()
	g, err := r.take(ctx, bytes)
	if err != nil {
		return nil, errs.E(errs.Unavailable, "%w", err)
	}
	return g, nil
}

// keep keeps the given bytes and gives back the rest. It changes nothing when less than that was taken.
func (r *reservation) keep(bytes int64) {
	if more := r.bytes - bytes; more > 0 {
		r.bytes = bytes
		r.from.Release(more)
	}
}

// more takes bytes beyond those that were taken, if they are free at once.
func (r *reservation) more(bytes int64) bool {
	if !r.from.TryAcquire(bytes) {
		return false
	}
	r.bytes += bytes
	return true
}

// claim counts the reservation as the tenant's. It fails when the tenant's writes hang and use its whole part already.
func (r *reservation) claim(ctx context.Context, id tenant.ID) error {
	n, err := r.tenantMemory.claim(ctx, id, r.bytes)
	r.id, r.claimed = id, n
	return err
}

// disclaim ends claim, which may then be called for another tenant.
func (r *reservation) disclaim() {
	if r.claimed > 0 {
		r.tenantMemory.giveBack(r.id, r.claimed)
		r.claimed = 0
	}
}

// release gives everything back. A nil reservation has nothing.
func (r *reservation) release() {
	if r != nil {
		r.disclaim()
		r.keep(0)
	}
}
