package query

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// params are what a query says beyond PromQL, and what it used so far. One belongs to each query.
type params struct {
	replicaLabels []string // dedup over these; empty = no dedup
	partial       bool     // answer with a warning rather than fail
	maxResolution time.Duration
	autoResolve   bool // a fifth of the step rather than maxResolution
	storeMatch    [][]*labels.Matcher
	request       *memory.Lease // of the request; nil = each selection is one
	answer        *memory.Lease // of a remote read, which decodes all samples before it answers; nil for other requests

	series, bytes, selections atomic.Int64
	incomplete                atomic.Bool           // a selection warned
	failure                   atomic.Pointer[error] // what a selection or its answer failed with
}

// again begins to count anew, for another attempt of the query.
func (p *params) again() {
	p.series.Store(0)
	p.bytes.Store(0)
	p.selections.Store(0)
}

// fail notes why the request fails, for who cannot see it in an answer's error.
func (p *params) fail(err error) {
	if err != nil {
		p.failure.CompareAndSwap(nil, &err)
	}
}

// maxSelections is how many selections one request may make: selectors times tenants. Each is a call to every source.
const maxSelections = 2000

// selecting counts a selection more.
func (p *params) selecting(id tenant.ID) error {
	if p.selections.Add(1) > maxSelections {
		return errs.E(errs.Limited,
			"tenant %s: the query makes more than %d selections, selectors times tenants (limit on selections per query)", id, maxSelections)
	}
	return nil
}

type paramsKey struct{}

func withParams(ctx context.Context, p *params) context.Context {
	return context.WithValue(ctx, paramsKey{}, p)
}

// paramsFrom are the query's params, or new ones from the options.
func (q *Querier) paramsFrom(ctx context.Context) *params {
	if p, ok := ctx.Value(paramsKey{}).(*params); ok {
		return p
	}
	return q.defaultParams()
}

func (q *Querier) defaultParams() *params {
	return &params{replicaLabels: q.opts.ReplicaLabels, partial: q.opts.PartialResponse,
		maxResolution: q.opts.MaxSourceResolution, autoResolve: q.opts.AutoResolution}
}

// resolution is the coarsest one a selection for steps of that length (ms) may use, in ms.
func (p *params) resolution(step int64) int64 {
	if p.autoResolve {
		return step / 5
	}
	return p.maxResolution.Milliseconds()
}
