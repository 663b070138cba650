package rpc

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Select does what series.Source describes. The call is under way when Select returns: a query of many peers then waits
// for the slowest one, and not for one after the other. gRPC's flow control bounds what the peer sends ahead of Next.
func (c *Client) Select(ctx context.Context, r *series.Request) series.Set {
	ctx, cancel := context.WithCancel(ctx)
	ctx, end := c.start(ctx, "select from source")
	own := *r // the caller may change r after Select has returned
	r = &own
	p := c.peer.Load()
	set := &remoteSet{client: c, ctx: ctx, cancel: cancel, end: end, opened: make(chan struct{})}
	set.decoder.faults.From = c.addr
	go func() {
		defer close(set.opened)
		defer c.recoverPanic("open a Series stream", func(err error) { set.err = err })
		set.stream, set.err = c.openSeries(ctx, p, r)
	}()
	checked := series.Checked(set, c.addr)
	if p != nil {
		return c.own(ctx, p, checked, r)
	}
	return &lateSet{Set: checked, ready: set.opened, finish: func() series.Set {
		if p := c.peer.Load(); p != nil {
			return c.own(ctx, p, checked, r)
		}
		return checked // the call failed, and checked returns the error
	}}
}

// own removes from set the series of other tenants, and the labels that a Thanos store did not drop itself.
func (c *Client) own(ctx context.Context, p *peer, set series.Set, r *series.Request) series.Set {
	if p.hearth {
		return set
	}
	if !p.tenants.everywhere() && !p.single {
		set = &ownSet{Set: set, ctx: ctx, client: c, peer: p, tenant: r.Tenant}
	}
	if !p.without {
		set = series.Relabel(set, labels.EmptyLabels(), c.withoutFor(p, r.WithoutLabels), c.opts.SortBudget)
	}
	b := labels.NewBuilder(labels.EmptyLabels())
	mixed := p.attributes((*announced).mixed)
	set = series.Strip(set, mixed, func(ls labels.Labels) labels.Labels { return p.strip(b, ls) }, c.opts.SortBudget)
	return series.Limit(set, r.Limit)
}

// ownSet leaves out the series of streams of other tenants.
type ownSet struct {
	series.Set
	ctx    context.Context
	client *Client
	peer   *peer
	tenant tenant.ID
	// refreshed says that peer is from an Info that was made after the first series came.
	refreshed bool
	err       error
}

func (s *ownSet) Next() bool {
	for s.err == nil && s.Set.Next() {
		ls := s.Set.At().Labels
		if !ls.Has(s.peer.tenants.name) {
			return true
		}
		if !s.refreshed {
			s.refreshed = true
			now, err := s.client.current(s.ctx, s.peer)
			if err != nil {
				s.err = err
				return false
			}
			s.peer = now
		}
		if !s.peer.foreign(s.tenant, ls) {
			return true
		}
	}
	return false
}

func (s *ownSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.Set.Err()
}

func (c *Client) openSeries(ctx context.Context, p *peer, r *series.Request) (grpc.ClientStream, error) {
	if p == nil {
		var err error
		if p, err = c.known(ctx); err != nil {
			return nil, err
		}
	}
	sent := *r
	sent.Matchers = c.matchersFor(p, r.Tenant, r.Matchers)
	req := requestToPB(&sent, c.opts.BatchSize)
	req.PartialResponseStrategy, req.PartialResponseDisabled = strategyFor(p), p.hearth
	if p.hearth || p.without {
		req.WithoutReplicaLabels = c.withoutFor(p, r.WithoutLabels)
	}
	if !p.hearth && (!p.without || len(p.attributes((*announced).mixed)) > 0) {
		req.Limit = 0 // several series may become one when labels are removed here
	}
	s, err := c.openStream(c.outgoing(ctx, r.Tenant), "/"+serviceStore+"/Series", req)
	return s, c.withAddress(err)
}

// remoteSet yields the series of a Series stream in the order in which they come. One series may be in several frames.
type remoteSet struct {
	client *Client
	ctx    context.Context
	cancel context.CancelFunc
	end    func(error)   // of the span; called once, by Close
	opened chan struct{} // closed when stream or err is set
	stream grpc.ClientStream

	decoder seriesDecoder
	next    int // in decoder.out
	at      series.Series
	err     error
	done    bool
}

func (s *remoteSet) Next() bool {
	if s.done {
		return false
	}
	for s.next >= len(s.decoder.out) {
		if !s.receive() {
			return false
		}
	}
	s.at = s.decoder.out[s.next]
	s.next++
	return true
}

func (s *remoteSet) receive() bool {
	<-s.opened
	if s.err != nil {
		s.fail(s.err)
		return false
	}
	var frame rawFrame
	if err := s.stream.RecvMsg(&frame); err != nil {
		s.done = true
		if !isEnd(err) {
			s.fail(s.client.withAddress(err))
		}
		return false
	}
	s.next = 0
	err := s.decoder.frame(frame.data)
	if err == nil {
		err = tellCoverage(s.ctx, s.decoder.takeCoverage())
	}
	if err != nil {
		s.fail(s.client.withAddress(err))
		return false
	}
	return true
}

func (s *remoteSet) fail(err error) {
	s.err, s.done = err, true
	s.cancel()
}

func (s *remoteSet) At() series.Series { return s.at }

func (s *remoteSet) Warnings() series.Warnings {
	return append(slices.Clip(s.decoder.warnings), s.decoder.faults.Warnings()...)
}

func (s *remoteSet) Err() error {
	if !s.done {
		return nil
	}
	return s.err
}

// Close ends the call, also when series are left. Series that At returned stay valid.
func (s *remoteSet) Close() error {
	s.cancel()
	<-s.opened
	s.done = true
	if s.end != nil {
		s.end(s.err)
		s.end = nil
	}
	return nil
}

// lateSet becomes the set that finish returns. The first Next waits for ready and then calls finish.
type lateSet struct {
	series.Set
	ready  chan struct{}
	finish func() series.Set
}

func (s *lateSet) Next() bool {
	if s.finish != nil {
		<-s.ready
		s.Set, s.finish = s.finish(), nil
	}
	return s.Set.Next()
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) }
