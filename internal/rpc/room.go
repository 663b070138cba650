package rpc

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// room is memory that requests share. Who finds none waits, in the order of coming.
type room struct {
	free *semaphore.Weighted
	all  int64
	line *semaphore.Weighted // bytes of those who wait in line
}

func newRoom(bytes int64) room {
	return room{semaphore.NewWeighted(bytes), bytes, semaphore.NewWeighted(bytes)}
}

// reserved is room that was taken. It belongs to one goroutine at a time.
type reserved struct {
	from  *semaphore.Weighted
	bytes int64
}

// atMost is how much of the room a message asks for before it is decoded, of the most that it may become: not more than half
// of all, so that one large message does not wait until there is no other.
func (r room) atMost(bytes int64) int64 { return min(bytes, max(r.all/2, 1)) }

// take waits for bytes, or for all there is if that is less.
func (r room) take(ctx context.Context, bytes int64) (*reserved, error) {
	bytes = min(bytes, r.all)
	if err := r.free.Acquire(ctx, bytes); err != nil {
		return nil, errs.E(errs.Exhausted, "no room for a write of %d bytes, of %d for all: %w", bytes, r.all, err)
	}
	return &reserved{r.free, bytes}, nil
}

// maxInLine is how long a call that came whole waits for room.
const maxInLine = 10 * time.Second

// takeInLine is take for a call that holds message bytes while it waits. It waits no longer than maxInLine, and not at all
// when those who wait hold as much as there is room already: the error is Unavailable, and the sender comes again.
func (r room) takeInLine(ctx context.Context, bytes, message int64) (*reserved, error) {
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
func (r *reserved) keep(bytes int64) {
	if more := r.bytes - bytes; more > 0 {
		r.bytes = bytes
		r.from.Release(more)
	}
}

// more takes bytes beyond those that were taken, if they are free at once.
func (r *reserved) more(bytes int64) bool {
	if !r.from.TryAcquire(bytes) {
		return false
	}
	r.bytes += bytes
	return true
}

// release gives back what is left. A nil one has nothing.
func (r *reserved) release() {
	if r != nil {
		r.keep(0)
	}
}
