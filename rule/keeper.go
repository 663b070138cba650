package rule

import (
	"context"
	"slices"
	"time"

	"github.com/hearth-metrics/hearth/internal/rulestate"
)

var _ rulestate.Keeper = (*Ruler)(nil)

// Groups implements rulestate.Keeper.
func (r *Ruler) Groups(_ context.Context, version uint64) (rulestate.Known, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := rulestate.Known{Version: 1, Leaves: r.share != nil && r.share.leaves.Load()}
	hashes := make([]uint64, 0, len(r.groups))
	for id := range r.groups {
		h := id.ringHash()
		hashes = append(hashes, h)
		out.Version += h * 0x9e3779b97f4a7c15 // in any order
	}
	if out.Version == 0 {
		out.Version = 1
	}
	if out.Version != version {
		slices.Sort(hashes)
		out.Groups = hashes
	}
	return out, nil
}

// Take implements rulestate.Keeper. It waits for nothing: while a slot is evaluated, or groups are exchanged, it says
// so.
func (r *Ruler) Take(_ context.Context, name rulestate.GroupName) (rulestate.Taken, error) {
	if r.share == nil {
		return rulestate.Taken{}, errAlone
	}
	if !r.applying.TryRLock() {
		return rulestate.Taken{Busy: true}, nil
	}
	defer r.applying.RUnlock()
	id := idOfName(name)
	r.mu.Lock()
	g := r.groups[id]
	r.mu.Unlock()
	if g != nil && g.led() {
		if r.share.view().evaluates(id) {
			return rulestate.Taken{Keeps: true}, nil
		}
		if !r.giveUp(g) {
			return rulestate.Taken{Busy: true}, nil
		}
	}
	return rulestate.Taken{State: r.held.get(id)}, nil
}

// Hold implements rulestate.Keeper.
func (r *Ruler) Hold(_ context.Context, in rulestate.Held) (rulestate.HoldAnswer, error) {
	if r.share == nil {
		return rulestate.HoldAnswer{}, errAlone
	}
	id := idOfName(in.Group)
	r.mu.Lock()
	g := r.groups[id]
	r.mu.Unlock()
	if g != nil && g.led() {
		return rulestate.HoldAnswer{Evaluates: true}, nil
	}
	ok, err := r.held.put(in)
	r.engine.metrics.held(r.held.count())
	return rulestate.HoldAnswer{Lacks: !ok}, err
}

// giveUp ends the evaluation of a group here and keeps its state for whoever asks. It is false while a slot is
// evaluated; then the next one waits for a moment.
func (r *Ruler) giveUp(g *group) bool {
	p := g.release(time.Now().Add(giveUpPatience))
	if p == nil {
		return false
	}
	g.sendBack(r.ctx, &r.engine)
	r.held.keep(p)
	g.log.Info("the group is another ruler's from now on", "last_slot", p.slot)
	r.engine.metrics.held(r.held.count())
	r.engine.metrics.forget(g)
	r.engine.metrics.lead(-1)
	return true
}

// giveUpPatience is for how long no slot is begun after another ruler has asked for the group.
const giveUpPatience = 2 * time.Second
