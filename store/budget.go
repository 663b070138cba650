package store

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// budget bounds what all open requests hold: how many they are, how many bytes, how many read at once.
type budget struct {
	requests *semaphore.Weighted
	bytes    *semaphore.Weighted
	readers  *semaphore.Weighted
	opts     Options
	metrics  *metrics
}

func newBudget(opts Options, m *metrics) *budget {
	return &budget{
		requests: semaphore.NewWeighted(int64(opts.MaxOpenRequests)), bytes: semaphore.NewWeighted(opts.MaxBytes),
		readers: semaphore.NewWeighted(int64(opts.SeriesMaxConcurrency)), opts: opts, metrics: m,
	}
}

// open admits a request or refuses it at once: waiting here could wait for a request of the same query.
func (b *budget) open() (*lease, error) {
	if !b.requests.TryAcquire(1) {
		b.metrics.refused.WithLabelValues("open requests").Inc()
		return nil, errs.E(errs.Exhausted, "store gateway: %d requests are open already (the limit of open requests)", b.opts.MaxOpenRequests)
	}
	b.metrics.openRequests.Inc()
	return &lease{budget: b}, nil
}

// reading waits for a place among those who read; done gives it back. Nobody waits for anything else while he has one
// but the bucket and, for a bounded time, bytes.
func (b *budget) reading(ctx context.Context) (done func(), err error) {
	if err := b.readers.Acquire(ctx, 1); err != nil {
		return nil, errs.E(errs.Unavailable, "store gateway: waiting to read: %w", err)
	}
	return func() { b.readers.Release(1) }, nil
}

// lease is what one request holds. It is safe for concurrent use.
type lease struct {
	budget *budget

	mu     sync.Mutex // guards used, closed
	used   int64
	closed bool
}

// take counts n bytes before they are read. Errors: Limited for the request's own limit, Exhausted for the process's.
func (l *lease) take(ctx context.Context, n int64) error {
	opts := l.budget.opts
	l.mu.Lock()
	over := l.used+n > opts.MaxRequestBytes
	if !over {
		l.used += n
	}
	l.mu.Unlock()
	if over {
		l.budget.metrics.refused.WithLabelValues("request bytes").Inc()
		return errs.E(errs.Limited, "the request reads more than %d bytes (the limit of bytes per request): select fewer series or less time",
			opts.MaxRequestBytes)
	}
	if err := l.wait(ctx, n); err != nil {
		l.mu.Lock()
		l.used -= n
		l.mu.Unlock()
		return err
	}
	l.budget.metrics.bytesHeld.Add(float64(n))
	return nil
}

func (l *lease) wait(ctx context.Context, n int64) error {
	b := l.budget
	if b.bytes.TryAcquire(n) {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, b.opts.MaxBytesWait)
	defer cancel()
	if b.bytes.Acquire(within, n) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return errs.E(errs.Unavailable, "store gateway: waiting for memory: %w", err)
	}
	b.metrics.refused.WithLabelValues("process bytes").Inc()
	return errs.WithRetryAfter(errs.E(errs.Exhausted, "store gateway: open requests hold all of %d bytes (the limit of bytes of all requests)",
		b.opts.MaxBytes), time.Second)
}

// close gives everything back. It is idempotent; nobody may take afterwards.
func (l *lease) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	l.budget.bytes.Release(l.used)
	l.budget.metrics.bytesHeld.Sub(float64(l.used))
	l.budget.requests.Release(1)
	l.budget.metrics.openRequests.Dec()
}
