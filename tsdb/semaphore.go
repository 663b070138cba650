package tsdb

import (
	"context"
	"runtime"
)

// semaphore bounds how many do something at a time. With a capacity of one it is a lock that can be waited for with a
// context. Nobody waits for a reader, a writer or a peer while holding one that others need.
type semaphore chan struct{}

func (s semaphore) take(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s semaphore) tryTake() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// give gives back what was taken. If a goroutine waited for it, that one has it now, and give lets it run at once:
// until it runs nobody uses what it has, which costs half of the throughput where many wait (BenchmarkSemaphore).
func (s semaphore) give() {
	<-s
	if len(s) == cap(s) {
		runtime.Gosched()
	}
}
