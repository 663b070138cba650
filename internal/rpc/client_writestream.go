package rpc

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

const (
	// agePeriod is how often a stream looks for series that are not written any more, and whether it is idle itself.
	agePeriod = 5 * time.Minute
	// joinBytes is from how many bytes on a frame takes no further shard.
	joinBytes = 128 << 10
)

// writeStream is one Write stream. run owns the gRPC stream; calls come in by queue, are encoded in the order in which they
// travel, and get their answers by the number of their frame.
type writeStream struct {
	client *Client
	born   time.Time
	ready  chan struct{} // closed when the stream is open
	done   chan struct{} // closed when it is over; err is set before
	err    error
	retire chan struct{} // closed when no call will come any more, and none waits
	queue  chan *writeCall

	encoder *wire.StreamEncoder // send's; nil = version 1

	encoding sync.Mutex // held while a call's shard is read; a call that ends early takes it to say so

	mu    sync.Mutex            // guards what follows
	calls int                   // that have not returned
	sent  map[uint64]*sentFrame // without an answer, by number
	last  uint64                // number of a frame
	aged  bool
}

// writeCall is one shard to be sent.
type writeCall struct {
	shard    wire.Shard    // while it waits to be sent; guarded by encoding
	gone     bool          // nobody waits: no need to send; guarded by encoding
	first    int           // where its series begin in the frame; set before the answer
	response chan response // room for one
	stamp    []byte        // of the request that the shard is for; nil = it is not sampled
}

// sentFrame is a frame with the shards of one or more calls.
type sentFrame struct {
	tenant tenant.ID
	calls  []*writeCall
	total  int // series
}

// answer is what the peer said of a frame of so many series, or why the frame has no place in the stream.
type response struct {
	*hearthpb.WriteAnswer
	total int
	err   error
}

func (ws *writeStream) over() bool {
	select {
	case <-ws.done:
		return true
	default:
		return false
	}
}

// write makes one call. It calls placed when what is written later will come later.
func (ws *writeStream) write(ctx context.Context, s wire.Shard, placed func()) ([]wire.Failure, error) {
	select {
	case <-ws.ready:
	case <-ws.done:
		return nil, ws.err
	case <-ctx.Done():
		return nil, errs.E(errs.Unavailable, "open a write stream: %w", ctx.Err())
	}
	if err := ws.begin(); err != nil {
		return nil, err
	}
	defer ws.end()
	call := &writeCall{shard: s, response: make(chan response, 1)}
	if o := ws.client.opts.Observer; o != nil {
		call.stamp = o.Stamp(ctx)
	}
	select {
	case ws.queue <- call:
		placed()
	case <-ws.done:
		return nil, ws.err
	case <-ctx.Done():
		return nil, errs.E(errs.Unavailable, "send a shard: %w", ctx.Err())
	}
	select {
	case a := <-call.response:
		return a.outcome(s, call.first)
	case <-ctx.Done():
		ws.abandon(call)
		return nil, errs.E(errs.Unavailable, "wait for the answer to a shard: %w", ctx.Err())
	case <-ws.done:
		select {
		case a := <-call.response: // it came just before the end
			return a.outcome(s, call.first)
		default:
			ws.abandon(call)
			return nil, ws.err
		}
	}
}

// begin registers a call.
func (ws *writeStream) begin() error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.aged {
		return errRetired
	}
	ws.calls++
	return nil
}

// end ends a call; the last one of an aged stream retires it.
func (ws *writeStream) end() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.calls--; ws.aged && ws.calls == 0 {
		close(ws.retire)
	}
}

// abandon makes sure that the call's shard is not read any more, which belongs to the caller of Write again.
func (ws *writeStream) abandon(call *writeCall) {
	ws.encoding.Lock()
	call.gone, call.shard = true, wire.Shard{}
	ws.encoding.Unlock()
}

// age keeps further calls off the stream, which ends when those under way have their answers.
func (ws *writeStream) age() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.aged {
		return
	}
	ws.aged = true
	if ws.calls == 0 {
		close(ws.retire)
	}
}

// run opens the stream and serves it until it is over. A panic in it ends the stream.
func (ws *writeStream) run() {
	ctx, end := context.WithCancelCause(ws.client.lifetime)
	cancel := func() { end(nil) }
	defer cancel()
	s, version, err := ws.client.openWrite(ctx, cancel)
	if err != nil {
		ws.err = errs.Unreached(err)
		close(ws.done)
		return
	}
	close(ws.ready)
	if version >= 2 {
		ws.encoder = wire.NewStreamEncoder()
	}
	var sender sync.WaitGroup
	sends := newTimedSends(ws.client.sendTimeout, end)
	sender.Go(func() {
		defer ws.client.recoverPanic("send shards", func(error) { cancel() })
		ws.send(ctx, s, &sends)
	})
	err = callError(ctx, ws.receive(s))
	if ws.err = fromStatus(err); errs.KindOf(ws.err) != errs.Unavailable {
		// Whatever ended the stream, it is not the fault of the shards that were under way.
		ws.err = errs.Wrap(errs.Unavailable, ws.err)
	}
	ws.err = errs.Unreached(ws.err)
	select {
	case <-ws.retire: // no call is under way; who only waited for the stream to open takes another
		ws.err = errRetired
	default:
	}
	close(ws.done)
	cancel()
	sender.Wait()
}

