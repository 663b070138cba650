package query

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/hearth-metrics/hearth/internal/series"
)

// Endpoint is something to query.
type Endpoint struct {
	// Name is how people know it: the address, or the instance id. It is unique among endpoints.
	Name   string
	Source series.Source
	// Local says that it is in this process: calls are cheap and start at once.
	Local bool
	// Known is what discovery knows of it before it has answered: Instance, Role, Bucket. Zero when nothing.
	Known series.Info
}

// Querier queries its endpoints as one. It is a series.Source, a storage.Queryable for an engine, and an HTTP API.
type Querier struct {
	log       *slog.Logger
	m         *metrics
	opts      Options
	endpoints func() []Endpoint
	now       func() time.Time
	engine    *promql.Engine
	parser    parser.Parser
	api       api

	view  atomic.Pointer[view] // replaced whole by the poller; a query uses the one it loaded at its start
	stop  context.CancelFunc
	wg    sync.WaitGroup // the poller
	start time.Time
}

// New returns a Querier over whatever endpoints returns at the moment; it is called once a second and must be cheap.
func New(log *slog.Logger, reg prometheus.Registerer, endpoints func() []Endpoint, opts Options) (*Querier, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	q := &Querier{log: log, m: newMetrics(reg), opts: opts, endpoints: endpoints, now: opts.Now}
	if q.now == nil {
		q.now = time.Now
	}
	q.parser = parser.NewParser(parser.Options{})
	q.engine = promql.NewEngine(promql.EngineOpts{
		Logger: log, Reg: reg, Parser: q.parser,
		MaxSamples: opts.MaxSamples, Timeout: opts.Timeout, LookbackDelta: opts.LookbackDelta,
		ActiveQueryTracker:   newTracker(opts.MaxConcurrent),
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 {
			return time.Minute.Milliseconds()
		},
	})
	q.view.Store(newView(nil))
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

// tracker bounds the queries that run at a time. It implements promql.QueryTracker.
type tracker chan struct{}

func newTracker(n int) tracker { return make(tracker, n) }

func (t tracker) GetMaxConcurrent() int { return cap(t) }
func (t tracker) Delete(int)            { <-t }
func (t tracker) Close() error          { return nil }

func (t tracker) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case t <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
