package query

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// collector gathers what the sources of one selection reported.
type collector struct {
	mu       sync.Mutex // guards what follows
	answered []series.Info
	failed   []failure
	heard    map[*endpoint]series.Identity // whose data their answers say they are from
}

func (c *collector) answer(m *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = append(c.answered, c.about(m))
}

// hear notes whose data an answer of m says it is from.
func (c *collector) hear(m *endpoint, id series.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard == nil {
		c.heard = map[*endpoint]series.Identity{}
	}
	c.heard[m] = id
}

// about is the Info of m, with the identity that its answer has. The last poll may be of before a restart with an empty
// disk, or of another process that had the address. mu is held.
func (c *collector) about(m *endpoint) series.Info {
	info := m.info
	if id, ok := c.heard[m]; ok {
		info.Instance, info.Since = id.Instance, id.Since
	}
	return info
}

func (c *collector) fail(m *endpoint, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, failure{m.label(), m.info, err})
}

// clone is what was gathered so far.
func (c *collector) clone() *collector {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &collector{answered: slices.Clone(c.answered), failed: slices.Clone(c.failed), heard: maps.Clone(c.heard)}
}

// final reports whether err ends the query: it asks for too much, and would of any source.
func final(err error) bool {
	kind := errs.KindOf(err)
	return kind == errs.Limited || kind == errs.TooLarge
}

// own is a copy of r for one source. Prometheus's index sorts matchers in place, so no two sources may share them.
func own(r *series.Request) *series.Request {
	c := *r
	c.Matchers = slices.Clone(r.Matchers)
	return &c
}

// each calls f at once for all sources of kind S that tenant id's selections ask, and returns their warnings and what
// failed, or an error if the query wants that.
func each[S any](ctx context.Context, q *Querier, r *series.Request, f func(context.Context, S) (series.Warnings, error)) (series.Warnings, error) {
	p := q.paramsFrom(ctx)
	plan := q.plan(r, p)
	col := new(collector)
	watch := q.newWatch(r, p, col, plan)
	defer watch.stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards warnings
	var warnings series.Warnings
	var wg sync.WaitGroup
	for i, g := range plan.groups {
		src, ok := g[0].Source.(S)
		if !ok {
			col.answer(g[0])
			continue
		}
		wg.Go(func() {
			c := watch.calls[i]
			c.step()
			defer c.step()
			asking := c.begin(ctx, q, col, g[0], 0)
			said, err := f(asking, src)
			if err := outcome(ctx, asking, err); err != nil {
				col.fail(g[0], err)
				return
			}
			col.answer(g[0])
			mu.Lock()
			defer mu.Unlock()
			warnings = append(warnings, said...)
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	missing := q.judgement(r, p, col, plan, false)
	err := q.settle(p, append(slices.Clone(warnings), missing...))
	for _, m := range missing {
		warnings = append(warnings, partialPrefix+m)
	}
	slices.Sort(warnings)
	return slices.Compact(warnings), err
}
