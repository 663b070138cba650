package rule

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/rulestate"
)

// errAlone answers rulers that ask one that shares no groups.
var errAlone = errs.E(errs.Unsupported, "this ruler shares no groups with others")

const (
	// takeAgain is how soon a group is asked for again that another ruler does not give away yet.
	takeAgain = 200 * time.Millisecond
	// takesAtOnce bounds how many groups are asked for at the same time.
	takesAtOnce = 32
)

// lead waits until this ruler is to evaluate the group, and has its state. It is false when the group is to end.
func (r *Ruler) lead(g *group) bool {
	for {
		if g.led() {
			return true
		}
		v, again := r.share.view(), (<-chan time.Time)(nil)
		if v.evaluates(g.id) {
			if r.takeOver(g, v) {
				r.announce(g)
				return true
			}
			again = time.After(takeAgain)
		}
		select {
		case <-g.done:
			return false
		case <-v.changed:
		case <-again:
		}
	}
}

// takeOver gets the newest state of a group that anybody has, and makes this ruler the one that evaluates it. It is
// false if another ruler does not give the group away, or not yet.
func (r *Ruler) takeOver(g *group, v *view) bool {
	select {
	case <-g.done:
		return false
	case r.takes <- struct{}{}:
	}
	defer func() { <-r.takes }()
	states := [][]byte{r.held.get(g.id)}
	ctx, cancel := context.WithTimeout(r.ctx, askPatience)
	defer cancel()
	var mu sync.Mutex // guards states and mine
	mine := true
	var asking sync.WaitGroup
	for i := range v.peers {
		p := &v.peers[i]
		asking.Go(func() {
			taken, err := p.Take(ctx, g.id.groupName())
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				if errs.KindOf(err) != errs.Unsupported {
					g.log.Debug("a ruler does not say what it has of a group", "ruler", p.ID, "err", err)
				}
			case taken.Keeps, taken.Busy:
				mine = false
			case len(taken.State) > 0:
				states = append(states, taken.State)
			}
		})
	}
	asking.Wait()
	if !mine {
		return false
	}
	since := time.Now().Add(-r.opts.OutageTolerance)
	var newest *progress
	for _, s := range states {
		if len(s) == 0 {
			continue
		}
		p, err := decodeState(g.id, s, since)
		if err != nil {
			if !errors.Is(err, errStale) {
				g.log.Error("state of a group is not valid", "err", err)
			}
			continue
		}
		if newest == nil || p.slot.After(newest.slot) {
			newest = p
		}
	}
	g.mu.Lock()
	if g.given {
		g.given, g.last = false, time.Time{}
	}
	g.mu.Unlock()
	if newest != nil && !newest.slot.Before(g.last) {
		adopt(r.ctx, []*group{g}, []*progress{newest})
		// Series of rules that the group does not have here.
		g.stale = append(g.stale, newest.series()...)
	}
	late := g.catchUp(time.Now())
	if g.last.IsZero() || !g.grid.has(g.last) {
		g.last = g.grid.before(time.Now())
	}
	r.engine.metrics.start(g)
	r.engine.metrics.lead(1)
	r.engine.metrics.takeovers.Inc()
	g.take()
	r.held.forget(g.id)
	r.engine.metrics.held(r.held.count())
	g.log.Info("this ruler evaluates the group from now on", "last_slot", g.last, "missed", late)
	return true
}

// announce gives the state of a group that was just taken over to the ruler that stands by now: it may be needed before
// the next slot is over.
func (r *Ruler) announce(g *group) {
	if _, ok := g.begin(); !ok {
		return
	}
	if state, err := g.progress(false).encode(); err == nil {
		r.passOn(r.ctx, g, state)
	}
	g.finish()
}

// passOn gives the state of a group behind a slot to the other rulers that should have it. state lacks the series of
// recording rules. If one of them evaluates the group, too, this ruler gives up: whose group it is decides itself
// without it.
func (r *Ruler) passOn(ctx context.Context, g *group, state []byte) (conflict bool) {
	v := r.share.view()
	ctx, cancel := context.WithTimeout(ctx, min(askPatience, g.grid.interval/4))
	defer cancel()
	var mu sync.Mutex // guards conflict and g.sent
	var sending sync.WaitGroup
	for _, id := range v.owners(g.id) {
		p := v.peer(id)
		if p == nil {
			continue
		}
		mu.Lock()
		was := g.sent[id]
		mu.Unlock()
		sending.Go(func() {
			now, answer, err := g.give(ctx, p, state, was)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || answer.Evaluates {
				delete(g.sent, id)
			} else {
				g.sent[id] = now
			}
			if conflict = conflict || answer.Evaluates; err == nil {
				return
			}
			r.engine.metrics.holdFailures.Inc()
			if what := err.Error(); g.unheld != what {
				g.unheld = what
				g.log.Warn("another ruler does not hold the state of a group", "ruler", id, "err", err)
			}
		})
	}
	sending.Wait()
	return conflict
}

// give gives a ruler a state. was is what it is known to hold; nil = nothing.
func (g *group) give(ctx context.Context, to rulestate.Keeper, state []byte,
	was *sent) (now *sent, answer rulestate.HoldAnswer, err error) {
	for {
		series, now, err := g.changes(was)
		if err != nil {
			return nil, answer, err
		}
		h := rulestate.Held{Group: g.id.groupName(), Slot: g.last, State: state, Series: series}
		if was != nil {
			h.Base = was.slot
		}
		answer, err = to.Hold(ctx, h)
		if err == nil && answer.Lacks {
			if was != nil {
				was = nil
				continue
			}
			err = errs.E(errs.Internal, "it lacks a state that nothing was left out of")
		}
		return now, answer, err
	}
}
