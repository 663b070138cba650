package receive

import (
	"context"
	"sync/atomic"
	"time"
)

// gate counts the writes that pass, and can be sealed for good. The zero value is open.
type gate struct {
	inside atomic.Int64  // writes under way
	passed atomic.Uint64 // writes that ended
	last   atomic.Int64  // when the last one ended, Unix ns; 0 none
	sealed atomic.Bool
}

// enter reports whether a write may go on; then it calls leave when it has ended.
func (g *gate) enter() bool {
	g.inside.Add(1)
	if g.sealed.Load() {
		g.inside.Add(-1)
		return false
	}
	return true
}

func (g *gate) leave() {
	g.last.Store(time.Now().UnixNano())
	g.passed.Add(1) // before inside falls: who saw nobody inside has seen all that passed
	g.inside.Add(-1)
}

// lastWrite is when the last write ended, zero when there was none.
func (g *gate) lastWrite() time.Time {
	ns := g.last.Load()
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// seal refuses all writes from now on and waits for those under way.
func (g *gate) seal(ctx context.Context) error {
	g.sealed.Store(true)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for g.inside.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
