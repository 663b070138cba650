package receive

import (
	"context"
	"sync/atomic"
	"time"
)

// seal counts the writes, and can be closed for good. The zero value is open.
type seal struct {
	inside atomic.Int64  // writes under way
	passed atomic.Uint64 // writes that ended
	last   atomic.Int64  // when the last one ended, Unix ns; 0 none
	closed atomic.Bool
}

// enter reports whether a write may go on; then it calls leave when it has ended.
func (g *seal) enter() bool {
	g.inside.Add(1)
	if g.closed.Load() {
		g.inside.Add(-1)
		return false
	}
	return true
}

func (g *seal) leave() {
	g.last.Store(time.Now().UnixNano())
	g.passed.Add(1) // before inside falls: whoever sees no write under way has seen all that ended
	g.inside.Add(-1)
}

// lastWrite is when the last write ended, zero when there was none.
func (g *seal) lastWrite() time.Time {
	ns := g.last.Load()
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// close refuses all writes from now on and waits for those under way.
func (g *seal) close(ctx context.Context) error {
	g.closed.Store(true)
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
