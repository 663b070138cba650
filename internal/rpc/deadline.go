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

// A peer that reads nothing, or only a trickle, would keep a call open for as long as it likes, with everything that
// the call holds (a set over a head, a response). So sends wait with httpx.ReaderTime, as HTTP responses do. gRPC has
// no such limit of its own, and only the end of the call's context stops a send. So each call of a server begins with a
// context that the server can end.

// slowestReader is the rate, in bytes per send limit, below which a reader falls behind: 17 KiB per second by default.
// It is a quarter of what HTTP demands. A querier merges many streams for one client, so that it reads each of them at
// only a part of that client's rate.
const slowestReader = 512 << 10

// errStalled is the error of a call whose peer reads too slowly.
func errStalled(limit time.Duration) error {
	return errs.E(errs.Unavailable,
		"the peer took nothing of what it was sent for %s, or is behind %d bytes in as long by as much", limit, slowestReader)
}

// ender lets the server end a call. It travels in the call's context.
type ender struct {
	limit time.Duration // how far a reader may be behind, and how long a request may take to come
	end   context.CancelCauseFunc
}

type enderKey struct{}

// begin gives a new call a context with an ender. gRPC calls it before the call exists, on the connection's goroutine.
func (s *Server) begin(ctx context.Context, _ *tap.Info) (context.Context, error) {
	ctx, end := context.WithCancelCause(ctx)
	return endedContext{context.WithValue(ctx, enderKey{}, ender{s.opts.SendTimeout, end})}, nil
}

// endedContext claims that it ended by a deadline when the server has ended it. gRPC makes a status from Err before the
// call can return one, and Canceled would say that the caller has given up.
type endedContext struct{ context.Context }

// Err is nil until the context ends. It is DeadlineExceeded if the server ended it.
func (c endedContext) Err() error {
	err := c.Context.Err()
	if err != nil && context.Cause(c.Context) != err {
		return context.DeadlineExceeded
	}
	return err
}

// receive runs recv, which receives the first message of a call. It ends the call when the message does not come in
// time.
func receive(ctx context.Context, recv func() error) error {
	e, ok := ctx.Value(enderKey{}).(ender)
	if !ok {
		return recv()
	}
	late := time.AfterFunc(e.limit, func() {
		e.end(errs.E(errs.Unavailable, "the peer sent no whole request for %s", e.limit))
	})
	err := recv()
	late.Stop()
	return callError(ctx, err)
}

// timedSends bounds how long the sends of a stream wait for the peer. The stream may be a server's or a client's.
type timedSends struct {
	limit    time.Duration
	patience httpx.ReaderTime
	end      context.CancelCauseFunc // ends the call
	timer    *time.Timer             // nil before the first send
	before   int                     // bytes of the message before
}

func newTimedSends(limit time.Duration, end context.CancelCauseFunc) timedSends {
	return timedSends{limit: limit, patience: httpx.NewReaderTime(limit, slowestReader), end: end}
}

// resetReaderTime forgets how far the peer is behind. A sender that holds nothing that others need calls it before each
// message: an overloaded receiver reads slowly for a long time, and another stream would not help it.
func (s *timedSends) resetReaderTime() { s.patience = httpx.NewReaderTime(s.limit, slowestReader) }

// send sends m by calling send. gRPC waits until the peer has made place for the message before. Sends of one stream
// must not overlap.
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
	return callError(ctx, err)
}

// callError returns the reason for which this process has ended the call, or else err.
func callError(ctx context.Context, err error) error {
	var ours *errs.Error
	if cause := context.Cause(ctx); err != nil && errors.As(cause, &ours) {
		return cause
	}
	return err
}

// sizeOfMessage is the length of m in bytes, 0 when it is not known.
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

// SendMsg sends m. It ends the call when the peer reads too slowly.
func (s *timedServerStream) SendMsg(m any) error {
	return s.send(s.Context(), m, s.ServerStream.SendMsg)
}

// timedListener accepts connections whose writes fail when the peer reads nothing for limit. gRPC's keepalive does not
// find such a peer if it goes on sending.
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

// writeAtOnce is how many bytes the peer must read within one limit.
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
