package query

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// What a query takes in memory, in bytes (docs/design/011).
const (
	// sampleBytes is for each sample. A sample has 16 bytes, and is in three places: in a slice that grows, in the window
	// of a range function, and in the argument of that function.
	sampleBytes = 64
	// resultBytes is for each sample of the result: 16 bytes, and its text in a buffer that grows.
	resultBytes = 128
	// stepBytes is for each step of a subquery: 16 bytes for what the engine counts, and 36 for a point of one series. A
	// range function makes these points in a slice that grows, and only then compares them with the allowance.
	stepBytes = 16 + 36
)

const (
	// steps is how many times larger each allowance is than the one before. A query that needs the largest allowance
	// wastes an eighth of its work in attempts that fail.
	steps = 8
	// leastAllowance is the smallest number of samples that is worth an attempt.
	leastAllowance = 10_000
	// selectShare: one part in selectShare of what a request may hold is kept for its selections.
	selectShare = 8
	// firstShare: a query begins with at most one part in firstShare of the free memory. The more is free, the fewer
	// attempts it needs. Where nothing else runs, that part is enough for the second largest allowance.
	firstShare = 8
)

// engine runs queries in Prometheus's engine. That engine bounds the samples of a query by a number that is fixed when
// the engine is made, and does not say how many samples a query holds. So there is one engine for each of a few
// allowances. A query reserves the memory for an allowance and runs in its engine. If it needs more, it gives the
// memory back and runs again with the next larger allowance.
type engine struct {
	places  *memory.Gate
	owner   *memory.Owner
	free    func() int64
	limit   int // Options.MaxSamples
	timeout time.Duration
	levels  []level // the smallest allowance first
	most    int64   // bytes that a query may reserve
	make    func(samples int, reg prometheus.Registerer) promql.QueryEngine
	params  func(context.Context) *params
	m       *metrics
}

// mostLabelBytes bounds the bytes of labels that are reserved for each sample. No query can hold that many, and with
// the bound the sum does not overflow.
const mostLabelBytes = 1 << 30

// maxVisits bounds expr.Work.Visits. That many take some seconds, or a minute where each window is sorted. The engine
// looks whether a query has timed out, or its client is gone, only after them.
const maxVisits = 1 << 29

// subqueryStep is the step of subqueries that name none.
const subqueryStep = time.Minute

// level is an engine and its allowance: how many samples a query in it may hold.
type level struct {
	samples int
	engine  promql.QueryEngine
}

var _ promql.QueryEngine = (*engine)(nil)

// allowances are how many samples queries may hold, the smallest first. The largest is limit, or as many samples as fit
// most bytes if those are fewer.
func allowances(limit int, most int64) []int {
	top := int(min(int64(limit), most/sampleBytes))
	out := []int{max(1, top)}
	for n := top / steps; n >= leastAllowance; n /= steps {
		out = append(out, n)
	}
	slices.Reverse(out)
	return out
}

func newEngine(log *slog.Logger, reg prometheus.Registerer, m *metrics, parser expr.Parser, opts Options) *engine {
	e := &engine{
		places: memory.NewGate("queries", "--query.max-concurrent", opts.MaxConcurrent, waitingPerPlace*opts.MaxConcurrent),
		owner:  opts.Memory.Owner("engine", opts.MemoryWait), free: opts.Memory.Free,
		limit: opts.MaxSamples, timeout: opts.Timeout, m: m,
	}
	most := memory.PerTenant.Most(opts.Memory.Total())
	e.most = most - most/selectShare
	e.make = func(samples int, reg prometheus.Registerer) promql.QueryEngine {
		return promql.NewEngine(promql.EngineOpts{
			Logger: log, Reg: wrapped(reg, samples), Parser: parser,
			MaxSamples: samples, Timeout: opts.Timeout, LookbackDelta: opts.LookbackDelta,
			EnableAtModifier:     true,
			EnableNegativeOffset: true,
			NoStepSubqueryIntervalFn: func(int64) int64 {
				return subqueryStep.Milliseconds()
			},
		})
	}
	for _, n := range allowances(opts.MaxSamples, e.most) {
		e.levels = append(e.levels, level{n, e.make(n, reg)})
	}
	return e
}

// wrapped gives the metrics of each engine a label, since all engines have the same metrics.
func wrapped(reg prometheus.Registerer, samples int) prometheus.Registerer {
	if reg == nil {
		return nil
	}
	return prometheus.WrapRegistererWith(prometheus.Labels{"max_samples": strconv.Itoa(samples)}, reg)
}

// NewInstantQuery implements promql.QueryEngine.
func (e *engine) NewInstantQuery(ctx context.Context, from storage.Queryable, opts promql.QueryOpts, text string,
	at time.Time) (promql.Query, error) {
	return e.query(ctx, func(in promql.QueryEngine) (promql.Query, error) {
		return in.NewInstantQuery(ctx, from, opts, text, at)
	})
}

