package query

import (
	"context"
	"slices"
	"strings"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
)

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
			at := slices.IndexFunc(g, func(m *endpoint) bool {
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
	missing := assess(ms, timeRange{r.MinTime, r.MaxTime}, q.now(), b, answered, failed)
	if plan.nobody {
		missing = append(missing, nobody)
	}
	return missing
}

// nobody is what an answer lacks that was asked of nobody.
const nobody = "nobody to ask is known: --endpoint and --gossip.join name some"
