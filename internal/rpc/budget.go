package rpc

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// room is memory that requests share. A request that finds none waits, in the order of coming. Once it is known whose
// request it is, the memory is counted as its tenant's, and tenants get no more than their shares.
type budget struct {
	free         *semaphore.Weighted
	all          int64
	line         *semaphore.Weighted // bytes of those who wait in line
	decoding     int64               // bytes that tenants leave free, so that further messages can be decoded
	tenantMemory *tenantMemory
}

// newRoom makes room of the given size. Of its parts, which are equal, one is left free for decoding.
func newBudget(bytes, parts int64) budget {
	decoding := max(bytes/parts, 1)
	return budget{semaphore.NewWeighted(bytes), bytes, semaphore.NewWeighted(bytes), decoding, newTenantMemory(bytes - decoding)}
}

// A frame takes little more when it is decoded than it did before, and a RemoteWrite message several times as much.
const (
	streamParts = 4
	remoteParts = 2
)

// reserved is room that was taken. It belongs to one goroutine at a time.
type reservation struct {
	from  *semaphore.Weighted
	bytes int64

	tenantMemory *tenantMemory
	id           tenant.ID // of the tenant whose share counts share bytes of it
	claimed      int64
}

// atMost is how much of the room a message asks for before it is decoded, of the most that it may become: not more than
// tenants leave free, so that a tenant whose writes hang keeps no message from being decoded.
func (r budget) atMost(bytes int64) int64 { return min(bytes, r.decoding) }

// take waits for bytes, or for all there is if that is less.
func (r budget) take(ctx context.Context, bytes int64) (*reservation, error) {
	bytes = min(bytes, r.all)
	if err := r.free.Acquire(ctx, bytes); err != nil {
		return nil, errs.E(errs.Exhausted, "no room for a write of %d bytes, of %d for all: %w", bytes, r.all, err)
	}
	return &reservation{from: r.free, bytes: bytes, tenantMemory: r.tenantMemory}, nil
}

// maxInLine is how long a call that came whole waits for room.
const maxInLine = 10 * time.Second

// takeInLine is take for a call that holds message bytes while it waits. It waits no longer than maxInLine, and not at all
// when those who wait hold as much as there is room already: the error is Unavailable, and the sender comes again.
func (r budget) takeInLine(ctx context.Context, bytes, message int64) (*reservation, error) {
	bytes, message = min(bytes, r.all), min(message, r.all)
	if !r.line.TryAcquire(message) {
		return nil, errs.E(errs.Unavailable, "the writes that wait for room have %d bytes already: too many at a time", r.all)
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

// keep gives back all but bytes, which is less than was taken, or else changes nothing.
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

// claim counts what is left as the tenant's. The error is that the tenant's writes hang here and have its share already.
func (r *reservation) claim(ctx context.Context, id tenant.ID) error {
	n, err := r.tenantMemory.claim(ctx, id, r.bytes)
	r.id, r.claimed = id, n
	return err
}

// disclaim ends claim, which may be called for another tenant then.
func (r *reservation) disclaim() {
	if r.claimed > 0 {
		r.tenantMemory.giveBack(r.id, r.claimed)
		r.claimed = 0
	}
}

// release gives back what is left. A nil one has nothing.
func (r *reservation) release() {
	if r != nil {
		r.disclaim()
		r.keep(0)
	}
}
