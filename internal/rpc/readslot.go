package rpc

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// readSlot is one read's permission to work, see Store.Readers. A read releases it while it waits for its caller.
type readSlot struct {
	ctx  context.Context
	free *semaphore.Weighted // nil = no bound
	held bool
}

// readSlot returns the slot of one call, which does not hold it yet.
func (h *storeServer) readSlot(ctx context.Context) *readSlot {
	role := callerOf(ctx).role
	if role == "" && len(h.Sources) == 1 {
		role = h.roles()[0]
	}
	return &readSlot{ctx: ctx, free: h.readSlots[role]}
}

// acquire waits for the slot, in the order of the calls, as long as the call lasts.
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

// release lets another call work.
func (t *readSlot) release() {
	if t.held {
		t.held = false
		t.free.Release(1)
	}
}
