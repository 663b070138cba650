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
	response int             // its number in the collector; once at has failed, that of the next endpoint
}

// asking begins to ask a group. The filler waits for it from now on.
func (s *selection) asking(g *group) asking {
	return asking{sel: s, call: s.watch.add(), group: g, blocks: g.blocks, left: g.endpoints,
		response: s.col.begin(g, g.endpoints[0])}
}

// next goes on to the next endpoint, if there is one. The caller must ask a.at with the context returned, which ends
// when the endpoint is given up.
func (a *asking) next(ctx context.Context) (context.Context, bool) {
	if len(a.left) == 0 {
		return nil, false
	}
	a.at, a.left = a.left[0], a.left[1:]
	a.sel.q.m.asked.WithLabelValues(a.at.role()).Inc()
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
}

// ended records how asking the endpoint ended: err, or nil where all of its response has come. again says that the next
// endpoint is to be asked instead. An error ends the whole request: ctx is over, or every other endpoint would say the
// same, or the error is this process's own.
func (a *asking) ended(ctx context.Context, err error) (again bool, _ error) {
	err = outcome(ctx, a.with, err)
	switch {
	case err == nil:
		a.sel.col.change(a.response, func(r *response) { r.ended = true })
		a.left = nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case final(err):
		a.sel.col.change(a.response, func(r *response) { r.err = err }) // or the filler would wait for it
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
	at := a.response
	if a.blocks.Primary {
		covered := a.sel.col.response(at).said.coverage
		if covered == nil || len(covered.Served) == 0 || len(covered.Served) > series.MaxOnlyBlocks {
			a.left = nil
		} else {
			a.blocks = series.BlockRequest{View: covered.View, Only: covered.Served}
		}
	}
	if len(a.left) > 0 {
		a.sel.q.m.stoodIn.Inc()
		// Before the failure is recorded: so the filler waits for the next endpoint, and asks for what that one does not
		// have.
		a.response = a.sel.col.begin(a.group, a.left[0])
	}
	a.sel.col.change(at, func(r *response) { r.err = err })
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
	mu        sync.Mutex    // guards what follows
	responses []response    // in the order in which the endpoints were asked
	changed   chan struct{} // closed at the next change of a response; nil when nobody waits for it
}

// response is one call to an endpoint.
type response struct {
	of    *group
	from  *endpoint
	said  said
	begun bool  // its first series has come
	ended bool  // all of it has come
	err   error // why it ended early
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

// pending reports whether the endpoint may still say what it covers.
func (r *response) pending() bool {
	return r.err == nil && !r.ended && !r.begun && r.said.coverage == nil
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
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
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

// response is response n as it is now.
func (c *collector) response(n int) response {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.responses[n]
}

// clone is a copy of what was gathered until now.
func (c *collector) clone() *collector {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &collector{responses: slices.Clone(c.responses)}
}

// follow is a copy of what was gathered until now, and a channel that is closed when a response changes after that.
func (c *collector) follow() (*collector, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return &collector{responses: slices.Clone(c.responses)}, c.changed
}

// awaits reports whether a gateway of bucket may still say what it covers. No other goroutine may use c.
func (c *collector) awaits(bucket string) bool {
	return slices.ContainsFunc(c.responses, func(r response) bool { return r.of.bucket() == bucket && r.pending() })
}

// asks reports whether an endpoint of g is or was asked. No other goroutine may use c.
func (c *collector) asks(g *group) bool {
	return slices.ContainsFunc(c.responses, func(r response) bool { return r.of == g })
}
