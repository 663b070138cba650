package rpc

import (
	"context"

	"golang.org/x/sync/semaphore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// room is memory that requests share. Who finds none waits, in the order of coming.
type room struct {
	free *semaphore.Weighted
	all  int64
}

func newRoom(bytes int64) room { return room{semaphore.NewWeighted(bytes), bytes} }

// take waits for bytes, or for all there is if that is less. What it returns gives them back.
func (r room) take(ctx context.Context, bytes int64) (release func(), err error) {
	bytes = min(bytes, r.all)
	if err := r.free.Acquire(ctx, bytes); err != nil {
		return nil, errs.E(errs.Exhausted, "no room for a write of %d bytes, of %d for all: %w", bytes, r.all, err)
	}
	return func() { r.free.Release(bytes) }, nil
}
