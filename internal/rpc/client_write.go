package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/wire"
)

const (
	// openTimeout bounds the opening of a write stream.
	openTimeout = 5 * time.Second
	// plainFor is how long writes go by RemoteWrite after a peer turned out not to know the Write stream.
	plainFor = time.Minute
	// sendAhead is how many encoded shards wait for the network.
	sendAhead = 16
)

var (
	errRetired = errors.New("write stream retired")              // nothing was sent: take another stream
	errPlain   = errors.New("the peer does not know the stream") // take RemoteWrite
)

// Write stores s at the peer, as Writer says. Calls share one stream, whose answers come in any order. ctx bounds this call
// only. An error of kind Unavailable may come after the peer has stored all of s.
func (c *Client) Write(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
	for {
		ws, err := c.writeStream()
		if err == nil {
			var failures []wire.Failure
			failures, err = ws.write(ctx, s)
			if err == nil {
				return failures, nil
			}
		}
		switch {
		case errors.Is(err, errRetired):
		case errors.Is(err, errPlain):
			return nil, c.writePlain(ctx, s)
		default:
			return nil, fmt.Errorf("%s: %w", c.addr, err)
		}
	}
}

// writeStream is the stream for the next write: the current one, or a new one that opens in the background.
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
		queue: make(chan *writeCall, sendAhead), calls: map[uint64]*writeCall{},
	}
	c.write = fresh
	c.writers.Go(fresh.run)
	c.mu.Unlock()
	if ws != nil {
		ws.age()
	}
	return fresh, nil
}

// writeStream is one Write stream. run owns the gRPC stream; calls come in by queue and get their answers by number.
type writeStream struct {
	client *Client
	born   time.Time
	ready  chan struct{} // closed when the stream is open
	done   chan struct{} // closed when it is over; err is set before
	err    error
	retire chan struct{} // closed when no call will come any more, and none waits
	queue  chan *writeCall

	mu    sync.Mutex // guards what follows
	calls map[uint64]*writeCall
	last  uint64
	aged  bool
}

type writeCall struct {
	number    uint64
	frame     *encoded
	result    chan *hearthpb.WriteAnswer // room for one
	abandoned atomic.Bool                // nobody waits: no need to send
}

func (ws *writeStream) over() bool {
	select {
	case <-ws.done:
		return true
	default:
		return false
	}
}

// write makes one call.
func (ws *writeStream) write(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
	select {
	case <-ws.ready:
	case <-ws.done:
		return nil, ws.err
	case <-ctx.Done():
		return nil, errs.E(errs.Unavailable, "open a write stream: %w", ctx.Err())
	}
	call, err := ws.begin()
	if err != nil {
		return nil, err
	}
	defer ws.forget(call)
	call.frame = shardFrame(call.number, s)
	select {
	case ws.queue <- call:
	case <-ws.done:
		frames.Put(call.frame.body)
		return nil, ws.err
	case <-ctx.Done():
		frames.Put(call.frame.body)
		return nil, errs.E(errs.Unavailable, "send a shard: %w", ctx.Err())
	}
	select {
	case a := <-call.result:
		return outcome(a, s)
	case <-ctx.Done():
		call.abandoned.Store(true)
		return nil, errs.E(errs.Unavailable, "wait for the answer to a shard: %w", ctx.Err())
	case <-ws.done:
		select {
		case a := <-call.result: // it came just before the end
			return outcome(a, s)
		default:
			return nil, ws.err
		}
	}
}

// begin registers a call.
func (ws *writeStream) begin() (*writeCall, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.aged {
		return nil, errRetired
	}
	ws.last++
	call := &writeCall{number: ws.last, result: make(chan *hearthpb.WriteAnswer, 1)}
	ws.calls[call.number] = call
	return call, nil
}

// forget ends a call; the last one of an aged stream retires it.
func (ws *writeStream) forget(call *writeCall) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.calls, call.number)
	if ws.aged && len(ws.calls) == 0 {
		close(ws.retire)
	}
}

// age keeps further calls off the stream, which ends when those under way have their answers.
func (ws *writeStream) age() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.aged {
		return
	}
	ws.aged = true
	if len(ws.calls) == 0 {
		close(ws.retire)
	}
}

