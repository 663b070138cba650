package rpc

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// endless is a source of series without end, which counts its open sets.
type endless struct {
	series.Source
	open atomic.Int64
}

func (e *endless) Info(context.Context) (series.Info, error) {
	return series.Info{Instance: "a", Role: "receive", Tenants: []tenant.ID{"a"}, MaxTime: 1 << 60}, nil
}

func (e *endless) Select(context.Context, *series.Request) series.Set {
	e.open.Add(1)
	return &endlessSet{source: e}
}

type endlessSet struct {
	source *endless
	n      int
	once   sync.Once
}

func (s *endlessSet) Next() bool { s.n++; return true }
func (s *endlessSet) At() series.Series {
	return series.Series{Labels: labels.FromStrings("n", fmt.Sprintf("%010d", s.n), "pad", strings.Repeat("x", 1000))}
}
func (s *endlessSet) Err() error                { return nil }
func (s *endlessSet) Warnings() series.Warnings { return nil }
func (s *endlessSet) Close() error {
	s.once.Do(func() { s.source.open.Add(-1) })
	return nil
}

// impatient serves with a short send timeout.
func impatient(t *testing.T, limit time.Duration, register func(*Server)) *Server {
	return newServer(t, ServerOptions{SendTimeout: limit}, prometheus.NewRegistry(), register)
}

func openCall(t *testing.T, c thanos, method string) grpc.ClientStream {
	t.Helper()
	ctx, cancel := context.WithCancel(c.context())
	t.Cleanup(cancel)
	s, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends a call's one request.
func ask(t *testing.T, call grpc.ClientStream, req any) {
	t.Helper()
	if err := call.SendMsg(req); err != nil {
		t.Fatal(err)
	}
	if err := call.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func everything() *thanospb.SeriesRequest {
	return &thanospb.SeriesRequest{MaxTime: 1 << 60, Matchers: matchersToPB(all())}
}

// A reader that takes nothing loses its call, and with it the set that keeps a head from being cut.
func TestReaderThatTakesNothingIsEnded(t *testing.T) {
	for name, batch := range map[string]int64{"frames of one series": 0, "frames of many": 256} {
		src := new(endless)
		s := impatient(t, 50*time.Millisecond, func(s *Server) {
			RegisterStore(s, Store{Sources: map[string]series.Source{"receive": src}, Tenants: Tenants{All: true}})
		})
		call := openCall(t, dialThanos(t, s.Addr().String(), keyTenant, "a"), "/thanos.Store/Series")
		req := everything()
		req.ResponseBatchSize = batch
		ask(t, call, req)
		eventually(t, name+": the set is open", func() bool { return src.open.Load() == 1 })
		eventually(t, name+": the set is closed again", func() bool { return src.open.Load() == 0 })
		for {
			if err := call.RecvMsg(new(thanospb.SeriesResponse)); err != nil {
				if errs.KindOf(fromStatus(err)) != errs.Unavailable {
					t.Errorf("%s: the call ended with %v", name, err)
				}
				break
			}
		}
	}
}

// A reader that takes a little, always just in time, is ended too.
func TestReaderThatTakesATrickleIsEnded(t *testing.T) {
	const limit = 200 * time.Millisecond
	src := new(endless)
	s := impatient(t, limit, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": src}, Tenants: Tenants{All: true}})
	})
	call := openCall(t, dialThanos(t, s.Addr().String(), keyTenant, "a"), "/thanos.Store/Series")
	ask(t, call, everything())
	pace := time.NewTicker(limit / 4)
	defer pace.Stop()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-pace.C {
		for range 20 { // of 1 KB each: a sixth of the rate, and no send waits for long
			if err := call.RecvMsg(new(thanospb.SeriesResponse)); err != nil {
				if errs.KindOf(fromStatus(err)) != errs.Unavailable {
					t.Errorf("the call ended with %v", err)
				}
				return
			}
		}
	}
	t.Error("the call goes on")
}

// A reader that is slow, but takes something all the time, is not ended.
func TestSlowReaderIsServed(t *testing.T) {
	const limit = 500 * time.Millisecond
	src := new(endless)
	s := impatient(t, limit, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": src}, Tenants: Tenants{All: true}})
	})
	call := openCall(t, dialThanos(t, s.Addr().String(), keyTenant, "a"), "/thanos.Store/Series")
	ask(t, call, everything())
	pace := time.NewTicker(limit / 20)
	defer pace.Stop()
	for end := time.Now().Add(4 * limit); time.Now().Before(end); <-pace.C {
		for range 100 { // of 1 KB each: much less than is sent ahead, so that the server waits all the time
			if err := call.RecvMsg(new(thanospb.SeriesResponse)); err != nil {
				t.Fatalf("the call ended with %v", err)
			}
		}
	}
}

