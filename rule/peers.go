package rule

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/rulestate"
)

const (
	// A ruler looks every lookEvery whether others have come or gone, and asks each of them every askEvery looks which
	// groups it has.
	lookEvery = 250 * time.Millisecond
	askEvery  = 4
	// askPatience bounds one question to another ruler.
	askPatience = 3 * time.Second
	// A ruler that starts takes no group before the others are known and were the same for stableFor, or stableMost has
	// passed. So rulers that start together do not hand groups to each other.
	stableFor  = 2 * time.Second
	stableMost = 10 * time.Second
)

// share follows the other rulers.
type share struct {
	opts   *Sharing
	now    atomic.Pointer[view]
	leaves atomic.Bool   // this ruler is about to stop
	kick   chan struct{} // makes the loop look at once
	look   time.Duration // lookEvery
}

func newShare(opts *Sharing) *share {
	s := &share{opts: opts, kick: make(chan struct{}, 1), look: lookEvery}
	s.now.Store(&view{self: opts.Self.ID, own: opts.Self, among: opts.Owners, changed: make(chan struct{})})
	return s
}

func (s *share) view() *view { return s.now.Load() }

// leave tells the others, when they ask, that this ruler is about to stop.
func (s *share) leave() {
	s.leaves.Store(true)
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// asked is what another ruler said of itself.
type asked struct {
	peerView
	known rulestate.Known
	err   error
}

// follow keeps the view until stop is closed.
func (s *share) follow(ctx context.Context, stop <-chan struct{}) {
	var pending sync.WaitGroup
	defer pending.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan asked, 16)
	peers := map[string]*peerView{}
	lastAsked, asking, heard := map[string]time.Time{}, map[string]bool{}, map[string]bool{}
	began, since, settled := time.Now(), time.Now(), false
	tick := time.NewTicker(s.look)
	defer tick.Stop()
	for {
		all, known := s.opts.Peers()
		now := time.Now()
		present := map[string]bool{}
		for _, p := range all {
			if p.ID == s.opts.Self.ID {
				continue
			}
			present[p.ID] = true
			have := peers[p.ID]
			if have == nil || have.Zone != p.Zone {
				have, since = &peerView{}, now
				peers[p.ID] = have
			}
			have.Peer = p
			if asking[p.ID] || now.Sub(lastAsked[p.ID]) < askEvery*s.look {
				continue
			}
			asking[p.ID], lastAsked[p.ID] = true, now
			of := *have
			pending.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, askPatience)
				defer cancel()
				known, err := of.Groups(ctx, of.version)
				select {
				case answers <- asked{of, known, err}:
				case <-ctx.Done():
				}
			})
		}
		for id := range peers {
			if !present[id] {
				since = now
				delete(peers, id)
				delete(heard, id)
			}
		}
		everybody := len(heard) == len(peers)
		settled = settled || known && (everybody && now.Sub(since) >= stableFor || now.Sub(began) >= stableMost)
		s.show(peers, settled && known)
		select {
		case <-stop:
			return
		case <-tick.C:
		case <-s.kick:
		case a := <-answers:
			delete(asking, a.ID)
			if p := peers[a.ID]; p != nil {
				heard[a.ID] = true
				p.hear(a)
			}
		}
	}
}

// hear notes what a ruler said of itself. One that does not answer has what it had: whether it is alive is for Peers to
// say.
func (p *peerView) hear(a asked) {
	if a.err != nil {
		return
	}
	p.leaves = a.known.Leaves
	if a.known.Groups == nil && a.known.Version == p.version {
		return
	}
	p.version, p.groups = a.known.Version, make(map[uint64]bool, len(a.known.Groups))
	for _, h := range a.known.Groups {
		p.groups[h] = true
	}
}

// show makes the current view from peers, if it differs.
func (s *share) show(peers map[string]*peerView, settled bool) {
	old := s.view()
	v := &view{self: old.self, own: old.own, among: old.among, settled: settled, leaves: s.leaves.Load(),
		changed: make(chan struct{})}
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		v.peers = append(v.peers, *peers[id])
	}
	slices.SortFunc(v.peers, func(a, b peerView) int { return cmp.Compare(a.ID, b.ID) })
	if v.equal(old) {
		return
	}
	s.now.Store(v)
	close(old.changed)
}
