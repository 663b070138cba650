package tsdb

import (
	"context"
	"runtime"
)

// slots bound how many do something at a time. With one of them they are a lock that can be waited for with a context.
// Nobody waits for a reader, a writer or a peer while holding one that others need.
type slots chan struct{}

func (s slots) take(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slots) tryTake() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// give lets go of one. A goroutine that has waited for it has it from then on, and runs at once. Until it did, nobody
// would use what it has, which is half of the throughput where many wait (BenchmarkSlots).
func (s slots) give() {
	<-s
	if len(s) == cap(s) {
		runtime.Gosched()
	}
}
