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
	// agePeriod is how often a stream forgets the numbers of series that are not written any more. A stream without
	// any write in a period is replaced.
	agePeriod = 5 * time.Minute
	// joinBytes is the size from which on a frame takes no further shard.
	joinBytes = 128 << 10
)

// writeStream is one Write stream. run owns the gRPC stream. Calls come by queue and are encoded in the order in which
// they are sent. A response finds its calls by the number of their frame.
type writeStream struct {
	client *Client
	born   time.Time
	ready  chan struct{} // closed when the stream is open
	done   chan struct{} // closed when the stream is over; err is set before
	err    error         // why the stream is over; valid after done is closed
	retire chan struct{} // closed when the stream is aged and its last call has returned
	queue  chan *writeCall

	encoder *wire.StreamEncoder // used by send only; nil = version 1

	encoding sync.Mutex // guards shard and gone of every call

	mu    sync.Mutex            // guards calls, sent, last and aged
	calls int                   // calls that have not returned
	sent  map[uint64]*sentFrame // frames without a response, by number
	last  uint64                // number of the last frame
	aged  bool                  // begin refuses further calls
}

// writeCall is one shard to be sent.
type writeCall struct {
	shard    wire.Shard    // empty after it was encoded; guarded by encoding
	gone     bool          // nobody waits for the response, so the shard need not be sent; guarded by encoding
	first    int           // position of its first series in the frame; set before the response comes
	response chan response // its buffer holds one response, so that receive never waits
	stamp    []byte        // of the request that the shard is for; nil = the request is not sampled
}

// sentFrame is a frame that holds the shards of one or more calls.
type sentFrame struct {
	tenant tenant.ID
	calls  []*writeCall
	total  int // number of series of all shards
}

// response is the member's response to a frame of total series, or the error that kept a shard out of every frame.
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

// write makes one call. It calls placed when the call is queued: calls that are queued later are sent later.
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
		return nil, errs.E(errs.Unavailable, "wait for the response to a shard: %w", ctx.Err())
	case <-ws.done:
		select {
		case a := <-call.response: // it came just before the stream ended
			return a.outcome(s, call.first)
		default:
			ws.abandon(call)
			return nil, ws.err
		}
	}
}

// begin counts a call in. It refuses calls on an aged stream with errRetired.
func (ws *writeStream) begin() error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.aged {
		return errRetired
	}
	ws.calls++
	return nil
}

// end counts a call out. The last call of an aged stream retires the stream.
func (ws *writeStream) end() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.calls--; ws.aged && ws.calls == 0 {
		close(ws.retire)
	}
}

// abandon makes sure that send does not read the call's shard any more: the shard belongs to the caller of Write again.
func (ws *writeStream) abandon(call *writeCall) {
	ws.encoding.Lock()
	call.gone, call.shard = true, wire.Shard{}
	ws.encoding.Unlock()
}

// age refuses further calls on the stream. The stream ends when the calls under way have returned.
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

// run opens the stream and serves it until it is over. A panic ends the stream.
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
		// The shards under way did not cause the end of the stream, so their calls may be tried again.
		ws.err = errs.Wrap(errs.Unavailable, ws.err)
	}
	ws.err = errs.Unreached(ws.err)
	select {
	case <-ws.retire: // no call is under way; writes that still wait for the stream to open use another one
		ws.err = errRetired
	default:
	}
	close(ws.done)
	cancel()
	sender.Wait()
}

// send encodes and sends calls until the stream is over or retired.
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
				sends.resetReaderTime()
				if frame, call = ws.frame(call); frame != nil && sends.send(ctx, frame, s.SendMsg) != nil {
					return // receive returns the error
				}
			}
		case <-ageing.C:
			if !busy {
				ws.client.leave(ws) // lets the member forget the series
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

// frame encodes the shard of call, and the shards of the same tenant that are queued behind it. It returns a nil frame
// when nobody waits for any of them. next is a call that was taken from the queue and belongs into another frame.
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

// add appends the call's shard to the frame, unless nobody waits for it. It returns false when the frame takes no
// further shard: either this shard belongs into the next frame (next), or encoding it panicked. A panic is a bug of
// Hearth, and becomes the call's error.
func (ws *writeStream) add(body *[]byte, f *sentFrame, call *writeCall) (added bool, next *writeCall) {
	ws.encoding.Lock()
	defer ws.encoding.Unlock()
	before := len(*body)
	defer ws.client.recoverPanic("encode a shard", func(err error) {
		*body = (*body)[:before]
		if ws.encoder != nil { // the old one may have given numbers to series whose labels are not in the frame
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

// receive passes responses to their calls until the stream ends.
func (ws *writeStream) receive(s grpc.ClientStream) (err error) {
	defer ws.client.recoverPanic("read responses", func(fault error) { err = fault })
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
			continue // a second response to the frame
		}
		for _, call := range f.calls {
			call.response <- response{WriteAnswer: a, total: f.total}
		}
	}
}

// outcome returns the failures among the series of s, which are at position first of the frame and after. It replaces
// positions in the frame by indexes into the batch.
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
			return nil, errs.E(errs.Internal, "the response names series %d of a frame of %d", f.Series, a.total)
		}
		if at := f.Series - first; at >= 0 && at < len(s.Series) {
			f.Series = int(s.Series[at])
			failures = append(failures, f)
		}
	}
	return failures, nil
}
