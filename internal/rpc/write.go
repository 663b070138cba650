package rpc

import (
	"bytes"
	"context"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

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
	// Write may be called concurrently. With a nil error all of s is in the WAL except what the failures name. After
	// an error any series may be stored or not. A Writer that needs s.Batch after it has returned retains it.
	Write(ctx context.Context, s wire.Shard) ([]wire.Failure, error)
}

// The private Write stream, described in docs/format/rpc.md.
const (
	writeMagic = 0x48524857 // "HRHW"
	// streamBudget is how many bytes of shards one stream may have in work; beyond it the stream is not read, and flow
	// control stops the sender. The part of one tenant (tenantMemory) is more than a sender sends ahead for a tenant.
	streamBudget = 64 << 20
)

// writeVersions are the forms of payloads that this process reads and writes, the best one first.
var writeVersions = []uint32{2, 1}

// namesRest is for how long streams are served without numbers once these have taken all their memory.
const namesRest = 10 * time.Minute

// versions are those that a new stream may have. While the memory for numbers is full, only the one without numbers.
func (s *Server) versions() []uint32 {
	if full := s.full.Load(); full != 0 && time.Since(time.UnixMilli(full)) < namesRest {
		return writeVersions[1:]
	}
	return writeVersions
}

// RegisterWrite serves writes to w from Hearth processes and, as Thanos's WriteableStore, from Thanos receivers and
// routers, before s is opened. A Thanos request that is not replicated yet (replica 0) goes to route; nil = it is
// stored like the others.
func RegisterWrite(s *Server, w Writer, route func(ctx context.Context, b *wire.Batch) error) {
	h := &writeServer{writer: w, route: route, server: s, log: s.log, metrics: s.metrics}
	s.grpc.RegisterService(service(serviceWriter, "hearthpb/hearth.proto", nil, grpc.StreamDesc{
		StreamName: "Write", ServerStreams: true, ClientStreams: true,
		Handler: func(srv any, ss grpc.ServerStream) error { return srv.(*writeServer).stream(ss) },
	}), h)
	s.grpc.RegisterService(service(serviceWriteable, "thanospb/store.proto", []grpc.MethodDesc{
		remoteWriteMethod(),
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
	in     *inbound // the stream it came by; nil = it can only be a hello
	hello  *hearthpb.Hello
	number uint64
	batch  *wire.Batch
	own    *reservation // of the stream's budget, until the response is sent
	all    *reservation // of the process's budget, until the shard is stored
	stamps [][]byte     // of the sampled requests that the shard is for
	err    error        // of the shard, or that its tenant's writes hang; the frame itself is sound
	over   error        // why the stream cannot go on
}

func (f *writeFrame) decode(data mem.BufferSlice) error {
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	err := fields(buf.ReadOnlyData(), func(num protowire.Number, n uint64, b []byte) error {
		switch {
		case num == 1 && b != nil:
			f.hello = new(hearthpb.Hello)
			return f.hello.UnmarshalVT(b)
		case num == 2:
			f.number = n
		case num == 4 && b != nil && f.in != nil && f.in.server.opts.Observer != nil && len(f.stamps) < maxStamps:
			f.stamps = append(f.stamps, bytes.Clone(b))
		case num == 3 && b != nil && f.in != nil && f.batch == nil && f.err == nil:
			return f.shard(b)
		}
		return nil
	})
	if err != nil && f.over == nil {
		f.over = errs.Wrap(errs.Invalid, err)
	}
	return nil // gRPC would end the call with a status of its own
}

// shard reserves memory for the most that the shard's bytes may become, decodes it, and keeps what it became. Until
// memory is reserved only the bytes that came are in memory. The error ends the stream.
func (f *writeFrame) shard(b []byte) error {
	in, most := f.in, wire.FrameMemory(len(b))+frameCost
	if f.own, f.over = in.budget.take(in.ctx, in.budget.atMost(most)); f.over != nil {
		return f.over
	}
	if f.all, f.over = in.server.writing.take(in.ctx, in.server.writing.atMost(most)); f.over != nil {
		return f.over
	}
	if f.batch, f.err = in.shard(b); f.err == nil {
		f.own.keep(f.cost())
		f.all.keep(f.cost())
		if f.err = f.own.claim(in.ctx, f.batch.Tenant); f.err == nil {
			f.err = f.all.claim(in.ctx, f.batch.Tenant)
		}
	}
	return nil
}

// cost is how many bytes the frame keeps, about: its batch and a place in a lane.
func (f *writeFrame) cost() int64 { return f.batch.Content() + frameCost }

const frameCost = 256

// shard decodes what the stream's next frame brings.
func (in *inbound) shard(b []byte) (*wire.Batch, error) {
	if in.numbers != nil {
		return in.numbers.Decode(b)
	}
	return wire.DecodeShard(b)
}

// stored releases the batch and the memory of the process, which others wait for.
func (f *writeFrame) stored() {
	if f.batch != nil {
		f.batch.Release()
		f.batch = nil
	}
	f.all.release()
}

// drop gives up all that the frame has.
func (f *writeFrame) drop() {
	f.stored()
	f.own.release()
}

// stream serves one sender until it is done, breaks, or the server closes. Then the shards that were read are stored
// and get their responses. Frames that were not read get none.
func (h *writeServer) stream(ss grpc.ServerStream) error {
	version, err := h.greet(ss)
	if err != nil {
		return err
	}
	leave, err := h.server.writeStreams.enter(ss.Context())
	if err != nil {
		return err
	}
	defer leave()
	h.metrics.streams.Inc()
	defer h.metrics.streams.Dec()
	in := &inbound{
		writeServer: h, ctx: ss.Context(), ss: ss, budget: newBudget(streamBudget, streamParts),
		tenantQueues: newTenantQueues(), responses: newTenantQueues(),
	}
	if version >= 2 {
		in.numbers = wire.NewStreamDecoder(h.server.names)
	}
	ended := make(chan error, 1)
	h.server.wg.Go(func() { ended <- in.read() }) // outlives this call until gRPC has ended the stream
	select {
	case err = <-ended:
	case <-h.server.closing:
		err = errs.E(errs.Unavailable, "the server is stopping")
	}
	in.tenantQueues.close()
	in.responses.close()
	return err
}

// greet reads the sender's hello, answers it, and gives the version of what follows.
func (h *writeServer) greet(ss grpc.ServerStream) (version uint32, err error) {
	var f writeFrame
	if err := receive(ss.Context(), func() error { return ss.RecvMsg(&f) }); err != nil {
		return 0, err
	}
	if f.over != nil {
		return 0, f.over
	}
	switch {
	case f.hello == nil || f.hello.Magic != writeMagic:
		return 0, errs.E(errs.Invalid, "the first frame is not the hello of a write stream")
	case !slices.Contains(h.server.versions(), f.hello.Version):
		return 0, refuseVersion(f.hello.Version, h.server.versions()...)
	}
	h.log.Debug("write stream opened", "from", f.hello.Instance, "epoch", f.hello.Epoch, "version", f.hello.Version)
	version = f.hello.Version
	return version, ss.SendMsg(&hearthpb.WriteAnswer{Hello: &hearthpb.Hello{Magic: writeMagic, Version: version}})
}

// inbound is one sender's stream.
type inbound struct {
	*writeServer
	ctx          context.Context // of ss
	ss           grpc.ServerStream
	numbers      *wire.StreamDecoder // the reader's; nil = version 1
	budget       budget              // of the stream: shards in work, and answers that the sender has not taken
	tenantQueues *tenantQueues
	responses    *tenantQueues // one lane, which waits for the sender to take them; no other lane does
}

// read takes frames until the sender is done (nil) or the stream breaks.
func (in *inbound) read() (err error) {
	var f *writeFrame // that nobody else has yet
	defer func() {
		if p := recover(); p != nil {
			err = in.panicked(p, "")
		}
		if f != nil {
			f.drop()
		}
	}()
	if in.numbers != nil {
		defer in.numbers.Close()
	}
	for {
		f = &writeFrame{in: in}
		if err := in.ss.RecvMsg(f); err != nil {
			if isEnd(err) {
				return nil
			}
			return callError(in.ctx, err)
		}
		switch {
		case f.over != nil:
			return f.over
		case f.err != nil && in.numbers != nil && in.numbers.Broken() != nil:
			if errs.KindOf(f.err) == errs.Exhausted {
				in.namesFull(f.err)
			}
			return f.err
		case f.err != nil:
			in.respond(f, nil, f.err)
			f = nil
			continue
		case f.batch == nil:
			in.respond(f, nil, errs.E(errs.Invalid, "the frame has no shard"))
			f = nil
			continue
		}
		given := f
		if !in.tenantQueues.add(given.batch.Tenant, func() { in.store(given) }) {
			return nil
		}
		f = nil
	}
}

// namesFull notes that numbers take all their memory, and says so once in a while.
func (in *inbound) namesFull(err error) {
	if len(in.server.versions()) == len(writeVersions) {
		in.log.Warn("series on write streams take all their memory, labels travel with each sample for now",
			"for", namesRest, "err", err)
	}
	in.server.full.Store(time.Now().UnixMilli())
}

// store writes one shard and has it answered.
func (in *inbound) store(f *writeFrame) {
	if len(f.stamps) > 0 {
		failures, err := in.writeFollowed(f)
		in.respond(f, failures, err)
		return
	}
	failures, err := in.write(in.ctx, f.batch)
	in.respond(f, failures, err)
}

// write stores b; a panic is an error.
func (in *inbound) write(ctx context.Context, b *wire.Batch) (failures []wire.Failure, err error) {
	defer func() {
		if p := recover(); p != nil {
			failures, err = nil, in.panicked(p, b.Tenant)
		}
	}()
	return in.writer.Write(ctx, wire.All(b))
}

// panicked is the error of a panic, which concerns one tenant, or ("") the stream.
func (in *inbound) panicked(p any, id tenant.ID) error {
	in.metrics.panics.Inc()
	in.log.Error("panic in a write", "tenant", id, "panic", p, "stack", string(debug.Stack()))
	return errs.E(errs.Internal, "panic: %v", p)
}

// respond sends the outcome of f, and owns f from here on. It releases at once what others wait for. It keeps the
// memory of the stream's own budget until the response is sent: a sender that reads no responses is not read any more.
func (in *inbound) respond(f *writeFrame, failures []wire.Failure, err error) {
	f.stored()
	out := &hearthpb.WriteAnswer{Number: f.number}
	if err != nil {
		out.Error = toError(err)
	} else if len(failures) > 0 {
		out.Failures = wire.AppendFailures(nil, failures)
	}
	in.metrics.shards.WithLabelValues(errs.KindOf(err).String()).Inc()
	queued := in.responses.add("", func() {
		_ = in.ss.SendMsg(out) // when it cannot be sent the stream is broken, and the reader ends it
		f.drop()
	})
	if !queued {
		f.drop()
	}
}
