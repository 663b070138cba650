package rpc

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

// A peer that takes nothing of what it is sent, or a trickle, would keep a call, and what the call holds (a set over a head, an
// answer), for as long as it likes. So sends wait with httpx.ReaderTime, as HTTP answers do. gRPC has no such limit of its own,
// and nothing that stops a send but the end of the call's context; each call of a server therefore begins with a context that
// it can end itself.

// slowestReader is the rate, in bytes per send limit, below which a reader falls behind: 17 KiB per second by default. It is a
// quarter of what HTTP asks, as a querier merges many streams, and takes from each as much as its own client takes of all,
// divided by their number.
const slowestReader = 512 << 10

// errStalled ends a call whose peer did not take what it was sent.
func errStalled(limit time.Duration) error {
	return errs.E(errs.Unavailable, "the peer took nothing of what it was sent for %s, or is behind %d bytes in as long by as much", limit, slowestReader)
}

// ender ends a server's call from inside.
type ender struct {
	limit time.Duration // that a reader may be behind, and a wait for the request may take
	end   context.CancelCauseFunc
}

type enderKey struct{}

// begin gives a new call a context that it can end. gRPC calls it before the call exists, on the connection's goroutine.
func (s *Server) begin(ctx context.Context, _ *tap.Info) (context.Context, error) {
	ctx, end := context.WithCancelCause(ctx)
	return endedContext{context.WithValue(ctx, enderKey{}, ender{s.opts.SendTimeout, end})}, nil
}

// endedContext is a context that ended by a deadline, to those who ask, when we ended it: gRPC makes a status of that before
// the call can return one.
type endedContext struct{ context.Context }

// Err is nil until the context ends.
func (c endedContext) Err() error {
	err := c.Context.Err()
	if err != nil && context.Cause(c.Context) != err {
		return context.DeadlineExceeded
	}
	return err
}

// receive runs what receives the message that a call begins with. A peer that does not send it in time loses the call.
func receive(ctx context.Context, recv func() error) error {
	e, ok := ctx.Value(enderKey{}).(ender)
	if !ok {
		return recv()
	}
	late := time.AfterFunc(e.limit, func() { e.end(errs.E(errs.Unavailable, "the peer sent no whole request for %s", e.limit)) })
	err := recv()
	late.Stop()
	return because(ctx, err)
}

// timedSends is a stream, of a server or a client, whose sends wait for the peer for a bounded time.
type timedSends struct {
	limit    time.Duration
	patience httpx.ReaderTime
	end      context.CancelCauseFunc // ends the call
	timer    *time.Timer             // nil before the first send
	before   int                     // bytes of the message sent last
}

func newTimedSends(limit time.Duration, end context.CancelCauseFunc) timedSends {
	return timedSends{limit: limit, patience: httpx.NewReaderTime(limit, slowestReader), end: end}
}

// forgive forgets how far the peer is behind. A sender that holds nothing for others does that before each message: a
// receiver that is overloaded takes little for long, and another stream would not help it.
func (s *timedSends) forgive() { s.patience = httpx.NewReaderTime(s.limit, slowestReader) }

// send runs one send of m, which waits until the message before it has been taken. Sends of one stream do not overlap.
func (s *timedSends) send(ctx context.Context, m any, send func(any) error) error {
	wait := s.patience.Begin(time.Now(), s.before)
	s.before = sizeOfMessage(m)
	if s.timer == nil {
		s.timer = time.AfterFunc(wait, func() { s.end(errStalled(s.limit)) })
	} else {
		s.timer.Reset(wait)
	}
	err := send(m)
	s.timer.Stop()
	s.patience.End(time.Now())
	return because(ctx, err)
}

// because is err, or why we ended the call.
func because(ctx context.Context, err error) error {
	var ours *errs.Error
	if cause := context.Cause(ctx); err != nil && errors.As(cause, &ours) {
		return cause
	}
	return err
}

// sizeOfMessage is how many bytes m has, about.
func sizeOfMessage(m any) int {
	switch m := m.(type) {
	case *encoded:
		return m.size()
	case generated:
		return m.SizeVT()
	}
	return 0
}

// timedServerStream is a server's stream with timed sends.
type timedServerStream struct {
	grpc.ServerStream
	timedSends
}

func timedServer(ss grpc.ServerStream) grpc.ServerStream {
	e, ok := ss.Context().Value(enderKey{}).(ender)
	if !ok {
		return ss
	}
	return &timedServerStream{ss, newTimedSends(e.limit, e.end)}
}

// SendMsg sends m, or ends the call when the peer takes nothing for too long.
func (s *timedServerStream) SendMsg(m any) error {
	return s.send(s.Context(), m, s.ServerStream.SendMsg)
}

// timedListener gives connections whose writes fail when the peer's side takes nothing for as long as limit. gRPC's
// keepalive does not find that where the peer goes on sending.
type timedListener struct {
	net.Listener
	limit time.Duration
}

// Accept waits for a connection.
func (l timedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &timedConn{c, l.limit}, nil
}

type timedConn struct {
	net.Conn
	limit time.Duration
}

// writeAtOnce is how many bytes have one limit to be taken.
const writeAtOnce = 64 << 10

// Write writes b. gRPC closes a connection whose write fails.
func (c *timedConn) Write(b []byte) (n int, err error) {
	for {
		part := b[n:min(len(b), n+writeAtOnce)]
		if err := c.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(part)
		n += m
		if err != nil || n == len(b) {
			return n, err
		}
	}
}
