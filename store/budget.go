package store

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// budget bounds the open requests: their number, the bytes that they hold, and how many of them read at once.
type budget struct {
	requests *memory.Gate
	bytes    *memory.Owner
	readers  *memory.Gate
	opts     Options
	metrics  *metrics
}

func newBudget(opts Options, m *metrics) *budget {
	return &budget{
		// Nobody waits to open a request: it could wait for another one of the same query.
		requests: memory.NewGate("requests to the store gateway", "on open requests", opts.MaxOpenRequests, 0),
		bytes:    opts.Memory.Owner("store", opts.MemoryWait),
		// All that open requests have to read may wait: there are as many readers as they have blocks.
		readers: memory.NewGate("reads of blocks", "on readers", opts.SeriesMaxConcurrency, math.MaxInt32),
		opts:    opts, metrics: m,
	}
}

// open admits a request of a tenant or refuses it at once.
func (b *budget) open(ctx context.Context, id tenant.ID) (*lease, error) {
	leave, err := b.requests.Enter(ctx, id)
	if err != nil {
		b.metrics.refused.WithLabelValues("open requests").Inc()
		return nil, err
	}
	b.metrics.openRequests.Inc()
	return &lease{budget: b, tenant: id, bytes: b.bytes.Open(id), leave: sync.OnceFunc(func() {
		leave()
		b.metrics.openRequests.Dec()
	})}, nil
}

// lease is the part of the budget that one request holds. It is safe for concurrent use.
type lease struct {
	budget *budget
	tenant tenant.ID
	bytes  *memory.Lease
	used   atomic.Int64 // towards Options.MaxRequestBytes
	series atomic.Int64 // towards Options.MaxRequestSeries
	chunks atomic.Int64 // towards Options.MaxRequestSamples
	leave  func()
}

// reading waits until this request may read; done lets the next one read. While a request may read it waits for nothing
// except the bucket and, for a bounded time, bytes.
func (l *lease) reading(ctx context.Context) (done func(), err error) {
	began := time.Now()
	leave, err := l.budget.readers.Enter(ctx, l.tenant)
	m := &l.budget.metrics.thanos
	m.gate.Observe(time.Since(began).Seconds())
	if err != nil {
		return nil, err
	}
	m.gateInFlight.Inc()
	return func() {
		m.gateInFlight.Dec()
		leave()
	}, nil
}

// take counts n bytes before they are read. Errors: Limited for the request's own limit, Exhausted for the process's.
func (l *lease) take(ctx context.Context, n int64) error {
	most := l.budget.opts.MaxRequestBytes
	if l.used.Add(n) > most {
		l.used.Add(-n)
		l.budget.metrics.refused.WithLabelValues("request bytes").Inc()
		return errs.E(errs.Limited, "the request reads more than %d bytes (the limit of bytes per request): "+
			"select fewer series or less time", most)
	}
	if err := l.bytes.Take(ctx, n); err != nil {
		l.used.Add(-n)
		l.budget.metrics.refused.WithLabelValues("process bytes").Inc()
		return err
	}
	return nil
}

// samplesPerChunk is what a chunk counts for in Options.MaxRequestSamples: Thanos counts so.
const samplesPerChunk = 120

// selects counts series and their chunks before the chunks are read. Errors are of kind Limited.
func (l *lease) selects(series, chunks int64) error {
	o := l.budget.opts
	if n := l.series.Add(series); o.MaxRequestSeries > 0 && n > o.MaxRequestSeries {
		l.budget.metrics.refused.WithLabelValues("request series").Inc()
		return errs.E(errs.Limited, "the request selects more than %d series (the limit of series per request): "+
			"select fewer series", o.MaxRequestSeries)
	}
	if n := l.chunks.Add(chunks) * samplesPerChunk; o.MaxRequestSamples > 0 && n > o.MaxRequestSamples {
		l.budget.metrics.refused.WithLabelValues("request samples").Inc()
		return errs.E(errs.Limited, "the request selects more than %d samples, at %d for each chunk (the limit of samples "+
			"per request): select fewer series or less time", o.MaxRequestSamples, samplesPerChunk)
	}
	return nil
}

// listStep is how many entries of a list are counted at a time.
const listStep = 256

// listed counts entry number n, from 0, of a list that grows, whose entries have size bytes. It is called before the
// entry is added.
func (l *lease) listed(ctx context.Context, n int, size int64) error {
	if n%listStep != 0 {
		return nil
	}
	return l.take(ctx, listStep*size)
}

// close gives everything back. It is idempotent. After it nobody may call take.
func (l *lease) close() {
	l.bytes.Close()
	l.leave()
}
