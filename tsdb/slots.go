package tsdb

import "context"

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

func (s slots) give() { <-s }
