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

// params are what a query says beyond PromQL, and what it has used until now. Each query has its own.
type params struct {
	replicaLabels []string // dedup over these; empty = no dedup
	partial       bool     // when something is missing, answer with a warning instead of an error
	maxResolution time.Duration
	autoResolve   bool // a fifth of the step instead of maxResolution
	storeMatch    [][]*labels.Matcher
	request       *memory.Lease // of the request; nil = each selection counts as a request
	answer        *memory.Lease // of a remote read, which decodes all samples before it answers; nil for other requests

	series, bytes, selections atomic.Int64
	incomplete                atomic.Bool           // a selection may lack something
	failure                   atomic.Pointer[error] // the first error of a selection or of the answer
}

// again begins to count anew, for another attempt of the query.
func (p *params) again() {
	p.series.Store(0)
	p.bytes.Store(0)
	p.selections.Store(0)
}

// fail records the first error of the request. The HTTP API needs it, since the library drops the kinds of errors.
func (p *params) fail(err error) {
	if err != nil {
		p.failure.CompareAndSwap(nil, &err)
	}
}

// maxSelections is how many selections one request may make: selectors times tenants. Each is a call to every source.
const maxSelections = 2000

// selecting counts one more selection.
func (p *params) selecting(id tenant.ID) error {
	if p.selections.Add(1) > maxSelections {
		return errs.E(errs.Limited,
			"tenant %s: the query makes more than %d selections, selectors times tenants (limit on selections per query)",
			id, maxSelections)
	}
	return nil
}

type paramsKey struct{}

func withParams(ctx context.Context, p *params) context.Context {
	return context.WithValue(ctx, paramsKey{}, p)
}

// givenParams are the params that withParams put into ctx, nil if there are none.
func givenParams(ctx context.Context) *params {
	p, _ := ctx.Value(paramsKey{}).(*params)
	return p
}

// paramsFrom are the query's params, or new ones from the options.
func (q *Querier) paramsFrom(ctx context.Context) *params {
	if p := givenParams(ctx); p != nil {
		return p
	}
	return q.defaultParams()
}

func (q *Querier) defaultParams() *params {
	return &params{replicaLabels: q.opts.ReplicaLabels, partial: q.opts.PartialResponse,
		maxResolution: q.opts.MaxSourceResolution, autoResolve: q.opts.AutoResolution}
}

// resolution is the coarsest resolution that a selection for steps of that length may read. Both are in ms.
func (p *params) resolution(step int64) int64 {
	if p.autoResolve {
		return step / 5
	}
	return p.maxResolution.Milliseconds()
}