// run opens the stream and serves it until it is over.
func (ws *writeStream) run() {
	ctx, cancel := context.WithCancel(ws.client.lifetime)
	defer cancel()
	s, err := ws.client.openWrite(ctx, cancel)
	if err != nil {
		ws.err = err
		close(ws.done)
		return
	}
	close(ws.ready)
	var sender sync.WaitGroup
	sender.Go(func() { ws.send(s) })
	err = ws.receive(s)
	if ws.err = fromStatus(err); errs.KindOf(ws.err) != errs.Unavailable {
		// Whatever ended the stream, it is not the fault of the shards that were under way.
		ws.err = errs.Wrap(errs.Unavailable, ws.err)
	}
	close(ws.done)
	cancel()
	sender.Wait()
}

// send passes calls on until the stream is over or retired.
func (ws *writeStream) send(s grpc.ClientStream) {
	for {
		select {
		case call := <-ws.queue:
			if call.abandoned.Load() {
				frames.Put(call.frame.body)
				continue
			}
			if s.SendMsg(call.frame) != nil {
				return // receive learns why
			}
		case <-ws.retire:
			_ = s.CloseSend()
			return
		case <-ws.done:
			return
		}
	}
}

// receive hands out answers until the stream ends.
func (ws *writeStream) receive(s grpc.ClientStream) error {
	for {
		a := new(hearthpb.WriteAnswer)
		if err := s.RecvMsg(a); err != nil {
			return err
		}
		ws.mu.Lock()
		call := ws.calls[a.Number]
		ws.mu.Unlock()
		if call == nil {
			continue // nobody waits any more
		}
		select {
		case call.result <- a:
		default: // a second answer
		}
	}
}

// openWrite opens a stream in the best version that both sides know.
func (c *Client) openWrite(ctx context.Context, cancel context.CancelFunc) (grpc.ClientStream, error) {
	slow := time.AfterFunc(openTimeout, cancel)
	defer slow.Stop()
	version := writeVersions[0]
	for {
		s, err := c.hello(ctx, version)
		if err == nil && slow.Stop() {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, errs.E(errs.Unavailable, "the write stream was not open after %s, or the client was closed", openTimeout)
		}
		next, ok := otherVersion(err, version)
		switch {
		case ok:
			version = next
		case status.Code(err) == codes.Unimplemented: // no such service, or no version in common
			c.mu.Lock()
			c.plain = time.Now().Add(plainFor)
			c.mu.Unlock()
			return nil, errPlain
		default:
			return nil, fromStatus(err)
		}
	}
}

// otherVersion is the best version in common, when err refuses the one tried and names others.
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

// hello opens a stream and waits for the peer's hello. Errors are as gRPC gives them.
func (c *Client) hello(ctx context.Context, version uint32) (grpc.ClientStream, error) {
	s, err := c.conn.NewStream(c.outgoing(ctx, ""), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+serviceWriter+"/Write")
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
		return nil, errs.E(errs.Internal, "the peer's first answer is not a hello of version %d", version)
	}
	return s, nil
}

// shardFrame is a WriteFrame with a shard.
func shardFrame(number uint64, s wire.Shard) *encoded {
	body := frames.empty()
	*body = wire.AppendShard(*body, s)
	head := protowire.AppendVarint(append(make([]byte, 0, 24), 2<<3), number)
	head = protowire.AppendVarint(append(head, 3<<3|2), uint64(len(*body)))
	return &encoded{head: head, body: body}
}

// outcome is what an answer says of s; the positions in it become indexes into the batch.
func outcome(a *hearthpb.WriteAnswer, s wire.Shard) ([]wire.Failure, error) {
	if a.Error != nil {
		return nil, fromError(a.Error)
	}
	if len(a.Failures) == 0 {
		return nil, nil
	}
	failures, err := wire.DecodeFailures(a.Failures)
	if err != nil {
		return nil, err
	}
	for i := range failures {
		at := failures[i].Series
		if at < 0 || at >= len(s.Series) {
			return nil, errs.E(errs.Internal, "the answer names series %d of a shard of %d", at, len(s.Series))
		}
		failures[i].Series = int(s.Series[at])
	}
	return failures, nil
}
