package query

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// asking asks the endpoints of one group: the first one, and the next one each time that one fails. It records which
// endpoints answered and which failed. It is for one goroutine.
//
//	for asked, ok := a.next(ctx); ok; asked, ok = a.next(ctx) {
//		again, err := a.ended(ctx, the error of asking a.at with asked)
//	}
type asking struct {
	sel  *selection
	call *call
	left group
	at   *endpoint       // the endpoint that is being asked
	with context.Context // the context of that call
}

// asking begins to ask group i.
func (s *selection) asking(i int) asking {
	return asking{sel: s, call: s.watch.calls[i], left: s.plan.groups[i]}
}

// next goes on to the next endpoint, if there is one. The caller must ask a.at with the context returned, which ends
// when the endpoint is given up.
func (a *asking) next(ctx context.Context) (context.Context, bool) {
	if len(a.left) == 0 {
		return nil, false
	}
	a.at, a.left = a.left[0], a.left[1:]
	a.sel.q.m.asked.WithLabelValues(a.at.role()).Inc()
	a.with = a.call.begin(ctx, a.sel, a.at, len(a.left))
	return a.with, true
}

// ended records how asking the endpoint ended: err, or nil where all of its response has come. again says that the next
// endpoint is to be asked instead. An error ends the whole request: ctx is over, or every other endpoint would say the
// same, or the error is this process's own.
func (a *asking) ended(ctx context.Context, err error) (again bool, _ error) {
	err = outcome(ctx, a.with, err)
	switch {
	case err == nil:
		a.sel.col.addAnswered(a.at)
		a.left = nil
		return false, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case final(err):
		return false, err
	}
	a.sel.col.addFailed(a.at, err)
	a.sel.q.m.failed.WithLabelValues(a.at.role()).Inc()
	if len(a.left) > 0 {
		a.sel.q.m.stoodIn.Inc()
	}
	return len(a.left) > 0, nil
}

// ask calls f for one endpoint of the group after the other, until one has answered.
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

// outcome is how a call with the context asked ended: with err, or because the endpoint was given up.
func outcome(parent, asked context.Context, err error) error {
	if cause := context.Cause(asked); cause != nil && parent.Err() == nil {
		return cause
	}
	return err
}

// localError is an error of this process, and not of the endpoint that was asked. No other endpoint can mend it.
type localError struct{ error }

// Unwrap gives errs.KindOf the error.
func (e localError) Unwrap() error { return e.error }

// final reports whether err ends the query. It does if the query asks for too much, since it would ask every endpoint
// for as much, or if the error is this process's own.
func final(err error) bool {
	if _, local := err.(localError); local {
		return true
	}
	kind := errs.KindOf(err)
	return kind == errs.Limited || kind == errs.TooLarge
}

// askAll asks all groups of a selection for r at once. It calls f concurrently, and returns the warnings of the
// endpoints and what may be missing. The error comes from f, or from recordMissing.
func (q *Querier) askAll(ctx context.Context, r *series.Request,
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
			err := a.ask(asked, func(ctx context.Context, src series.Source) error {
				w, err := f(ctx, s, src)
				if err == nil {
					said = w
				}
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
	missing, err := s.judge(warnings, false)
	warnings = withMissing(warnings, missing)
	slices.Sort(warnings)
	return slices.Compact(warnings), err
}

// collector gathers what the endpoints of one selection responded.
type collector struct {
	mu       sync.Mutex // guards what follows
	answered []*endpoint
	failed   []failure
	said     map[*endpoint]said
}

// said is what a response says of its endpoint: nil where it does not say.
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

func (c *collector) addAnswered(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = append(c.answered, e)
}

func (c *collector) addFailed(e *endpoint, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, failure{e.label(), e.info, err})
}

// hear returns the context for asking e. Through it, c learns what the response says of e.
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

// clone is a copy of what was gathered until now.
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
