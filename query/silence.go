package query

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// call is what the watch knows of the asking of one group. The goroutine that asks calls step when it begins to wait
// for an endpoint, and again when the endpoint has sent something.
type call struct {
	steps atomic.Uint64 // odd while an endpoint is waited for; it grows whenever the endpoint sends something
	asked atomic.Pointer[asked]

	// Only the watch uses these.
	seen  uint64        // steps at its last look
	at    *asked        // asked at its last look
	quiet time.Duration // for how long nothing had happened
}

// asked is an endpoint that a call waits for.
type asked struct {
	m        *endpoint
	response int           // its number in the collector
	standIn  bool          // another endpoint of its group is asked when it fails
	limit    time.Duration // of its silence; 0 = none
	giveUp   context.CancelCauseFunc
}

func (c *call) step() { c.steps.Add(1) }

// begin records that an endpoint is asked. The caller must ask it with the context returned. It ends when the endpoint
// is given up, and through it the selection learns what the response says of the endpoint.
func (c *call) begin(ctx context.Context, s *selection, a asked) context.Context {
	ctx, a.giveUp = context.WithCancelCause(ctx)
	a.limit = s.q.silenceLimit(a.m, a.standIn)
	ctx = s.col.hear(ctx, a.response, func() { c.steps.Add(2) })
	c.steps.Add(2) // before c.asked changes, so that the silence begins now and not with that of the endpoint before
	c.asked.Store(&a)
	return ctx
}

// silenceLimit is how long m may be silent before it has failed; 0 = no limit. It is shorter for an endpoint that did
// not answer the last poll, and for one of a group whose others can still be asked, so that time is left for these.
func (q *Querier) silenceLimit(m *endpoint, standIn bool) time.Duration {
	limit := q.opts.ResponseTimeout
	switch {
	case limit == 0:
		return 0
	case m.down() != nil:
		return min(limit, q.opts.InfoTimeout)
	case standIn:
		return limit / 3
	}
	return limit
}

// watch gives up silent endpoints in two cases. An endpoint that reaches its limit is given up. All endpoints that are
// still waited for are given up when none has sent anything for as long as the patience, or for half of the time before
// that if it is longer, and the answer lacks nothing without them. The watch counts silence in its own looks. So a
// process that itself stood still does not take that time for silence of others.
type watch struct {
	mu       sync.Mutex // guards calls, which only grows
	calls    []*call
	patience time.Duration
	enough   func(silent []*asked) bool // the answer lacks nothing more without these
	giveUp   func(a *asked, quiet time.Duration)

	clock, moved time.Duration // since the beginning: now, and when an endpoint last sent something
	cancel       context.CancelFunc
	done         chan struct{}
}

// startWatch watches the calls of the selection until the watch is stopped.
func (s *selection) startWatch() {
	w := &watch{
		done: make(chan struct{}), patience: s.q.opts.Patience, giveUp: s.q.giveUp,
		enough: func(silent []*asked) bool {
			without := s.col.clone()
			said := s.missing(without, true)
			for _, a := range silent {
				without.responses[a.response].err = errSilent
			}
			return slices.Equal(said, s.missing(without, true))
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	s.watch = w
	go w.run(ctx)
}

// add adds a call to watch.
func (w *watch) add() *call {
	c := new(call)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, c)
	return c
}

// stop ends the watch. It is idempotent. No endpoint is given up once it has returned.
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
	w.mu.Lock()
	calls := w.calls
	w.mu.Unlock()
	for _, c := range calls {
		c.at = c.asked.Load() // before the steps, since begin changes them in the other order
		if steps := c.steps.Load(); steps != c.seen {
			c.seen, c.quiet, w.moved = steps, 0, w.clock
			continue
		}
		c.quiet += elapsed
	}
	settled := w.clock-w.moved >= max(w.patience, w.moved/2)
	var silent []*asked
	for _, c := range calls {
		switch {
		case c.seen%2 == 0 || c.at == nil: // it has ended, or its reader does not wait for it
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

// errSilent is the error of an endpoint that was given up and has not answered a poll after that.
var errSilent = errs.E(errs.Unavailable, "it is silent")

// giveUp ends the asking of an endpoint. Until it answers a poll, it is asked only when the answer needs it.
func (q *Querier) giveUp(a *asked, quiet time.Duration) {
	a.giveUp(errs.E(errs.Unavailable, "silent for %s", quiet))
	q.m.silent.WithLabelValues(a.m.role()).Inc()
	if a.m.silent != nil && a.m.silent.CompareAndSwap(false, true) {
		q.log.Warn("endpoint is silent; queries go on without it where they can", "endpoint", a.m.Name, "role", a.m.role(),
			"for", quiet)
	}
}

// down is why m is asked only when the answer needs it: it did not answer the last poll, or was silent. nil = neither.
func (m *endpoint) down() error {
	if m.err == nil && m.silent != nil && m.silent.Load() {
		return errSilent
	}
	return m.err
}
