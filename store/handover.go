package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

const (
	// ringInterval is how often a gateway looks who the others are.
	ringInterval = time.Second
	// askBatch is how many blocks one question is about, and askTimeout bounds it.
	askBatch   = 4096
	askTimeout = 5 * time.Second
)

// Share begins to follow the ring, if the gateway shares the bucket; until then it is not ready. It is a part of its
// own, since the ring that it asks opens later than the gateway. Unshare ends it. fail is never called.
func (g *Gateway) Share(ctx context.Context, _ func(error)) error {
	if g.opts.Sharing == nil {
		return nil
	}
	ctx, g.unshare = context.WithCancel(context.WithoutCancel(ctx))
	g.follows.Go(func() { g.share(ctx) })
	return nil
}

// Unshare ends what Share began. The blocks stay as they are. It is idempotent.
func (g *Gateway) Unshare() error {
	if g.unshare != nil {
		g.unshare()
	}
	g.follows.Wait()
	return nil
}

// Settled is nil once the gateway knows with whom it shares the bucket, which takes 15 s after Share at most, whatever
// the bucket does. Until then it serves nothing, and the error says so.
func (g *Gateway) Settled() error {
	g.planMu.Lock()
	defer g.planMu.Unlock()
	if g.settling != nil {
		return errs.E(errs.Unavailable, "store gateway: with whom it shares the bucket is not known yet")
	}
	return nil
}

// share follows the ring, and lets go of blocks that others serve, until ctx ends. It does the one while it waits for
// the other: gateways that do not answer must not keep this one from taking over blocks.
func (g *Gateway) share(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() {
		every(ctx, askInterval, func() {
			peers, _ := g.opts.Sharing.Peers()
			g.handOver(ctx, peers)
		})
	})
	every(ctx, ringInterval, func() {
		peers, settled := g.opts.Sharing.Peers()
		g.follow(ownersOf(g.opts.Sharing, peers), settled)
	})
}

// every calls f at once and then again after each interval, until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		f()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// follow plans anew when the ring is another one.
func (g *Gateway) follow(o owners, settled bool) {
	g.planMu.Lock()
	defer g.planMu.Unlock()
	now := g.opts.Now()
	switch {
	case g.settling != nil:
		if !g.settling.done(o, settled, now) {
			return
		}
		g.settling = nil
	case o.equal(g.owners):
		return
	}
	g.log.Info("blocks are shared", "gateways", len(o.members), "replication_factor", o.copies)
	g.owners, g.handover = o, newHandover(now)
	g.plan()
}

// handOver asks the others what they serve, and lets go of blocks that they serve or have replaced.
func (g *Gateway) handOver(ctx context.Context, peers []Peer) {
	g.planMu.Lock()
	s, began := g.current, g.handover
	g.planMu.Unlock()
	if s == nil {
		return
	}
	others := slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool { return p.ID == g.opts.Sharing.Self })
	wanted, broken := s.pending(), s.broken()
	responses := askAll(ctx, others, s.questions(wanted, broken))
	heard := func(member string, id ulid.ULID) (state series.BlockState, ok bool) {
		if member == s.owners.self {
			g.opener.want(s.unopened([]ulid.ULID{id}))
			return s.state(id, always), true
		}
		state, ok = responses[member][id]
		return state, ok
	}
	g.metrics.unserved.Set(float64(s.unserved(broken, heard)))
	var live []string
	for _, p := range others {
		live = append(live, p.ID)
	}
	g.planMu.Lock()
	defer g.planMu.Unlock()
	if g.handover != began || ctx.Err() != nil { // the responses are about another ring
		return
	}
	now := g.opts.Now()
	late := g.handover.late(now)
	if g.handover.note(wanted, func(p pending) bool { return s.owners.mayLetGo(p, live, heard, late) }, now) > 0 {
		g.plan()
	}
}

// pending are the blocks that are served here only until others serve their samples.
func (s *snapshot) pending() (all []pending) {
	for id, p := range s.planned {
		if p.place == elsewhere || p.place >= owned && len(p.by) == 0 {
			continue
		}
		w := pending{id: id, moved: p.place == kept}
		for _, m := range p.by {
			w.by = append(w.by, m.ULID)
		}
		all = append(all, w)
	}
	return all
}

// broken are the blocks that this gateway owns and cannot open.
func (s *snapshot) broken() (ids []ulid.ULID) {
	for id, p := range s.planned {
		if p.place >= owned && p.fault != nil && p.needed() {
			ids = append(ids, id)
		}
	}
	return ids
}

// unserved is how many of the broken blocks no other owner serves.
func (s *snapshot) unserved(broken []ulid.ULID, heard said) (n int) {
	for _, id := range broken {
		if !slices.ContainsFunc(s.owners.of(id), func(member string) bool {
			state, ok := heard(member, id)
			return ok && state.Served
		}) {
			n++
		}
	}
	return n
}

