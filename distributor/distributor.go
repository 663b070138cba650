package distributor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

// Writer is one member. Write may be called concurrently. A nil error says that all of s is in the member's WAL but what
// the failures name (Failure.Series is an index into s.Batch.Series, one of s.Series); with an error nothing is promised
// of any series. Write keeps no reference to s after it returns, unless it retains s.Batch; s.Series it may never keep.
// An error marked by errs.Unreached says that the member was not reached; any other is taken for one tenant's, unless nothing
// comes from the member. A Writer that is an io.Closer is closed when its member leaves the ring.
type Writer interface {
	Write(ctx context.Context, s wire.Shard) ([]wire.Failure, error)
}

// Ordered is a Writer that keeps the order of its writes.
type Ordered interface {
	Writer
	// WriteInOrder is Write. It calls placed, at most once and before it returns, when the member will get s before
	// whatever is written from then on.
	WriteInOrder(ctx context.Context, s wire.Shard, placed func()) ([]wire.Failure, error)
}

// Local is a Writer in this process. Where nothing is replicated it is called on the request's goroutine. It is not closed.
type Local struct{ Writer }

// Distributor replicates batches to the members of a ring. Its methods may be called concurrently.
type Distributor struct {
	log       *slog.Logger
	metrics   *metrics
	opts      Options
	placement func() ring.Placement
	dial      func(ring.Member) (Writer, error)
	gate      gate
	accounts  accounts
	fits      *fits                 // nil without limits
	rules     atomic.Pointer[rules] // of relabelling; nil without any
	known     *wire.Known
	pairs     *tracker
	writes    sync.Pool // of *write

	route atomic.Pointer[route] // of the newest placement; nil unless open

	mu     sync.Mutex // guards what follows
	state  state
	peers  map[string]*peer // by the member's ID
	redial time.Time        // when members that could not be dialed are tried again
	leave  sync.WaitGroup
	end    context.CancelFunc // of what runs in the background; nil before Open
}

type state uint8

const (
	created state = iota
	open
	closed
)

// route is a placement with the peers of its members.
type route struct {
	placement ring.Placement
	peers     []*peer // by index of the member; never nil
	undialed  bool    // some peers have no writer

	mu      sync.RWMutex // read-locked while a write queues its shards; guards retired
	retired bool         // peers may be closed: a newer route is to be used
}

// New makes a Distributor. placement gives the newest placement: it must be cheap, and its values comparable with ==
// (pointers, say) and equal only when nothing changed. It may give nil while there is no ring. dial makes the Writer of
// a member and is called once per member while that is in the ring under one address; it does not wait for the member to
// answer.
func New(log *slog.Logger, reg prometheus.Registerer, placement func() ring.Placement, dial func(ring.Member) (Writer, error), opts Options) (*Distributor, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("distributor: %w", err)
	}
	d := &Distributor{
		log: log, metrics: newMetrics(reg), opts: opts,
		placement: placement, dial: dial,
		peers: map[string]*peer{},
	}
	d.gate = gate{most: share{int64(opts.MaxRequests), opts.MaxRequestBytes}, metrics: d.metrics, byAddress: map[string]*share{}}
	d.accounts = accounts{metrics: d.metrics, byID: map[tenant.ID]*account{}, claimed: map[tenant.ID]*account{}}
	d.known = wire.NewKnown(opts.KnownSeries)
	watchKnown(reg, d.known)
	if opts.Limits != nil {
		d.fits = new(fits)
	}
	if err := d.SetRelabel(opts.Relabel); err != nil {
		return nil, fmt.Errorf("distributor: relabelling: %w", err)
	}
	d.pairs = newTracker(log, reg, opts.HA)
	d.writes.New = func() any { return &write{changed: make(chan struct{}, 1)} }
	return d, nil
}

// Open lets writes in. Members are dialed when the first write finds them in the ring.
func (d *Distributor) Open(context.Context, func(error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != created {
		return errors.New("distributor: opened twice")
	}
	d.state = open
	var ctx context.Context
	ctx, d.end = context.WithCancel(context.Background())
	d.pairs.start(ctx, &d.leave)
	return nil
}

// Close refuses further writes, gives the queued ones Options.WriteTimeout to be done and drops the rest.
func (d *Distributor) Close() error {
	d.mu.Lock()
	if d.end != nil {
		d.end()
	}
	d.state = closed
	d.retire(d.route.Swap(nil))
	for id, p := range d.peers {
		delete(d.peers, id)
		d.part(p)
	}
	d.mu.Unlock()
	d.leave.Wait()
	return nil
}

// acquire gives the route of the newest placement, read-locked: its peers take shards until it is unlocked.
func (d *Distributor) acquire() (*route, error) {
	for {
		p := d.placement()
		r := d.route.Load()
		if r == nil || r.placement != p || r.undialed {
			var err error
			if r, err = d.reroute(); err != nil {
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

// reroute makes the route of the newest placement the current one, unless it is. Peers of members that are new are
// started; peers of members that left get the shards of writes that began before, and are closed.
func (d *Distributor) reroute() (*route, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != open {
		return nil, errs.E(errs.Unavailable, "this distributor takes no writes now")
	}
	p := d.placement()
	if p == nil {
		return nil, errs.E(errs.Unavailable, "no ring of receivers yet")
	}
	now := time.Now()
	old := d.route.Load()
	if old != nil && old.placement == p && (!old.undialed || now.Before(d.redial)) {
		return old, nil
	}
	if rf := p.ReplicationFactor(); rf < 1 || rf > maxReplicas {
		return nil, errs.E(errs.Internal, "replication factor %d is not from 1 to %d", rf, maxReplicas)
	}
	d.redial = now.Add(time.Second)
	members := p.Members()
	r := &route{placement: p, peers: make([]*peer, len(members))}
	for i, m := range members {
		r.peers[i] = d.peer(m)
		r.undialed = r.undialed || !r.peers[i].reaches(m.Addr)
	}
	d.route.Store(r)
	d.retire(old)
	for id, p := range d.peers {
		if !slices.Contains(r.peers, p) {
			delete(d.peers, id)
			d.part(p)
		}
	}
	return r, nil
}

// retire waits until no write queues shards by r any more. With d.mu held.
func (d *Distributor) retire(r *route) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.retired = true
	r.mu.Unlock()
}

// peer gives the running peer of m, or one that refuses while m cannot be dialed. A member that has come back under another
// address keeps its peer, and what waits there for it. With d.mu held.
func (d *Distributor) peer(m ring.Member) *peer {
	p := d.peers[m.ID]
	if p != nil && p.reaches(m.Addr) {
		return p
	}
	w, err := d.dial(m)
	if p == nil {
		p = newPeer(d, m.ID)
		d.peers[m.ID] = p
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

// part closes p and its writer in the background. With d.mu held.
func (d *Distributor) part(p *peer) {
	d.leave.Go(func() {
		p.close()
		d.forget(p.id)
		d.hangUp(p.writer)
	})
}

// hangUp closes the writer of a member that is not there any more.
func (d *Distributor) hangUp(w Writer) {
	if c, ok := w.(io.Closer); ok {
		if err := c.Close(); err != nil {
			d.log.Warn("connection to a member did not close cleanly", "err", err)
		}
	}
}

// forget drops the metrics of a member, unless it is back.
func (d *Distributor) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.peers[id] == nil {
		d.metrics.forget(id)
	}
}
