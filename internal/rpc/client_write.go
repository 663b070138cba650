package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/wire"
)

const (
	// openTimeout bounds the opening of a write stream.
	openTimeout = 5 * time.Second
	// sendTimeout is how long a member may read nothing from a write stream. Then the stream ends, and the next write
	// opens another one.
	sendTimeout = 30 * time.Second
	// plainFor is how long writes go by RemoteWrite after a member has refused the Write stream as unknown.
	plainFor = time.Minute
	// sendAhead is how many shards may wait to be sent.
	sendAhead = 16
)

var (
	errRetired = errors.New("write stream retired")              // nothing was sent: use another stream
	errPlain   = errors.New("the peer does not know the stream") // use RemoteWrite
)

// Write stores s at the member, as Writer describes. All calls share one stream, and responses come in any order. ctx
// bounds this call only. An error of kind Unavailable does not say that nothing is stored: the member may have stored
// s.
func (c *Client) Write(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
	return c.WriteInOrder(ctx, s, func() {})
}

// WriteInOrder is Write with a place in the stream. It calls placed, at most once, when the member will store s before
// later writes of the same tenant. It does not call placed for a shard that travels in parts or by RemoteWrite, which
// has no place.
func (c *Client) WriteInOrder(ctx context.Context, s wire.Shard, placed func()) (failures []wire.Failure, err error) {
	ctx, end := c.start(ctx, "member write")
	defer func() { end(err) }()
	size := s.Size()
	if size > c.maxShard {
		return nil, errs.E(errs.TooLarge,
			"%d bytes for one member, more than the %d that are sent at once: send smaller requests", size, c.maxShard)
	}
	return c.writeParts(ctx, s, size, sync.OnceFunc(placed))
}

// writeParts divides s until no frame is larger than maxPart, and sends the frames one after the other. It does not
// divide a single series.
func (c *Client) writeParts(ctx context.Context, s wire.Shard, size int64, placed func()) ([]wire.Failure, error) {
	if size <= c.maxPart {
		return c.writeOne(ctx, s, placed)
	}
	if len(s.Series)+len(s.Metadata) < 2 {
		if size > c.maxFrame {
			return nil, errs.E(errs.TooLarge,
				"tenant %q: a series of %d bytes, more than the %d that are sent in one piece: send smaller requests",
				s.Batch.Tenant, size, c.maxFrame)
		}
		return c.writeOne(ctx, s, placed)
	}
	first, second := s, s
	n, m := (len(s.Series)+1)/2, len(s.Metadata)/2
	first.Series, second.Series = s.Series[:n], s.Series[n:]
	first.Metadata, second.Metadata = s.Metadata[:m], s.Metadata[m:]
	var all []wire.Failure
	for _, part := range []wire.Shard{first, second} {
		failures, err := c.writeParts(ctx, part, part.Size(), func() {})
		if err != nil {
			return nil, err
		}
		all = append(all, failures...)
	}
	return all, nil
}

// writeOne sends s in one frame.
func (c *Client) writeOne(ctx context.Context, s wire.Shard, placed func()) ([]wire.Failure, error) {
	for {
		ws, err := c.writeStream()
		if err == nil {
			var failures []wire.Failure
			failures, err = ws.write(ctx, s, placed)
			if err == nil {
				return failures, nil
			}
		}
		switch {
		case errors.Is(err, errRetired):
		case errors.Is(err, errPlain):
			return c.writePlain(ctx, s)
		default:
			return nil, fmt.Errorf("%s: %w", c.addr, err)
		}
	}
}

// writeStream returns the stream for the next write: the current one, or a new one that opens in the background.
func (c *Client) writeStream() (*writeStream, error) {
	c.mu.Lock()
	ws, now := c.write, time.Now()
	if ws != nil && !ws.over() && now.Sub(ws.born) < c.opts.StreamAge {
		c.mu.Unlock()
		return ws, nil
	}
	switch {
	case c.closed:
		c.mu.Unlock()
		return nil, errs.E(errs.Unavailable, "the client is closed")
	case now.Before(c.plain):
		c.mu.Unlock()
		return nil, errPlain
	}
	fresh := &writeStream{
		client: c, born: now, ready: make(chan struct{}), done: make(chan struct{}), retire: make(chan struct{}),
		queue: make(chan *writeCall, sendAhead), sent: map[uint64]*sentFrame{},
	}
	c.write = fresh
	c.writers.Go(fresh.run)
	c.mu.Unlock()
	if ws != nil {
		ws.age()
	}
	return fresh, nil
}

// leave makes the next write use another stream than ws.
func (c *Client) leave(ws *writeStream) {
	c.mu.Lock()
	if c.write == ws {
		c.write = nil
	}
	c.mu.Unlock()
	ws.age()
}

// openWrite opens a stream in the best version that both sides know.
func (c *Client) openWrite(ctx context.Context, cancel context.CancelFunc) (grpc.ClientStream, uint32, error) {
	slow := time.AfterFunc(openTimeout, cancel)
	defer slow.Stop()
	version := writeVersions[0]
	for {
		s, err := c.hello(ctx, version)
		if err == nil && slow.Stop() {
			return s, version, nil
		}
		if ctx.Err() != nil {
			return nil, 0, errs.E(errs.Unavailable,
				"the write stream was not open after %s, or the client was closed", openTimeout)
		}
		next, ok := otherVersion(err, version)
		switch {
		case ok:
			version = next
		case status.Code(err) == codes.Unimplemented: // no such service, or no version in common
			c.mu.Lock()
			c.plain = time.Now().Add(plainFor)
			c.mu.Unlock()
			return nil, 0, errPlain
		default:
			return nil, 0, fromStatus(err)
		}
	}
}

// otherVersion returns the best version that both sides know. It is false when err does not refuse the tried version.
func otherVersion(err error, tried uint32) (uint32, bool) {
	var refused *versionError
	if !errors.As(fromStatus(err), &refused) {
		return 0, false
	}
	for _, v := range writeVersions {
		if v < tried && slices.Contains(refused.supported, v) {
			return v, true
		}
	}
	return 0, false
}

// hello opens a stream and waits for the member's hello. It returns errors as gRPC makes them.
func (c *Client) hello(ctx context.Context, version uint32) (grpc.ClientStream, error) {
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	s, err := c.conn.NewStream(c.outgoing(ctx, ""), desc, "/"+serviceWriter+"/Write")
	if err != nil {
		return nil, err
	}
	h := &hearthpb.Hello{Magic: writeMagic, Version: version, Instance: c.opts.Instance, Epoch: c.epoch}
	if err := s.SendMsg(&hearthpb.WriteFrame{Hello: h}); err != nil && !isEnd(err) {
		return nil, err
	}
	var a hearthpb.WriteAnswer
	if err := s.RecvMsg(&a); err != nil {
		return nil, err
	}
	if a.Hello.GetMagic() != writeMagic || a.Hello.GetVersion() != version {
		return nil, errs.E(errs.Internal, "the member's first response is not a hello of version %d", version)
	}
	return s, nil
}
