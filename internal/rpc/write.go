package rpc

import (
	"context"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// Writer stores shards: a receiver, or a client of one.
type Writer interface {
	// Write may be called concurrently. With a nil error all of s is in the WAL but what the failures name; an error
	// promises nothing of any series. A Writer that needs s.Batch beyond its return retains it.
	Write(ctx context.Context, s wire.Shard) ([]wire.Failure, error)
}

// The private Write stream, described in docs/format/rpc.md.
const (
	writeMagic = 0x48524857 // "HRHW"
	// streamBudget is how many bytes of shards one stream may have in work; beyond it the stream is not read, and flow
	// control stops the sender.
	streamBudget = 64 << 20
)

// writeVersions are the forms of payloads that this process reads and writes, the best one first.
var writeVersions = []uint32{2, 1}

// RegisterWrite serves writes to w from Hearth processes and, as Thanos's WriteableStore, from Thanos receivers and routers,
// before s is opened. A Thanos request that is not replicated yet (replica 0) goes to route; nil = it is stored like the
// others.
func RegisterWrite(s *Server, w Writer, route func(ctx context.Context, b *wire.Batch) error) {
	h := &writeServer{writer: w, route: route, server: s, log: s.log, metrics: s.metrics}
	s.grpc.RegisterService(service(serviceWriter, "hearthpb/hearth.proto", nil, grpc.StreamDesc{
		StreamName: "Write", ServerStreams: true, ClientStreams: true,
		Handler: func(srv any, ss grpc.ServerStream) error { return srv.(*writeServer).stream(ss) },
	}), h)
	s.grpc.RegisterService(service(serviceWriteable, "thanospb/store.proto", []grpc.MethodDesc{
		unaryMethod(serviceWriteable, "RemoteWrite", (*writeServer).remoteWrite),
	}), h)
}

type writeServer struct {
	writer  Writer
	route   func(ctx context.Context, b *wire.Batch) error
	server  *Server
	log     *slog.Logger
	metrics *metrics
}

// writeFrame is a WriteFrame, with its shard decoded.
type writeFrame struct {
	numbers *wire.ShardDecoder // of the stream; nil = version 1
	hello   *hearthpb.Hello
	number  uint64
	batch   *wire.Batch
	err     error // of the shard; the frame itself is sound
}

func (f *writeFrame) decode(data mem.BufferSlice) error {
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	*f = writeFrame{numbers: f.numbers}
	err := fields(buf.ReadOnlyData(), func(num protowire.Number, n uint64, b []byte) error {
		switch {
		case num == 1 && b != nil:
			f.hello = new(hearthpb.Hello)
			return f.hello.UnmarshalVT(b)
		case num == 2:
			f.number = n
		case num == 3 && b != nil && f.batch == nil && f.err == nil:
			f.batch, f.err = f.shard(b)
		}
		return nil
	})
	if err != nil {
		f.drop()
		return errs.Wrap(errs.Invalid, err)
	}
	return nil
}

func (f *writeFrame) shard(b []byte) (*wire.Batch, error) {
	if f.numbers != nil {
		return f.numbers.Decode(b)
	}
	return wire.DecodeShard(b)
}

// cost is how many bytes the frame keeps, about: its batch and a place in a lane.
func (f *writeFrame) cost() int64 { return f.batch.Content() + 256 }

func (f *writeFrame) drop() {
	if f.batch != nil {
		f.batch.Release()
		f.batch = nil
	}
}

// stream serves one sender until it is done, breaks, or the server closes. Then the shards that were read are finished and
// answered; what was not read gets no answer.
func (h *writeServer) stream(ss grpc.ServerStream) error {
	version, err := h.greet(ss)
	if err != nil {
		return err
	}
	h.metrics.streams.Inc()
	defer h.metrics.streams.Dec()
	in := &inbound{
		writeServer: h, ss: ss, budget: newRoom(streamBudget), lanes: newLanes(),
	}
	if version >= 2 {
		in.numbers = wire.NewShardDecoder(h.server.names)
	}
	ended := make(chan error, 1)
	h.server.wg.Go(func() { ended <- in.read() }) // outlives this call until gRPC has ended the stream
	select {
	case err = <-ended:
	case <-h.server.closing:
		err = errs.E(errs.Unavailable, "the server is stopping")
	}
	in.lanes.close()
	return err
}

// greet reads the sender's hello, answers it, and gives the version of what follows.
func (h *writeServer) greet(ss grpc.ServerStream) (version uint32, err error) {
	var f writeFrame
	if err := ss.RecvMsg(&f); err != nil {
		return 0, err
	}
	f.drop()
	switch {
	case f.hello == nil || f.hello.Magic != writeMagic:
		return 0, errs.E(errs.Invalid, "the first frame is not the hello of a write stream")
	case !slices.Contains(writeVersions, f.hello.Version):
		return 0, refuseVersion(f.hello.Version, writeVersions...)
	}
	h.log.Debug("write stream opened", "from", f.hello.Instance, "epoch", f.hello.Epoch, "version", f.hello.Version)
	version = f.hello.Version
	return version, ss.SendMsg(&hearthpb.WriteAnswer{Hello: &hearthpb.Hello{Magic: writeMagic, Version: version}})
}

// inbound is one sender's stream.
type inbound struct {
	*writeServer
	ss      grpc.ServerStream
	numbers *wire.ShardDecoder // the reader's; nil = version 1
	budget  room               // of the stream
	lanes   *lanes

	mu sync.Mutex // guards ss.SendMsg
}

// read takes frames until the sender is done (nil) or the stream breaks.
func (in *inbound) read() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = in.panicked(p, "")
		}
	}()
	if in.numbers != nil {
		defer in.numbers.Close()
	}
	for {
		f := writeFrame{numbers: in.numbers}
		if err := in.ss.RecvMsg(&f); err != nil {
			if isEnd(err) {
				return nil
			}
			return err
		}
		switch {
		case f.err != nil && in.numbers != nil && in.numbers.Broken() != nil:
			return f.err
		case f.err != nil:
			in.answer(f.number, nil, f.err)
			continue
		case f.batch == nil:
			in.answer(f.number, nil, errs.E(errs.Invalid, "the frame has no shard"))
			continue
		}
		release, err := in.room(&f)
		if err != nil {
			f.drop()
			return err
		}
		taken := in.lanes.add(f.batch.Tenant, func() {
			defer release()
			defer f.drop()
			in.store(f.number, f.batch)
		})
		if !taken {
			f.drop()
			release()
			return nil
		}
	}
}

