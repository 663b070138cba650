package query

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// call is the asking of one group, as its goroutine and the watch see it. The goroutine steps in when it begins to wait
// for a source and out when it has got something.
type call struct {
	steps atomic.Uint64 // odd while a source is waited for; it grows whenever the source does something
	asked atomic.Pointer[asked]

	// The watch's own: what it saw at its last look, and for how long nothing had happened.
	seen  uint64
	at    *asked
	quiet time.Duration
}

// asked is a endpoint that a call waits for.
type asked struct {
	m       *endpoint
	standIn bool          // another one of its bucket goes on when it fails
	limit   time.Duration // of its silence; 0 = none
	giveUp  context.CancelCauseFunc
}

func (c *call) step() { c.steps.Add(1) }

// begin notes that e is asked, and then others if it fails. e must be asked with the context returned, which ends when
// e is given up, and by which the selection learns what the response says of itself.
func (c *call) begin(ctx context.Context, s *selection, e *endpoint, others int) context.Context {
	ctx, giveUp := context.WithCancelCause(ctx)
	ctx = s.col.hear(ctx, e)
	c.steps.Add(2) // before the endpoint changes: its silence begins now
	c.asked.Store(&asked{e, others > 0, s.q.silenceLimit(e, others), giveUp})
	return ctx
}

// silenceLimit is how long m may be silent before it has failed. One that did not answer the last poll either has had
// its time, and one that others stand in for is left early enough for them.
func (q *Querier) silenceLimit(m *endpoint, others int) time.Duration {
	limit := q.opts.ResponseTimeout
	switch {
	case limit == 0:
		return 0
	case m.down() != nil:
		return min(limit, q.opts.InfoTimeout)
	case others > 0:
		return limit / 3
	}
	return limit
}

// watch gives up endpoints that are silent: those that reach their limit, and all that are waited for when nothing has
// happened any more for as long as the patience, or half of what it took until then, and the answer lacks nothing
// without them. It counts silence in looks, so that a process that stood still itself blames nobody.
type watch struct {
	calls    []*call
	patience time.Duration
	enough   func(silent []*asked) bool // waiting for these changes nothing
	giveUp   func(a *asked, quiet time.Duration)

	clock, moved time.Duration // since the beginning: now, and when a source last did something
	cancel       context.CancelFunc
	done         chan struct{}
}

// startWatch watches the calls of the selection's groups until the watch is stopped.
func (s *selection) startWatch() {
	w := &watch{
		calls: make([]*call, len(s.plan.groups)), patience: s.q.opts.Patience, giveUp: s.q.giveUp, done: make(chan struct{}),
		enough: func(silent []*asked) bool {
			without := s.col.clone()
			said := s.missing(without, true)
			for _, a := range silent {
				without.fail(a.m, errSilent)
			}
			return slices.Equal(said, s.missing(without, true))
		},
	}
	for i := range w.calls {
		w.calls[i] = new(call)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	s.watch = w
	go w.run(ctx)
}

// stop ends the watch. It is idempotent, and nobody is given up once it has returned.
func (w *watch) stop() {
	w.cancel()
	<-w.done
}

func (w *watch) run(ctx context.Context) {
	defer close(w.done)
	every := w.patience / 4
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look(every)
		}
	}
}

// look goes through all calls once, elapsed after the last time.
func (w *watch) look(elapsed time.Duration) {
	w.clock += elapsed
	for _, c := range w.calls {
		c.at = c.asked.Load() // before the steps: see begin
		if steps := c.steps.Load(); steps != c.seen {
			c.seen, c.quiet, w.moved = steps, 0, w.clock
			continue
		}
		c.quiet += elapsed
	}
	settled := w.clock-w.moved >= max(w.patience, w.moved/2)
	var silent []*asked
	for _, c := range w.calls {
		switch {
		case c.seen%2 == 0 || c.at == nil: // it has ended, or waits for us
		case c.at.limit > 0 && c.quiet >= c.at.limit:
			w.giveUp(c.at, c.quiet)
			settled = false
		case c.at.standIn:
			settled = false
		default:
			silent = append(silent, c.at)
		}
	}
	if !settled || len(silent) == 0 || !w.enough(silent) {
		return
	}
	for _, a := range silent {
		w.giveUp(a, w.clock-w.moved)
	}
}

// errSilent is why a endpoint is not asked that was given up and has not answered a poll since.
var errSilent = errs.E(errs.Unavailable, "it is silent")

// giveUp ends the asking of a endpoint. Until it answers a poll it is asked only when the answer needs it.
func (q *Querier) giveUp(a *asked, quiet time.Duration) {
	a.giveUp(errs.E(errs.Unavailable, "silent for %s", quiet))
	q.m.silent.WithLabelValues(a.m.role()).Inc()
	if a.m.silent != nil && a.m.silent.CompareAndSwap(false, true) {
		q.log.Warn("endpoint is silent; queries go on without it where they can", "endpoint", a.m.Name, "role", a.m.role(),
			"for", quiet)
	}
}

// down is why m is asked only when the answer needs it, nil when it is well.
func (m *endpoint) down() error {
	if m.err == nil && m.silent != nil && m.silent.Load() {
		return errSilent
	}
	return m.err
}
