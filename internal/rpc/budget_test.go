package rpc

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// Many senders whose writes are slow have no more in work at a process than its budget; in the end all are stored.
func TestWriteStreamsShareRoom(t *testing.T) {
	const (
		series  = 100
		senders = 6
		writes  = 8
		fit     = 4 // shards at a time
	)
	var now, most, stored atomic.Int64
	leave := make(chan struct{})
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		s.writing = newBudget(2*fit*(series*200+10_000), streamParts) // a quarter of it for a frame that is not decoded yet
		RegisterWrite(s, writerFunc(func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
			for n := now.Add(1); n > most.Load(); n = now.Load() {
				most.Store(n)
			}
			<-leave
			now.Add(-1)
			stored.Add(int64(len(s.Series)))
			return nil, nil
		}), nil)
	})
	var all sync.WaitGroup
	for range senders {
		c := dial(t, s.Addr().String(), ClientOptions{})
		for i := range writes {
			all.Go(func() {
				// Tenants of their own: shards of one tenant and stream are stored one after the other.
				if _, err := c.Write(t.Context(), shard(tenant.ID(fmt.Sprint("t", i)), series)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	eventually(t, "the room is full", func() bool { return now.Load() >= fit })
	close(leave)
	all.Wait()
	if most.Load() > 3*fit { // the frames are smaller than they may be
		t.Errorf("%d shards were in work at a time, there is room for %d", most.Load(), 2*fit)
	}
	if stored.Load() != senders*writes*series {
		t.Errorf("%d series stored, want %d", stored.Load(), senders*writes*series)
	}
	if !s.writing.free.TryAcquire(s.writing.all) {
		t.Error("some room was not given back")
	}
}

// The budget that a frame takes is the memory of what it becomes, whatever it is of.
func TestFrameCost(t *testing.T) {
	const n = 1000
	f := func(what string, bytes int, fill func(*wire.Batch)) {
		t.Helper()
		b := wire.NewBatch("acme")
		fill(b)
		all := wire.All(b)
		for _, payload := range [][]byte{wire.AppendShard(nil, all), frameOf(all)} {
			var in inbound
			if payload[0] > 1 {
				in.numbers = wire.NewStreamDecoder(wire.NewSharedSeries(0))
			}
			batch, err := in.shard(payload)
			if err != nil {
				t.Fatal(what, err)
			}
			frame := writeFrame{batch: batch}
			if cost := frame.cost(); cost < int64(bytes) || cost > int64(4*bytes) {
				t.Errorf("%s: a frame of version %d takes room of %d bytes, want %d or a little more", what, payload[0], cost,
					bytes)
			}
			frame.drop()
		}
	}
	series := func(b *wire.Batch) *wire.Series { return b.Add(labels.FromStrings("__name__", "m")) }
	f("samples", 24*n, func(b *wire.Batch) { series(b).Samples = make([]wire.Sample, n) })
	f("exemplars", 40*n, func(b *wire.Batch) { series(b).Exemplars = make([]wire.Exemplar, n) })
	f("histograms", int(unsafe.Sizeof(histogram.Histogram{}))*n, func(b *wire.Batch) {
		s := series(b)
		for range n {
			s.Histograms = append(s.Histograms, wire.Histogram{H: &histogram.Histogram{}})
		}
	})
	f("metadata", int(unsafe.Sizeof(wire.Metadata{}))*n, func(b *wire.Batch) { b.Metadata = make([]wire.Metadata, n) })
	f("nothing", int(unsafe.Sizeof(wire.Batch{})), func(b *wire.Batch) {})
}

// frameOf is s as the first frame of a stream of version 2.
func frameOf(s wire.Shard) []byte {
	e := wire.NewStreamEncoder()
	frame, _ := e.Add(e.Begin(nil, s.Batch.Tenant), s)
	return frame
}

// A large shard travels in parts, since a receiver has a frame in memory before it can ask whether it fits the budget;
// its failures keep their series.
func TestLargeShardInParts(t *testing.T) {
	var most, series, metadata atomic.Int64
	addr := serve(t, func(s *Server) {
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) (failures []wire.Failure, _ error) {
			most.Store(max(most.Load(), s.Size()))
			series.Add(int64(len(s.Series)))
			metadata.Add(int64(len(s.Metadata)))
			for _, i := range s.Series {
				if v := s.Batch.Series[i].Samples[0].V; int(v)%100 == 7 {
					failures = append(failures, wire.Failure{Series: int(i), Kind: errs.Conflict, Samples: 1, Reason: fmt.Sprint(v)})
				}
			}
			return failures, nil
		}), nil)
	})
	c := dial(t, addr, ClientOptions{})
	c.maxPart = 10_000
	s := shard("acme", 1000)
	s.Batch.Metadata = []wire.Metadata{{Family: "m"}}
	s.Metadata = []int32{0}
	failures, err := c.Write(t.Context(), s)
	if err != nil || len(failures) != 10 {
		t.Fatal(len(failures), err)
	}
	for i, f := range failures {
		if want := 100*i + 7; f.Series != want || f.Reason != fmt.Sprint(want) {
			t.Errorf("%+v, want series %d", f, want)
		}
	}
	if series.Load() != 1000 || metadata.Load() != 1 || most.Load() > c.maxPart {
		t.Errorf("%d series and %d metadata arrived, in parts of up to %d bytes", series.Load(), metadata.Load(), most.Load())
	}
}

// A frame that nobody thought of ends its stream, not the process.
func TestPanicInDecoder(t *testing.T) {
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		s.names = nil
		RegisterWrite(s, writerFunc(stored), nil)
	})
	if _, err := dial(t, s.Addr().String(),
		ClientOptions{}).Write(t.Context(), shard("acme", 1)); errs.KindOf(err) != errs.Unavailable {
		t.Fatal(err)
	}
	if n := value(s.metrics.panics); n != 1 {
		t.Errorf("%v panics are counted", n)
	}
}