// questions are the blocks about which each gateway is asked: their owners about those that moved or are broken here,
// and everybody about those that replace others.
func (s *snapshot) questions(wanted []pending, broken []ulid.ULID) func(member string) []ulid.ULID {
	of, all := map[string][]ulid.ULID{}, map[ulid.ULID]bool{}
	add := func(id ulid.ULID) {
		for _, member := range s.owners.of(id) {
			of[member] = append(of[member], id)
		}
	}
	for _, p := range wanted {
		if p.moved {
			add(p.id)
		}
		for _, id := range p.by {
			all[id] = true
		}
	}
	for _, id := range broken {
		add(id)
	}
	return func(member string) []ulid.ULID {
		ids := slices.Clone(of[member])
		for id := range all {
			ids = append(ids, id)
		}
		return ids
	}
}

// askAll asks all gateways at the same time, in questions of bounded size. A gateway that does not answer one of them
// is not asked the rest.
func askAll(ctx context.Context, peers []Peer,
	about func(member string) []ulid.ULID) map[string]map[ulid.ULID]series.BlockState {
	out := map[string]map[ulid.ULID]series.BlockState{}
	var mu sync.Mutex // guards out
	var wg sync.WaitGroup
	for _, p := range peers {
		ids := about(p.ID)
		if len(ids) == 0 {
			continue
		}
		wg.Go(func() {
			got := map[ulid.ULID]series.BlockState{}
			for batch := range slices.Chunk(ids, askBatch) {
				ctx, cancel := context.WithTimeout(ctx, askTimeout)
				states, err := p.States(ctx, batch)
				cancel()
				if err != nil || len(states) != len(batch) {
					break
				}
				for i, id := range batch {
					got[id] = states[i]
				}
			}
			mu.Lock()
			defer mu.Unlock()
			out[p.ID] = got
		})
	}
	wg.Wait()
	return out
}

// state is what this gateway says of a block that is in its view by itself. It serves what it has opened once, and what
// is in the window as a whole.
func (s *snapshot) state(id ulid.ULID, w span) (state series.BlockState) {
	state.Known = s.view.Metas[id] != nil
	if p := s.planned[id]; p != nil {
		state.Served = p.serves() && w.has(p) && p.b.WasOpen()
		state.Owned = state.Served && p.place >= owned
	}
	return state
}

// BlockStates returns what this gateway says of each block now. What it has never opened it does not serve yet: it
// begins to open that.
func (g *Gateway) BlockStates(ids []ulid.ULID) []series.BlockState {
	g.mu.RLock()
	s := g.current
	g.mu.RUnlock()
	out := make([]series.BlockState, len(ids))
	if s == nil {
		return out
	}
	w := g.window(s)
	unsure := map[ulid.ULID]bool{} // others may have their samples
	for i, id := range ids {
		if out[i] = s.state(id, w); !out[i].Served {
			unsure[id] = true
		}
	}
	if len(unsure) == 0 {
		return out
	}
	g.opener.want(s.unopened(ids))
	known, served, unopened := s.sources(unsure, w)
	g.opener.want(unopened)
	for i, id := range ids {
		out[i].Known = out[i].Known || known[id]
		out[i].Served = out[i].Served || served[id]
	}
	return out
}

// sources finds the blocks of ids whose samples other blocks of the view have, and those that these serve here.
// unopened are such others that would serve them, and were never opened.
func (s *snapshot) sources(ids map[ulid.ULID]bool,
	w span) (known, served map[ulid.ULID]bool, unopened []ulid.ULID) {
	madeOf := s.made.of(s.planned)
	var have, serve []*block.Meta
	seen := map[*planned]bool{}
	for id := range ids {
		for _, p := range madeOf[id] {
			if seen[p] {
				continue
			}
			seen[p] = true
			have = append(have, p.meta)
			switch {
			case !p.serves() || !w.has(p):
			case p.b.WasOpen():
				serve = append(serve, p.meta)
			default:
				unopened = append(unopened, p.meta.ULID)
			}
		}
	}
	return s.view.SourcesOf(have), s.view.SourcesOf(serve), unopened
}

// sourceIndex has the blocks that were made of each source. It is made for the first question that needs it, so that
// the others cost no more than their ids.
type sourceIndex struct {
	once   sync.Once
	blocks map[ulid.ULID][]*planned
}

// of returns the needed ones of all, by the ids of the other blocks that they were made of. Each call must have the
// same blocks.
func (x *sourceIndex) of(all map[ulid.ULID]*planned) map[ulid.ULID][]*planned {
	x.once.Do(func() {
		x.blocks = map[ulid.ULID][]*planned{}
		for _, p := range all {
			if !p.needed() {
				continue
			}
			for _, id := range p.meta.Sources() {
				if id != p.meta.ULID { // what a block says of itself is known without this
					x.blocks[id] = append(x.blocks[id], p)
				}
			}
		}
	})
	return x.blocks
}