// send passes calls on until the stream is over or retired.
func (ws *writeStream) send(ctx context.Context, s grpc.ClientStream, sends *timedSends) {
	ageing := time.NewTicker(ws.client.agePeriod)
	defer ageing.Stop()
	busy := true
	for {
		select {
		case call := <-ws.queue:
			busy = true
			for call != nil {
				var frame *encoded
				sends.resetPatience()
				if frame, call = ws.frame(call); frame != nil && sends.send(ctx, frame, s.SendMsg) != nil {
					return // receive learns why
				}
			}
		case <-ageing.C:
			if !busy {
				ws.client.leave(ws) // the peer may forget the series
			} else if ws.encoder != nil {
				ws.encoder.Age()
			}
			busy = false
		case <-ws.retire:
			_ = s.CloseSend()
			return
		case <-ws.done:
			return
		}
	}
}

// frame encodes a call's shard, and those of the same tenant that have queued up behind it. It is nil when nobody waits for
// any of them. next is a call that was taken off the queue and is for another frame.
func (ws *writeStream) frame(call *writeCall) (frame *encoded, next *writeCall) {
	body, f := frames.empty(), &sentFrame{}
	for next = call; next != nil; {
		var added bool
		if added, next = ws.add(body, f, next); !added {
			break
		}
		if ws.encoder == nil || len(*body) >= joinBytes {
			break
		}
		select {
		case next = <-ws.queue:
		default:
		}
	}
	if len(f.calls) == 0 {
		frames.Put(body)
		return nil, next
	}
	ws.mu.Lock()
	ws.last++
	number := ws.last
	ws.sent[number] = f
	ws.mu.Unlock()
	head := protowire.AppendVarint(append(make([]byte, 0, 24), 2<<3), number)
	head = appendStamps(head, f.calls)
	head = protowire.AppendVarint(append(head, 3<<3|2), uint64(len(*body)))
	return &encoded{head: head, body: body}, next
}

// add appends the call's shard to the frame, unless nobody waits for it. It is false when nothing more may be added: because
// the shard is for the next frame, or since it cannot be encoded. That is a fault of ours, and the call's answer.
func (ws *writeStream) add(body *[]byte, f *sentFrame, call *writeCall) (added bool, next *writeCall) {
	ws.encoding.Lock()
	defer ws.encoding.Unlock()
	before := len(*body)
	defer ws.client.recoverPanic("encode a shard", func(err error) {
		*body = (*body)[:before]
		if ws.encoder != nil { // it may have given numbers to series whose labels are not in the frame
			ws.encoder = wire.NewStreamEncoder()
		}
		call.shard = wire.Shard{}
		call.response <- response{err: err}
		added, next = false, nil
	})
	e := ws.encoder
	switch s := call.shard; {
	case call.gone:
		return true, nil
	case e == nil:
		*body = wire.AppendShard(*body, s)
	case len(f.calls) == 0:
		*body, _ = e.Add(e.Begin(*body, s.Batch.Tenant), s)
	case f.tenant != s.Batch.Tenant:
		return false, call
	default:
		var ok bool
		if *body, ok = e.Add(*body, s); !ok {
			return false, call
		}
	}
	call.first, f.tenant = f.total, call.shard.Batch.Tenant
	f.total += len(call.shard.Series)
	f.calls = append(f.calls, call)
	call.shard = wire.Shard{}
	return true, nil
}

// receive hands out answers until the stream ends.
func (ws *writeStream) receive(s grpc.ClientStream) (err error) {
	defer ws.client.recoverPanic("read answers", func(fault error) { err = fault })
	for {
		a := new(hearthpb.WriteAnswer)
		if err := s.RecvMsg(a); err != nil {
			return err
		}
		ws.mu.Lock()
		f := ws.sent[a.Number]
		delete(ws.sent, a.Number)
		ws.mu.Unlock()
		if f == nil {
			continue // a second answer
		}
		for _, call := range f.calls {
			call.response <- response{WriteAnswer: a, total: f.total}
		}
	}
}

// outcome is what an answer says of s, whose series begin at first in the frame; positions become indexes into the batch.
func (a response) outcome(s wire.Shard, first int) ([]wire.Failure, error) {
	if a.err != nil {
		return nil, a.err
	}
	if a.Error != nil {
		return nil, fromError(a.Error)
	}
	if len(a.Failures) == 0 {
		return nil, nil
	}
	all, err := wire.DecodeFailures(a.Failures)
	if err != nil {
		return nil, err
	}
	var failures []wire.Failure
	for _, f := range all {
		if f.Series < 0 || f.Series >= a.total {
			return nil, errs.E(errs.Internal, "the answer names series %d of a frame of %d", f.Series, a.total)
		}
		if at := f.Series - first; at >= 0 && at < len(s.Series) {
			f.Series = int(s.Series[at])
			failures = append(failures, f)
		}
	}
	return failures, nil
}