// A shard that is too large is refused for good, and does not hurt others of its stream.
func TestShardTooLarge(t *testing.T) {
	addr := serve(t, func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	c := dial(t, addr, ClientOptions{})
	c.maxShard = 10_000
	if _, err := c.Write(t.Context(), shard("acme", 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(t.Context(), shard("acme", 1000)); errs.KindOf(err) != errs.TooLarge {
		t.Fatalf("%v, want too large", err)
	}
	if _, err := c.Write(t.Context(), shard("acme", 10)); err != nil {
		t.Fatal(err)
	}
}

// thanosMessage is a RemoteWrite request of n series.
func thanosMessage(n int) *thanospb.WriteRequest {
	var m thanospb.WriteRequest
	if err := proto.Unmarshal(frameBytes(thanosFrame(copies{shard("acme", n), 1})), &m); err != nil {
		panic(err)
	}
	return &m
}

// A RemoteWrite call that does not fit the budget holds its message and nothing else, for a bounded time, and as many
// of them wait as the budget for messages holds: the others are refused at once, to come again.
func TestRemoteWriteWaitsWithinBounds(t *testing.T) {
	message := thanosMessage(2_000)
	size := int64(proto.Size(message))
	stuck, inside := make(chan struct{}), make(chan struct{}, 1)
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		s.remote = newBudget(24*size, remoteParts)
		s.remote.line = semaphore.NewWeighted(3 * size)
		RegisterWrite(s, writerFunc(func(context.Context, wire.Shard) ([]wire.Failure, error) {
			inside <- struct{}{}
			<-stuck
			return nil, nil
		}), nil)
	})
	c := dialThanos(t, s.Addr().String())
	write := func() error {
		return c.conn.Invoke(t.Context(), "/thanos.WriteableStore/RemoteWrite", message, new(thanospb.WriteResponse))
	}
	done := make(chan error, 10)
	go func() { done <- write() }()
	<-inside // it has more than half of the budget
	if !s.remote.free.TryAcquire(s.remote.all / 2) {
		t.Fatal("a call has more than half of the room before it was decoded")
	}
	for range 3 {
		go func() { done <- write() }()
	}
	eventually(t, "the line is full", func() bool {
		if s.remote.line.TryAcquire(size) {
			s.remote.line.Release(size)
			return false
		}
		return true
	})
	if err := write(); status.Code(err) != codes.Unavailable {
		t.Errorf("a call beyond those that may wait: %v", err)
	}
	s.remote.free.Release(s.remote.all / 2)
	close(stuck)
	go func() {
		for range inside {
		}
	}()
	for range 4 {
		if err := <-done; err != nil {
			t.Errorf("a call that waited: %v", err)
		}
	}
	close(inside)
	if !s.remote.free.TryAcquire(s.remote.all) || !s.remote.line.TryAcquire(3*size) {
		t.Error("some room was not given back")
	}
}

// A RemoteWrite message takes no more memory than its budget, whatever its bytes may become.
func TestRemoteWriteDecodesWithinRoom(t *testing.T) {
	const all = 8 << 20
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		s.remote = newBudget(all, remoteParts)
		RegisterWrite(s, writerFunc(stored), nil)
	})
	c := dialThanos(t, s.Addr().String())
	write := func(content []byte, n int) (took uint64, err error) {
		one := append(timeSeries(t, "a"), bytes.Repeat(content, n)...)
		message := &thanospb.WriteRequest{Timeseries: [][]byte{one}, Tenant: "x", Replica: 1}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err = c.conn.Invoke(c.context(), "/thanos.WriteableStore/RemoteWrite", message, new(thanospb.WriteResponse))
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc, err
	}
	histogram, sample := []byte{4<<3 | 2, 0}, []byte{2<<3 | 2, 0}
	for name, content := range map[string][]byte{"histograms": histogram, "samples": sample} {
		if took, err := write(content, 1<<19); status.Code(err) != codes.AlreadyExists ||
			took > 5*all { // a conflict is final
			t.Errorf("%s without content: %v; %d MiB were allocated, and all may have %d", name, err, took>>20, all>>20)
		}
		if _, err := write(content, 100); err != nil {
			t.Errorf("%s, a hundred of them: %v", name, err)
		}
	}
	if !s.remote.free.TryAcquire(s.remote.all) {
		t.Error("some room was not given back")
	}
}

