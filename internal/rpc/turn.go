package rpc

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// turn is one read's permission to work, see Store.Readers. A read that waits for its caller to take what it has sent
// does without.
type turn struct {
	ctx  context.Context
	free *semaphore.Weighted // nil = no bound
	held bool
}

// turn is that of one call, which begins without.
func (h *storeServer) turn(ctx context.Context) *turn {
	role := callerOf(ctx).role
	if role == "" && len(h.Sources) == 1 {
		role = h.roles()[0]
	}
	return &turn{ctx: ctx, free: h.turns[role]}
}

// take waits for the turn, in the order of coming, as long as the call lasts.
func (t *turn) take() error {
	if t.free == nil {
		return nil
	}
	if err := t.free.Acquire(t.ctx, 1); err != nil {
		return err
	}
	t.held = true
	return nil
}

// give lets another call work.
func (t *turn) give() {
	if t.held {
		t.held = false
		t.free.Release(1)
	}
}
