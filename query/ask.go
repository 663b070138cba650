package query

import (
	"context"
	"slices"
	"sync"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// asking asks the endpoints of one group: the first one, and the next one each time that one fails. It records which
// endpoints answered and which failed. It is for one goroutine.
//
//	for asked, ok := a.next(ctx); ok; asked, ok = a.next(ctx) {
//		again, err := a.ended(ctx, the error of asking a.at for a.request() with asked)
//	}
type asking struct {
	sel      *selection
	call     *call
	group    *group
	blocks   series.BlockRequest // what the next endpoint is asked for
	left     []*endpoint
	at       *endpoint       // the endpoint that is being asked
	with     context.Context // the context of that call
	response int             // its number in the collector
}

// asking begins to ask a group.
func (s *selection) asking(g *group) asking {
	a := asking{sel: s, call: s.watch.add(), group: g, blocks: g.blocks, left: g.endpoints}
	for _, f := range s.fills {
		if f.bucket == g.bucket() {
			f.calls = append(f.calls, a.call)
		}
	}
	return a
}

// next goes on to the next endpoint, if there is one. The caller must ask a.at with the context returned, which ends
// when the endpoint is given up.
func (a *asking) next(ctx context.Context) (context.Context, bool) {
	if len(a.left) == 0 {
		return nil, false
	}
	a.at, a.left = a.left[0], a.left[1:]
	a.sel.q.m.asked.WithLabelValues(a.at.role()).Inc()
	a.response = a.sel.col.begin(a.group, a.at)
	a.with = a.call.begin(ctx, a.sel, asked{m: a.at, response: a.response, standIn: len(a.left) > 0})
	return a.with, true
}

// request is what a.at is asked for. Prometheus's index sorts matchers in place, so no two sources may share them.
func (a *asking) request() *series.Request {
	r := *a.sel.req
	r.Matchers, r.Blocks = slices.Clone(r.Matchers), a.blocks
	return &r
}

// begun records that the first series has come, so that a gateway will not say any more what it covers.
func (a *asking) begun() {
	a.sel.col.change(a.response, func(r *response) { r.begun = true })
	a.call.know()
}

// ended records how asking the endpoint ended: err, or nil where all of its response has come. again says that the next
// endpoint is to be asked instead. An error ends the whole request: ctx is over, or every other endpoint would say the
// same, or the error is this process's own.
func (a *asking) ended(ctx context.Context, err error) (again bool, _ error) {
	err = outcome(ctx, a.with, err)
	defer func() {
		if !again {
			a.call.know()
		}
	}()
	switch {
	case err == nil:
		a.sel.col.change(a.response, func(r *response) { r.ended = true })
		a.left = nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case final(err):
		return false, err
	default:
		a.failed(err)
	}
	return len(a.left) > 0, nil
}

// failed records that the endpoint failed. Instead of a gateway with a part of a bucket, another one is asked for the
// blocks that the first one said that it serves. If it did not say that, nobody is: the filler finds out what is
// missing.
func (a *asking) failed(err error) {
	a.sel.q.m.failed.WithLabelValues(a.at.role()).Inc()
	a.sel.col.change(a.response, func(r *response) {
		r.err = err
		if covered := r.said.coverage; a.blocks.Primary {
			if covered == nil || len(covered.Served) == 0 || len(covered.Served) > series.MaxOnlyBlocks {
				a.left = nil
				return
			}
			a.blocks = series.BlockRequest{View: covered.View, Only: covered.Served}
		}
		r.again = len(a.left) > 0
	})
	if len(a.left) > 0 {
		a.sel.q.m.stoodIn.Inc()
	}
}

// ask calls f for one endpoint of the group after the other, until one has answered.
func (a *asking) ask(ctx context.Context, f func(context.Context) error) error {
	a.call.step()
	defer a.call.step()
	for asked, ok := a.next(ctx); ok; asked, ok = a.next(ctx) {
		if again, err := a.ended(ctx, f(asked)); !again {
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

// askOne makes one call of askAll, to a.at for a.request().
type askOne func(ctx context.Context, a *asking) (series.Warnings, error)

// askAll asks all groups of a selection at once, and then other gateways for the blocks that are missing. It calls f
// concurrently, and returns the warnings of the endpoints and what may be missing. The error comes from f, or from
// recordMissing.
func (q *Querier) askAll(ctx context.Context, s *selection, f askOne) (series.Warnings, error) {
	defer s.watch.stop()
	asked, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards warnings and failed
	var warnings series.Warnings
	var failed error
	for groups := s.plan.groups; len(groups) > 0 && failed == nil; groups = s.fill() {
		var wg sync.WaitGroup
		for _, g := range groups {
			a := s.asking(g)
			wg.Go(func() {
				var said series.Warnings
				err := a.ask(asked, func(ctx context.Context) error {
					w, err := f(ctx, &a)
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
	}
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

// collector gathers what the endpoints of one selection respond.
type collector struct {
	mu        sync.Mutex // guards responses
	responses []response // in the order in which the endpoints were asked
}

// response is one call to an endpoint.
type response struct {
	of    *group
	from  *endpoint
	said  said
	begun bool  // its first series has come
	ended bool  // all of it has come
	err   error // why it ended early
	again bool  // the next endpoint of the group is asked instead
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

// begin records that e is asked for g, and returns the number of the response.
func (c *collector) begin(g *group, e *endpoint) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.responses = append(c.responses, response{of: g, from: e})
	return len(c.responses) - 1
}

// change changes response n.
func (c *collector) change(n int, do func(*response)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do(&c.responses[n])
}

// hear returns the context for the call with response n. Through it, c learns what the response says of its endpoint.
// covered is called when that includes a coverage.
func (c *collector) hear(ctx context.Context, n int, covered func()) context.Context {
	ctx = series.OnIdentity(ctx, func(id series.Identity) {
		c.change(n, func(r *response) { r.said.identity = &id })
	})
	return series.OnCoverage(ctx, func(of series.Coverage) {
		c.change(n, func(r *response) { r.said.coverage = &of })
		covered()
	})
}

// clone is a copy of what was gathered until now.
func (c *collector) clone() *collector {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &collector{responses: slices.Clone(c.responses)}
}

// goesOn reports whether another endpoint of g is being asked for what one that failed was to serve, and has not said
// yet what it serves. No other goroutine may use c.
func (c *collector) goesOn(g *group) bool {
	for _, r := range slices.Backward(c.responses) {
		if r.of == g {
			return r.again || r.err == nil && !r.ended && r.said.coverage == nil
		}
	}
	return false
}

// nextOf returns the endpoint of g that is asked next; nil when one is being asked or has answered, or none is left. No
// other goroutine may use c.
func (c *collector) nextOf(g *group) *endpoint {
	n := 0
	for _, r := range c.responses {
		if r.of == g {
			n++
			if r.err == nil || g.blocks.Primary {
				return nil
			}
		}
	}
	if n >= len(g.endpoints) {
		return nil
	}
	return g.endpoints[n]
}