// room waits until the stream, and then the process, has room for f.
func (in *inbound) room(f *writeFrame) (release func(), err error) {
	ctx, cost := in.ss.Context(), f.cost()
	own, err := in.budget.take(ctx, cost)
	if err != nil {
		return nil, err
	}
	all, err := in.server.writing.take(ctx, cost)
	if err != nil {
		own()
		return nil, err
	}
	return func() { all(); own() }, nil
}

// store writes one shard and answers.
func (in *inbound) store(number uint64, b *wire.Batch) {
	var failures []wire.Failure
	err := errs.E(errs.Internal, "the write ended in a panic")
	defer func() {
		if p := recover(); p != nil {
			failures, err = nil, in.panicked(p, b.Tenant)
		}
		in.answer(number, failures, err)
	}()
	failures, err = in.writer.Write(in.ss.Context(), wire.All(b))
}

// panicked is the error of a panic, which concerns one tenant, or ("") the stream.
func (in *inbound) panicked(p any, id tenant.ID) error {
	in.metrics.panics.Inc()
	in.log.Error("panic in a write", "tenant", id, "panic", p, "stack", string(debug.Stack()))
	return errs.E(errs.Internal, "panic: %v", p)
}

// answer sends the outcome of a frame. When it cannot be sent the stream is broken, and the reader ends it.
func (in *inbound) answer(number uint64, failures []wire.Failure, err error) {
	out := &hearthpb.WriteAnswer{Number: number}
	if err != nil {
		out.Error = toError(err)
	} else if len(failures) > 0 {
		out.Failures = wire.AppendFailures(nil, failures)
	}
	in.metrics.shards.WithLabelValues(errs.KindOf(err).String()).Inc()
	in.mu.Lock()
	defer in.mu.Unlock()
	_ = in.ss.SendMsg(out)
}