// NewRangeQuery implements promql.QueryEngine.
func (e *engine) NewRangeQuery(ctx context.Context, from storage.Queryable, opts promql.QueryOpts, text string,
	start, end time.Time, step time.Duration) (promql.Query, error) {
	return e.query(ctx, func(in promql.QueryEngine) (promql.Query, error) {
		return in.NewRangeQuery(ctx, from, opts, text, start, end, step)
	})
}

func (e *engine) query(ctx context.Context,
	prepare func(promql.QueryEngine) (promql.Query, error)) (promql.Query, error) {
	q := &boundedQuery{e: e, prepare: prepare, params: e.params(ctx)}
	if err := q.prepareFor(e.levels[0].engine); err != nil {
		return nil, err
	}
	if err := expr.CheckSteps(q.Statement()); err != nil {
		q.Query.Close()
		return nil, err
	}
	q.work = expr.WorkOf(q.Statement(), subqueryStep)
	q.each = sampleBytes + min(int64(expr.LabelBytes(q.Statement())), mostLabelBytes)
	return q, nil
}

// prepareFor prepares the query to run in the engine in.
func (q *boundedQuery) prepareFor(in promql.QueryEngine) error {
	next, err := q.prepare(in)
	if err != nil {
		return err
	}
	if q.Query != nil {
		q.Query.Close()
	}
	q.Query, q.selectors = next, newSelectors(next, q.params)
	return nil
}

// levelsFor are the levels whose memory a query can reserve. A query whose samples take more than sampleBytes each gets
// an engine of its own in place of the first level that is too large, so that it can use as much memory as other
// queries.
func (e *engine) levelsFor(q *boundedQuery) []level {
	for i, l := range e.levels {
		if q.need(l.samples) <= e.most {
			continue
		}
		n := int(min(e.most, 2*(e.most-q.work.Steps*stepBytes)) / q.each)
		if i == 0 || n <= e.levels[i-1].samples {
			return e.levels[:max(1, i)] // even a level that is too large: its error says how much the query needs
		}
		return append(e.levels[:i:i], level{n, e.make(n, nil)})
	}
	return e.levels
}

// boundedQuery is a query that holds memory from Exec to Close.
type boundedQuery struct {
	promql.Query // of the last attempt
	e            *engine
	prepare      func(promql.QueryEngine) (promql.Query, error)
	params       *params
	selectors    *selectors // of the last attempt
	each         int64      // bytes for each sample
	work         expr.Work
	levels       []level // that it may use; set by Exec

	mu     sync.Mutex // guards what follows
	cancel context.CancelFunc
	lease  *memory.Lease
	closed bool
}

// begin opens the lease of a query. The context returned ends after the timeout, or with Cancel.
func (q *boundedQuery) begin(ctx context.Context, id tenant.ID) (context.Context, *memory.Lease) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lease = q.e.owner.Open(id)
	if p := givenParams(ctx); p != nil {
		p.request = q.lease
	}
	ctx, q.cancel = context.WithTimeout(ctx, q.e.timeout)
	return ctx, q.lease
}

// Exec implements promql.Query. Errors of this process are of kind Limited when the query needs more memory than one
// query may hold, and Exhausted when other requests hold it.
func (q *boundedQuery) Exec(ctx context.Context) *promql.Result {
	id := chargedTenant(ctx)
	ctx, lease := q.begin(ctx, id)
	defer q.Cancel()
	if q.work.Steps > int64(q.e.limit) {
		return failed(ctx, errs.E(errs.Limited,
			"tenant %s: the subqueries of the query have %d steps, and may have %d (limit --query.max-samples)",
			id, q.work.Steps, q.e.limit))
	}
	if q.work.Visits > maxVisits {
		return failed(ctx, errs.E(errs.Limited,
			"tenant %s: the query looks at %d samples of each series of its subqueries, window by window, "+
				"and may look at %d (limit on the work for one series)",
			id, q.work.Visits, maxVisits))
	}
	began := time.Now()
	leave, err := q.e.places.Enter(ctx, id)
	if err != nil {
		return failed(ctx, err)
	}
	defer leave()
	q.levels = q.e.levelsFor(q)
	at := q.first()
	for {
		n := q.levels[at].samples
		if err := lease.Take(ctx, q.need(n)); err != nil {
			return failed(ctx, err)
		}
		q.e.m.waited.Observe(time.Since(began).Seconds())
		res, err := q.attempt(ctx, at)
		if err != nil {
			return failed(ctx, err)
		}
		var tooMany promql.ErrTooManySamples
		if !errors.As(res.Err, &tooMany) {
			return q.settled(ctx, res, lease)
		}
		if at++; at == len(q.levels) {
			return &promql.Result{Err: q.e.tooMany(id, n), Warnings: res.Warnings}
		}
		lease.Settle(0) // a query never waits for memory while it holds some
		q.e.m.retried.Inc()
		began = time.Now()
	}
}

