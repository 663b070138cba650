package rpc

import (
	"context"
	"errors"
	"io"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// Select asks the peer. The call is under way when Select returns, so that a fan-out waits for the slowest peer and not
// for all in turn. gRPC's flow control bounds what the peer sends ahead of Next.
func (c *Client) Select(ctx context.Context, r *series.Request) series.Set {
	ctx, cancel := context.WithCancel(ctx)
	own := *r // the caller may change r once Select has returned
	r = &own
	p := c.peer.Load()
	set := &remoteSet{client: c, cancel: cancel, opened: make(chan struct{})}
	go func() {
		defer close(set.opened)
		defer c.survive("open a Series stream", func(err error) { set.err = err })
		set.stream, set.err = c.openSeries(ctx, p, r)
	}()
	if p != nil {
		return c.own(p, set, r)
	}
	return &lateSet{Set: set, ready: set.opened, finish: func() series.Set {
		if p := c.peer.Load(); p != nil {
			return c.own(p, set, r)
		}
		return set // it failed
	}}
}

// own is set without the labels that a Thanos store did not drop itself.
func (c *Client) own(p *peer, set series.Set, r *series.Request) series.Set {
	if p.hearth || p.without {
		return set
	}
	return series.Limit(series.Relabel(set, labels.EmptyLabels(), c.withoutFor(p, r.WithoutLabels), c.opts.SortBudget), r.Limit)
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
	} else {
		req.Limit = 0 // series may become one when the labels are taken off here
	}
	s, err := c.openStream(c.outgoing(ctx, r.Tenant), "/"+serviceStore+"/Series", req)
	return s, c.named(err)
}

// remoteSet reads a Series stream. A series may come in several frames; they are one here.
type remoteSet struct {
	client *Client
	cancel context.CancelFunc
	opened chan struct{} // closed when stream or err is set
	stream grpc.ClientStream

	decoder seriesDecoder
	next    int // in decoder.out
	at      series.Series
	err     error
	done    bool
}

func (s *remoteSet) Next() bool {
	if !s.pull() {
		return false
	}
	s.at = s.take()
	for s.pull() {
		ahead := &s.decoder.out[s.next]
		switch order := labels.Compare(ahead.Labels, s.at.Labels); {
		case order > 0:
			return true
		case order < 0:
			s.fail(errs.E(errs.Internal, "%s: series out of order: %s after %s", s.client.addr, ahead.Labels, s.at.Labels))
			return false
		}
		s.at.Chunks = joinChunks(s.at.Chunks, s.take().Chunks)
	}
	return s.err == nil
}

func (s *remoteSet) take() series.Series {
	s.next++
	return s.decoder.out[s.next-1]
}

// pull makes sure that there is a series to take. It is false at the end and after an error.
func (s *remoteSet) pull() bool {
	if s.done {
		return false
	}
	for s.next >= len(s.decoder.out) {
		if !s.receive() {
			return false
		}
	}
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
			s.fail(s.client.named(err))
		}
		return false
	}
	s.next = 0
	if err := s.decoder.frame(frame.data); err != nil {
		s.fail(s.client.named(err))
		return false
	}
	return true
}

func (s *remoteSet) fail(err error) {
	s.err, s.done = err, true
	s.cancel()
}

func (s *remoteSet) At() series.Series         { return s.at }
func (s *remoteSet) Warnings() series.Warnings { return s.decoder.warnings }

func (s *remoteSet) Err() error {
	if !s.done {
		return nil
	}
	return s.err
}

// Close ends the call, also before its end. What At returned stays valid as long as somebody refers to it.
func (s *remoteSet) Close() error {
	s.cancel()
	<-s.opened
	s.done = true
	return nil
}

// lateSet is a set whose final form is known once ready is closed: at the first Next.
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
