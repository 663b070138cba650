package query

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// asking is the asking of one group: of its first endpoint, and of the next one each time that one fails. It notes who
// answered and who failed. It is for one goroutine.
//
//	for asked, ok := a.next(ctx); ok; asked, ok = a.next(ctx) {
//		again, err := a.ended(ctx, the error of asking a.at with asked)
//	}
type asking struct {
	sel  *selection
	call *call
	left group
	at   *endpoint       // the one that is asked
	with context.Context // that it is asked with
}

// asking begins to ask group i.
func (s *selection) asking(i int) asking {
	return asking{sel: s, call: s.watch.calls[i], left: s.plan.groups[i]}
}

// next goes on to the next endpoint, if there is one, which must be asked with the context returned. That ends when the
// endpoint is given up.
func (a *asking) next(ctx context.Context) (context.Context, bool) {
	if len(a.left) == 0 {
		return nil, false
	}
	a.at, a.left = a.left[0], a.left[1:]
	a.sel.q.m.asked.WithLabelValues(a.at.role()).Inc()
	a.with = a.call.begin(ctx, a.sel, a.at, len(a.left))
	return a.with, true
}

// ended notes how asking the endpoint ended: err, or nil where all of its response has come. again says that the next
// endpoint is to be asked instead. An error ends the whole request: ctx is over, the endpoint says what every other one
// would say too, or the error is this process's own.
func (a *asking) ended(ctx context.Context, err error) (again bool, _ error) {
	err = outcome(ctx, a.with, err)
	switch {
	case err == nil:
		a.sel.col.answer(a.at)
		a.left = nil
		return false, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case final(err):
		return false, err
	}
	a.sel.col.fail(a.at, err)
	a.sel.q.m.failed.WithLabelValues(a.at.role()).Inc()
	if len(a.left) > 0 {
		a.sel.q.m.stoodIn.Inc()
	}
	return len(a.left) > 0, nil
}

// ask asks the group by f until one of its endpoints has answered.
func (a *asking) ask(ctx context.Context, f func(context.Context, series.Source) error) error {
	a.call.step()
	defer a.call.step()
	for asked, ok := a.next(ctx); ok; asked, ok = a.next(ctx) {
		if again, err := a.ended(ctx, f(asked, a.at.Source)); !again {
			return err
		}
	}
	return nil
}

// outcome is how asking with the context of begin ended: by err, or because the endpoint was given up.
func outcome(parent, asked context.Context, err error) error {
	if cause := context.Cause(asked); cause != nil && parent.Err() == nil {
		return cause
	}
	return err
}

// ours is an error of this process, and not of the endpoint that was asked.
type ours struct{ error }

// Unwrap gives errs.KindOf the error.
func (o ours) Unwrap() error { return o.error }

// final reports whether err ends the query: it asks for too much, and would of any endpoint, or it is this process's
// own.
func final(err error) bool {
	if _, own := err.(ours); own {
		return true
	}
	kind := errs.KindOf(err)
	return kind == errs.Limited || kind == errs.TooLarge
}

// everyone asks all groups of a selection for r at once by f, which is called concurrently, and returns the warnings of
// the endpoints and what may be missing. The error is one that f or settle ends the request with.
func (q *Querier) everyone(ctx context.Context, r *series.Request,
	f func(context.Context, *selection, series.Source) (series.Warnings, error)) (series.Warnings, error) {
	s, err := q.newSelection(ctx, r)
	if err != nil {
		return nil, err
	}
	defer s.watch.stop()
	asked, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards warnings and failed
	var warnings series.Warnings
	var failed error
	var wg sync.WaitGroup
	for i := range s.plan.groups {
		wg.Go(func() {
			var said series.Warnings
			a := s.asking(i)
			err := a.ask(asked, func(ctx context.Context, src series.Source) (err error) {
				said, err = f(ctx, s, src)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failed == nil {
				failed = err
				cancel()
			}
			warnings = append(warnings, said...)
		})
	}
	wg.Wait()
	if failed != nil {
		return nil, failed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	missing := s.missing(s.col, false)
	err = s.settle(append(slices.Clone(warnings), missing...))
	for _, m := range missing {
		warnings = append(warnings, partialPrefix+m)
	}
	slices.Sort(warnings)
	return slices.Compact(warnings), err
}

// collector gathers what the endpoints of one selection said.
type collector struct {
	mu       sync.Mutex // guards what follows
	answered []*endpoint
	failed   []failure
	said     map[*endpoint]said
}

// said is what a response says of itself.
type said struct {
	identity *series.Identity
	coverage *series.Coverage
}

// failure is an endpoint that did not answer, or not wholly.
type failure struct {
	name string // as messages show it
	info series.Info
	err  error
}

func (c *collector) answer(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = append(c.answered, e)
}

func (c *collector) fail(e *endpoint, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, failure{e.label(), e.info, err})
}

// hear returns ctx for asking e. By it c learns what the response says of itself.
func (c *collector) hear(ctx context.Context, e *endpoint) context.Context {
	ctx = series.OnIdentity(ctx, func(id series.Identity) { c.note(e, func(s *said) { s.identity = &id }) })
	return series.OnCoverage(ctx, func(of series.Coverage) { c.note(e, func(s *said) { s.coverage = &of }) })
}

func (c *collector) note(e *endpoint, change func(*said)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said == nil {
		c.said = map[*endpoint]said{}
	}
	s := c.said[e]
	change(&s)
	c.said[e] = s
}

// clone is what was gathered so far.
func (c *collector) clone() *collector {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &collector{answered: slices.Clone(c.answered), failed: slices.Clone(c.failed), said: maps.Clone(c.said)}
}

// own is a copy of r for one source. Prometheus's index sorts matchers in place, so no two sources may share them.
func own(r *series.Request) *series.Request {
	c := *r
	c.Matchers = slices.Clone(r.Matchers)
	return &c
}