// need is how many bytes the query may hold with an allowance of n samples. A query holds the most for each sample when
// it has one series with a sample at each step: the memory of the steps is then part of each. With many series a sample
// takes less than half of that, and the steps are extra.
func (q *boundedQuery) need(n int) int64 {
	samples := int64(n) * q.each
	return max(samples, samples/2+q.work.Steps*stepBytes)
}

// attempt runs the query with the allowance of a level.
func (q *boundedQuery) attempt(ctx context.Context, at int) (*promql.Result, error) {
	if at > 0 { // it was prepared for the first level
		if err := q.prepareFor(q.levels[at].engine); err != nil {
			return nil, err
		}
	}
	if p := givenParams(ctx); p != nil {
		p.again()
	}
	res := q.Query.Exec(context.WithValue(ctx, selectorsKey{}, q.selectors))
	switch { // a StopFlag ended the reads; the engine knows no meaning of that error
	case errors.Is(res.Err, context.DeadlineExceeded):
		res.Err = promql.ErrQueryTimeout("expression evaluation")
	case errors.Is(res.Err, context.Canceled):
		res.Err = promql.ErrQueryCanceled("expression evaluation")
	}
	return res, nil
}

// settled reduces what is held to the result. The samples from which it was computed are given back.
func (q *boundedQuery) settled(ctx context.Context, res *promql.Result, lease *memory.Lease) *promql.Result {
	if res.Err != nil {
		lease.Settle(0)
		return res
	}
	fit(res)
	size := resultSize(res)
	lease.Settle(size)
	if more := size - lease.Bytes(); more > 0 {
		if err := lease.Grow(more); err != nil {
			return failed(ctx, err)
		}
	}
	return res
}

// Cancel implements promql.Query.
func (q *boundedQuery) Cancel() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.cancel != nil {
		q.cancel()
	}
}

// Close implements promql.Query. The result must not be used afterwards. It is idempotent: a slice that the engine got
// back twice would be used by two queries at once.
func (q *boundedQuery) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed = true
	q.Query.Close()
	if q.lease != nil {
		q.lease.Close()
	}
}

// first is the level to begin with: the largest that takes a small part of what is free.
func (q *boundedQuery) first() int {
	free := q.e.free() / firstShare
	at := 0
	for at+1 < len(q.levels) && q.need(q.levels[at+1].samples) <= free {
		at++
	}
	return at
}

func (e *engine) tooMany(id tenant.ID, n int) error {
	if n >= e.limit {
		return errs.E(errs.Limited, "tenant %s: the query holds more than %d samples in memory (limit --query.max-samples)",
			id, n)
	}
	return errs.E(errs.Limited, "tenant %s: the query holds more than %d samples in memory, "+
		"and no query may take more of what this process has (limit --query.max-memory)", id, n)
}

// failed is a result without a value. When the query's context has ended, the error is the one that the engine gives
// then, since the API knows only that one.
func failed(ctx context.Context, err error) *promql.Result {
	switch ended := ctx.Err(); {
	case errors.Is(ended, context.DeadlineExceeded):
		err = errors.Join(promql.ErrQueryTimeout("waiting for a place"), err)
	case errors.Is(ended, context.Canceled):
		err = errors.Join(promql.ErrQueryCanceled("waiting for a place"), err)
	}
	if p := givenParams(ctx); p != nil {
		p.fail(err)
	}
	return &promql.Result{Err: err}
}

// chargedTenant is the tenant whose share of the memory a query uses: the first one of several.
func chargedTenant(ctx context.Context) tenant.ID {
	if ids := tenant.SetFrom(ctx); len(ids) > 0 {
		return ids[0]
	}
	return tenant.Default
}

// fit copies short results out of long slices. The engine uses the slices of one query again for others, so the few
// samples of a result may be in a slice for a million. Without a copy that memory would be held until the client has
// read all.
func fit(res *promql.Result) {
	m, ok := res.Value.(promql.Matrix)
	if !ok {
		return
	}
	for i := range m { // in place: these are the slices that the query gives back when it is closed
		if s := &m[i]; cap(s.Floats) > 2*len(s.Floats)+spareSamples {
			s.Floats = slices.Clone(s.Floats)
		}
		if s := &m[i]; cap(s.Histograms) > 2*len(s.Histograms)+spareSamples {
			s.Histograms = slices.Clone(s.Histograms)
		}
	}
}

// spareSamples is how many unused samples of a slice are not worth a copy.
const spareSamples = 64

// resultSize estimates how many bytes a result takes, with its text.
func resultSize(res *promql.Result) int64 {
	const seriesBytes, labelCopies = 256, 4
	labels, series, samples := 0, 0, 0
	switch v := res.Value.(type) {
	case promql.Matrix:
		series, samples = len(v), v.TotalSamples()
		for i := range v {
			labels += int(v[i].Metric.ByteSize())
		}
	case promql.Vector:
		series, samples = len(v), v.TotalSamples()
		for i := range v {
			labels += int(v[i].Metric.ByteSize())
		}
	}
	return int64(series)*seriesBytes + int64(labels)*labelCopies + int64(samples)*resultBytes
}
