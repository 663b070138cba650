package query

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
)

// Endpoint is something to query.
type Endpoint struct {
	// Name is its name for people: the address, or the instance id. It is unique among endpoints.
	Name   string
	Source series.Source
	// Local says that it is in this process: calls are cheap and start at once.
	Local bool
	// Known is what discovery knows of it before it has answered: Instance, Role, Bucket. Zero = nothing is known.
	Known series.Info
}

// Querier queries its endpoints as one. It is a series.Source, a storage.Queryable for an engine, and an HTTP API.
type Querier struct {
	log       *slog.Logger
	m         *metrics
	opts      Options
	endpoints func() []Endpoint
	now       func() time.Time
	engine    *engine
	parser    expr.Parser
	reads     *memory.Gate  // remote reads
	lookups   *memory.Gate  // requests that are neither a query nor a remote read
	selects   *memory.Owner // memory of selections: what sources sent
	answers   *memory.Owner // memory of remote reads: their answers
	api       api

	snapshot atomic.Pointer[snapshot] // replaced whole by the poller; a query uses the one it loaded at its start
	stop     context.CancelFunc
	wg       sync.WaitGroup // the poller
	start    time.Time
}

// waitingPerPlace is how many requests may wait at a gate for each request that it lets run.
const waitingPerPlace = 50

// New returns a Querier over the endpoints that the function endpoints returns. That function is called once a second
// and for each selection, and must be cheap. reg may be nil. Nothing is asked before Open.
func New(log *slog.Logger, reg prometheus.Registerer, endpoints func() []Endpoint, opts Options) (*Querier, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	q := &Querier{log: log, m: newMetrics(reg), opts: opts, endpoints: endpoints, now: opts.Now}
	if q.now == nil {
		q.now = time.Now
	}
	if opts.Memory == nil {
		opts.Memory = memory.NewBudget(reg, "of the querier", DefaultMemory)
	}
	q.opts = opts
	q.parser = expr.New(opts.MaxExpressionBytes)
	q.engine = newEngine(log, reg, q.m, q.parser, opts)
	q.engine.params = q.paramsFrom
	q.reads = memory.NewGate("remote reads", "on remote reads", remoteReadConcurrency,
		waitingPerPlace*remoteReadConcurrency)
	q.lookups = memory.NewGate("lookups", "--query.max-concurrent", opts.MaxConcurrent, waitingPerPlace*opts.MaxConcurrent)
	q.selects, q.answers = opts.Memory.Owner("select", 0), opts.Memory.Owner("read", 0)
	q.snapshot.Store(newSnapshot(nil))
	return q, nil
}

// Open asks all endpoints once, so that the first query knows them, and starts to poll.
func (q *Querier) Open(ctx context.Context, _ func(error)) error {
	q.start = q.now()
	q.poll(ctx)
	ctx, q.stop = context.WithCancel(context.Background())
	q.wg.Go(func() { q.run(ctx) })
	return nil
}

// Close stops polling. Queries in flight go on.
func (q *Querier) Close() error {
	if q.stop != nil {
		q.stop()
	}
	q.wg.Wait()
	return nil
}