// A frame that was refused, or broke its stream, gives back its budget.
func TestRefusedFrameGivesRoomBack(t *testing.T) {
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(),
		func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	for version := range uint32(3) {
		if version == 0 {
			continue
		}
		call := openCall(t, dialThanos(t, s.Addr().String()), "/hearth.Writer/Write")
		for _, frame := range []*hearthpb.WriteFrame{
			{Hello: &hearthpb.Hello{Magic: writeMagic, Version: version}},
			{Number: 1, Shard: []byte{byte(version), 1, 'a', 0xff, 0xff, 0xff, 0xff}},
			{Number: 2},
			{Number: 3, Shard: bytes.Repeat([]byte{byte(version)}, 100)},
		} {
			if err := call.SendMsg(frame); err != nil {
				break // ended by the one before
			}
		}
		_ = call.CloseSend()
		for call.RecvMsg(new(hearthpb.WriteAnswer)) == nil {
		}
	}
	eventually(t, "the room is free", func() bool {
		if !s.writing.free.TryAcquire(s.writing.all) {
			return false
		}
		s.writing.free.Release(s.writing.all)
		return true
	})
}

// A series that cannot be sent in one piece is refused for good, and does not break the stream; many that can are
// divided.
func TestSeriesTooLargeForAFrame(t *testing.T) {
	addr := serve(t, func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	c := dial(t, addr, ClientOptions{})
	c.maxPart, c.maxFrame = 10_000, 20_000
	b := wire.NewBatch("acme")
	b.Add(labels.FromStrings("__name__", "m")).Samples = make([]wire.Sample, 1000)
	if _, err := c.Write(t.Context(), wire.All(b)); errs.KindOf(err) != errs.TooLarge {
		t.Errorf("%v, want too large", err)
	}
	many := wire.NewBatch("acme")
	many.Metadata = make([]wire.Metadata, 1000) // of more bytes than a frame
	if _, err := c.Write(t.Context(), wire.All(many)); err != nil {
		t.Errorf("many small items: %v", err)
	}
	if _, err := c.Write(t.Context(), shard("acme", 1000)); err != nil {
		t.Error(err)
	}
}
