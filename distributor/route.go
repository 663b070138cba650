package distributor

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/ring"
)

// destination is where the series of a request go: a source of placements, and the members of the newest one.
type destination struct {
	placement func() ring.Placement // cheap; its values are comparable with ==, and nil while there is none
	route     atomic.Pointer[route] // of the newest placement; nil unless the Distributor is open

	// Guarded by Distributor.mu.
	members map[string]*member // by the member's ID
	redial  time.Time          // when members that could not be dialed are tried again
}

// destinations are all there are. d.mu is held.
func (d *Distributor) destinations() []*destination {
	return append([]*destination{&d.ring}, d.others...)
}

// placedAt is a destination with a placement that stays the same.
func (d *Distributor) placedAt(p ring.Placement) *destination {
	to := &destination{placement: func() ring.Placement { return p }, members: map[string]*member{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.others = append(d.others, to)
	return to
}

// route is a placement with the connections to its members.
type route struct {
	placement ring.Placement
	members   []*member // by the index of the member in placement; never nil
	undialed  bool      // some members have no writer

	mu      sync.RWMutex // read-locked while a write queues its shards; guards retired
	retired bool         // members may be closed: a newer route is to be used
}

// quorum is how many good answers acknowledge a write.
func (d *Distributor) quorum(rf int) int {
	if rf == 2 && d.opts.ThanosRF2 {
		return 1
	}
	return ring.Quorum(rf)
}

// acquire gives the route of the newest placement, read-locked: its members take shards until it is unlocked.
func (d *Distributor) acquire(to *destination) (*route, error) {
	for {
		p := to.placement()
		r := to.route.Load()
		if r == nil || r.placement != p || r.undialed {
			var err error
			if r, err = d.reroute(to); err != nil {
				return nil, err
			}
		}
		r.mu.RLock()
		if !r.retired {
			return r, nil
		}
		r.mu.RUnlock()
	}
}

// reroute makes the route of the newest placement the current one, unless it is. It starts members that are new.
// Members that left get the shards of writes that began before, and are closed.
func (d *Distributor) reroute(to *destination) (*route, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != open {
		return nil, errs.E(errs.Unavailable, "this distributor takes no writes now")
	}
	p := to.placement()
	if p == nil {
		return nil, errs.E(errs.Unavailable, "no ring of receivers yet")
	}
	now := time.Now()
	old := to.route.Load()
	if old != nil && old.placement == p && (!old.undialed || now.Before(to.redial)) {
		return old, nil
	}
	if rf := p.ReplicationFactor(); rf < 1 || rf > maxReplicas {
		return nil, errs.E(errs.Internal, "replication factor %d is not from 1 to %d", rf, maxReplicas)
	}
	to.redial = now.Add(time.Second)
	members := p.Members()
	r := &route{placement: p, members: make([]*member, len(members))}
	for i, m := range members {
		r.members[i] = d.memberOf(to, m)
		r.undialed = r.undialed || !r.members[i].reaches(m.Addr)
	}
	to.route.Store(r)
	d.retire(old)
	for id, gone := range to.members {
		if !slices.Contains(r.members, gone) {
			delete(to.members, id)
			d.part(gone)
		}
	}
	return r, nil
}

// retire waits until no write queues shards by r any more. d.mu is held.
func (d *Distributor) retire(r *route) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.retired = true
	r.mu.Unlock()
}

// memberOf gives the running member for m. While m cannot be dialed its member refuses all shards. A member that comes
// back under another address keeps its queues. d.mu is held.
func (d *Distributor) memberOf(to *destination, m ring.Member) *member {
	p := to.members[m.ID]
	if p != nil && p.reaches(m.Addr) {
		return p
	}
	w, err := d.dial(m)
	if p == nil {
		p = newMember(d, m.ID)
		to.members[m.ID] = p
	}
	if err != nil {
		if p.undial(err) {
			d.log.Error("member cannot be dialed", "member", m.ID, "address", m.Addr, "err", err)
		}
		return p
	}
	if old := p.connect(m.Addr, w); old != nil {
		d.log.Info("member has another address", "member", m.ID, "address", m.Addr)
		d.leave.Go(func() { d.hangUp(old) })
	}
	return p
}

// part closes p and its writer in the background. d.mu is held.
func (d *Distributor) part(p *member) {
	d.leave.Go(func() {
		p.close()
		d.forget(p.id)
		d.hangUp(p.writer)
	})
}

// hangUp closes the writer of a member that left.
func (d *Distributor) hangUp(w Writer) {
	if c, ok := w.(io.Closer); ok {
		if err := c.Close(); err != nil {
			d.log.Warn("connection to a member did not close cleanly", "err", err)
		}
	}
}

// forget drops the metrics of a member, unless it came back.
func (d *Distributor) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, to := range d.destinations() {
		if to.members[id] != nil {
			return
		}
	}
	d.metrics.forget(id)
}
