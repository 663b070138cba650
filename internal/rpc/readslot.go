package rpc

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// turn is one read's permission to work, see Store.Readers. A read that waits for its caller to take what it has sent
// does without.
type readSlot struct {
	ctx  context.Context
	free *semaphore.Weighted // nil = no bound
	held bool
}

// turn is that of one call, which begins without.
func (h *storeServer) readSlot(ctx context.Context) *readSlot {
	role := callerOf(ctx).role
	if role == "" && len(h.Sources) == 1 {
		role = h.roles()[0]
	}
	return &readSlot{ctx: ctx, free: h.readSlots[role]}
}

// take waits for the turn, in the order of coming, as long as the call lasts.
func (t *readSlot) acquire() error {
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
func (t *readSlot) release() {
	if t.held {
		t.held = false
		t.free.Release(1)
	}
}