// A caller that opens a call and sends no request loses it, of whichever kind the call is.
func TestCallWithoutRequestIsEnded(t *testing.T) {
	s := impatient(t, 50*time.Millisecond, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"receive": new(endless)}})
		RegisterWrite(s, writerFunc(stored), nil)
	})
	c := dialThanos(t, s.Addr().String())
	for _, method := range []string{"/thanos.Store/Series", "/thanos.Store/LabelNames", "/thanos.WriteableStore/RemoteWrite", "/hearth.Writer/Write"} {
		err := openCall(t, c, method).RecvMsg(new(thanospb.WriteResponse))
		if errs.KindOf(fromStatus(err)) != errs.Unavailable {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// hoard opens a write stream that sends frames of tenant bad and takes no answers.
func hoard(t *testing.T, addr string, frame []byte) grpc.ClientStream {
	s := openCall(t, dialThanos(t, addr), "/hearth.Writer/Write")
	if err := s.SendMsg(&hearthpb.WriteFrame{Hello: &hearthpb.Hello{Magic: writeMagic, Version: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(hearthpb.WriteAnswer)); err != nil {
		t.Fatal(err)
	}
	go func() {
		for n := uint64(1); s.SendMsg(&hearthpb.WriteFrame{Number: n, Shard: frame}) == nil; n++ {
		}
	}()
	return s
}

// Senders that take no answers keep nothing that others need: what a frame has of the process's budget is given back
// before its answer waits. In the end their streams are ended.
func TestAnswersNotTakenHoldNoRoom(t *testing.T) {
	const hoarders = 5
	long := strings.Repeat("x", 40)
	var streams prometheus.Gauge
	s := impatient(t, 2*time.Second, func(s *Server) {
		s.writing, streams = newBudget(64<<20, streamParts), s.metrics.streams
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) (failures []wire.Failure, _ error) {
			for _, i := range s.Series {
				if s.Batch.Tenant == "bad" {
					failures = append(failures, wire.Failure{Series: int(i), Kind: errs.Conflict, Samples: 1, Reason: long})
				}
			}
			return failures, nil
		}), nil)
	})
	frame := wire.AppendShard(nil, shard("bad", 5000))
	for range hoarders {
		hoard(t, s.Addr().String(), frame)
	}
	eventually(t, "the streams are open", func() bool { return value(streams) == hoarders })
	good := dial(t, s.Addr().String(), ClientOptions{})
	eventually(t, "the streams are ended", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := good.Write(ctx, shard("good", 1)); err != nil {
			t.Fatalf("a good sender's write: %v", err)
		}
		return value(streams) == 1 // the good one's
	})
	eventually(t, "the room is free", func() bool {
		if !s.writing.free.TryAcquire(s.writing.all) {
			return false
		}
		s.writing.free.Release(s.writing.all)
		return true
	})
}

// One connection may not open as many write streams as it likes.
func TestWriteStreamsOfOneConnection(t *testing.T) {
	var streams prometheus.Gauge
	addr := serve(t, func(s *Server) {
		streams = s.metrics.streams
		RegisterWrite(s, writerFunc(stored), nil)
	})
	c := dialThanos(t, addr)
	open := func() error {
		s := openCall(t, c, "/hearth.Writer/Write")
		if err := s.SendMsg(&hearthpb.WriteFrame{Hello: &hearthpb.Hello{Magic: writeMagic, Version: 1}}); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(new(hearthpb.WriteAnswer)); err != nil {
			return err
		}
		return s.SendMsg(&hearthpb.WriteFrame{Number: 1, Shard: wire.AppendShard(nil, shard("a", 1))})
	}
	for range maxWriteStreams {
		if err := open(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are open", func() bool { return value(streams) == maxWriteStreams })
	s := openCall(t, c, "/hearth.Writer/Write")
	if err := s.SendMsg(&hearthpb.WriteFrame{Hello: &hearthpb.Hello{Magic: writeMagic, Version: 1}}); err != nil {
		t.Fatal(err)
	}
	_ = s.RecvMsg(new(hearthpb.WriteAnswer)) // its hello
	if err := s.RecvMsg(new(hearthpb.WriteAnswer)); errs.KindOf(fromStatus(err)) != errs.Exhausted {
		t.Errorf("one more: %v", err)
	}
	if _, err := dial(t, addr, ClientOptions{}).Write(t.Context(), shard("a", 1)); err != nil {
		t.Errorf("another connection: %v", err)
	}
}

// A client's write stream whose receiver reads nothing is ended, so that the next write takes another one.
func TestReceiverThatReadsNothingIsLeft(t *testing.T) {
	var streams atomic.Int64
	stuck := make(chan struct{})
	addr := serve(t, func(s *Server) {
		s.grpc.RegisterService(service(serviceWriter, "hearthpb/hearth.proto", nil, grpc.StreamDesc{
			StreamName: "Write", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, ss grpc.ServerStream) error {
				streams.Add(1)
				var f writeFrame
				if err := ss.RecvMsg(&f); err != nil {
					return err
				}
				if err := ss.SendMsg(
					&hearthpb.WriteAnswer{Hello: &hearthpb.Hello{Magic: writeMagic, Version: f.hello.Version}}); err != nil {
					return err
				}
				select {
				case <-stuck:
				case <-ss.Context().Done():
				}
				return nil
			},
		}), nil)
	})
	defer close(stuck)
	c := dial(t, addr, ClientOptions{})
	c.sendTimeout = 50 * time.Millisecond
	var writes sync.WaitGroup
	for range 2 { // the second waits for the first to be read
		writes.Go(func() {
			if _, err := c.Write(t.Context(), shard("a", 60_000)); errs.KindOf(err) != errs.Unavailable {
				t.Errorf("a write that nobody read: %v", err)
			}
		})
	}
	writes.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	writes.Go(func() { _, _ = c.Write(ctx, shard("a", 1)) })
	eventually(t, "another stream is open", func() bool { return streams.Load() == 2 })
	cancel()
	writes.Wait()
}

// A peer whose connection takes nothing is found by the write that waits for it.
func TestConnectionThatTakesNothing(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := timedListener{inner, 50 * time.Millisecond}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	n, err := io.Copy(server, strings.NewReader(strings.Repeat("x", 64<<20)))
	if netErr := net.Error(nil); err == nil || !asTimeout(err, &netErr) {
		t.Errorf("%d bytes written, %v", n, err)
	}
}

func asTimeout(err error, to *net.Error) bool {
	e, ok := err.(net.Error)
	*to = e
	return ok && e.Timeout()
}
