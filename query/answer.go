package query

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
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
		return errs.E(errs.Limited, "tenant %s: the query makes more than %d selections, selectors times tenants (limit on selections per query)", id, maxSelections)
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
	return &params{replicaLabels: q.opts.ReplicaLabels, partial: q.opts.PartialResponse, maxResolution: q.opts.MaxSourceResolution, autoResolve: q.opts.AutoResolution}
}

// resolution is the coarsest one a selection for steps of that length (ms) may use, in ms.
func (p *params) resolution(step int64) int64 {
	if p.autoResolve {
		return step / 5
	}
	return p.maxResolution.Milliseconds()
}

// answerSet is the merged series of a selection. It enforces limits on the way and judges completeness at the end.
type answerSet struct {
	series.Set
	ctx    context.Context
	cancel context.CancelFunc
	watch  *watch
	q      *Querier
	p      *params
	req    *series.Request
	lease  *memory.Lease             // what of the set is in memory
	judge  func(early bool) []string // what may be missing, once all sources have ended, or early

	yielded int
	done    bool
	missing []string
	err     error
}

func (s *answerSet) Next() bool {
	if s.done {
		return false
	}
	if early := s.req.Limit > 0 && s.yielded >= s.req.Limit; early || !s.Set.Next() {
		s.finish(early)
		return false
	}
	s.yielded++
	if s.err = s.q.charge(s.p, s.Set.At()); s.err != nil {
		s.done = true
		return false
	}
	return true
}

// charge counts at towards the limits of the query.
func (q *Querier) charge(p *params, at series.Series) error {
	if n := p.series.Add(1); q.opts.MaxSeries > 0 && n > int64(q.opts.MaxSeries) {
		return errs.E(errs.Limited, "the query selects more than %d series (limit on series per query)", q.opts.MaxSeries)
	}
	if q.opts.MaxBytes <= 0 {
		return nil
	}
	if p.bytes.Add(chunkBytes(at)) > q.opts.MaxBytes {
		return errs.E(errs.Limited, "the query reads more than %d bytes of chunks (limit on bytes per query)", q.opts.MaxBytes)
	}
	return nil
}

// chunkBytes is the data of a series' chunks.
func chunkBytes(s series.Series) (size int64) {
	for i := range s.Chunks {
		size += int64(len(s.Chunks[i].Raw.Data))
		if a := s.Chunks[i].Aggr; a != nil {
			for j := range a {
				size += int64(len(a[j].Data))
			}
		}
	}
	return size
}

func (s *answerSet) finish(early bool) {
	s.done = true
	s.watch.stop()
	if s.Set.Err() != nil {
		return
	}
	if s.err = s.ctx.Err(); s.err != nil {
		return
	}
	s.missing = s.judge(early)
	s.err = s.q.settle(s.p, append(slices.Clone(s.Set.Warnings()), s.missing...))
}

// settle records that an answer may lack something, and is the error of a query that does not accept that.
func (q *Querier) settle(p *params, missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	q.m.partial.Inc()
	p.incomplete.Store(true)
	if p.partial {
		return nil
	}
	return errs.E(errs.Unavailable, "the answer would be incomplete: %s", strings.Join(missing, "; "))
}

func (s *answerSet) Err() error {
	err := s.err
	if err == nil {
		err = s.Set.Err()
	}
	s.p.fail(err)
	return err
}

func (s *answerSet) Warnings() series.Warnings {
	all := slices.Clone(s.Set.Warnings())
	for _, m := range s.missing {
		all = append(all, partialPrefix+m)
	}
	return all
}

const partialPrefix = "partial answer: "

func (s *answerSet) Close() error {
	s.watch.stop()
	s.cancel()
	err := s.Set.Close()
	s.lease.Close()
	return err
}

// judgement returns what may be missing from what col gathered for r. early says that nobody waited for the sources to
// end, since there was enough: those that did not fail count as answered.
func (q *Querier) judgement(r *series.Request, p *params, col *collector, plan plan, early bool) []string {
	col = col.clone()
	answered, failed := col.answered, col.failed
	if early {
		for _, g := range plan.groups {
			at := slices.IndexFunc(g, func(m *member) bool {
				return !slices.ContainsFunc(failed, func(f failure) bool { return f.name == m.label() })
			})
			if at >= 0 {
				answered = append(answered, col.about(g[at]))
			}
		}
	}
	var ms Membership
	if q.opts.Membership != nil && len(p.storeMatch) == 0 {
		ms = q.opts.Membership(r.Tenant)
	}
	for _, m := range plan.down {
		failed = append(failed, failure{m.label(), m.info, m.down()})
	}
	b := bounds{q.opts.Retention, q.opts.Window, q.opts.Future}
	missing := assess(ms, span{r.MinTime, r.MaxTime}, q.now(), b, answered, failed)
	if plan.nobody {
		missing = append(missing, nobody)
	}
	return missing
}

// nobody is what an answer lacks that was asked of nobody.
const nobody = "nobody to ask is known: --endpoint and --gossip.join name some"
