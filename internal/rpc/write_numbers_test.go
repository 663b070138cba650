package rpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// told is a shard of these series, each with a sample that tells which series of which tenant it is.
func told(id tenant.ID, numbers ...int) wire.Shard {
	b := wire.NewBatch(id)
	for _, i := range numbers {
		s := b.Add(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i), "tenant", string(id)))
		s.Samples = append(s.Samples, wire.Sample{T: int64(len(id)), V: float64(i)})
	}
	return wire.All(b)
}

// honest fails when a sample is not its series'.
func honest(s wire.Shard) error {
	var lb labels.ScratchBuilder
	for _, i := range s.Series {
		one := &s.Batch.Series[i]
		ls := wire.LabelsOf(&lb, one.Labels())
		key, hash := wire.Identify(append(wire.AppendTenant(nil, s.Batch.Tenant), one.Labels()...))
		if ls.Get("i") != fmt.Sprint(one.Samples[0].V) || ls.Get("tenant") != string(s.Batch.Tenant) || key != one.Key ||
			hash != one.Hash {
			return fmt.Errorf("tenant %s: a sample %v of %s", s.Batch.Tenant, one.Samples, ls)
		}
	}
	return nil
}

// auditor is a Writer that checks what it gets.
type auditor struct {
	t              testing.TB
	samples        atomic.Int64
	shards, hinted atomic.Int64
}

func (a *auditor) Write(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
	a.samples.Add(int64(len(s.Series)))
	a.shards.Add(1)
	for _, i := range s.Series {
		if h := s.Batch.Series[i].Hint; h != nil && h.Swap(1) == 1 {
			a.hinted.Add(1)
		}
	}
	if err := honest(s); err != nil {
		a.t.Error(err)
	}
	return nil, nil
}

// TestLabelsTravelOnce: the second time a series is a few bytes, and the receiver knows it again.
func TestLabelsTravelOnce(t *testing.T) {
	a := &auditor{t: t}
	var sent, received atomic.Int64
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) { RegisterWrite(s, a, nil) })
	c := dial(t, proxy(t, s.Addr().String(), func(n int, up bool) bool {
		if up {
			sent.Add(int64(n))
		} else {
			received.Add(int64(n))
		}
		return true
	}), ClientOptions{})
	numbers := make([]int, 1000)
	for i := range numbers {
		numbers[i] = i
	}
	shard := told("team-a", numbers...)
	bytes := func() int64 {
		t.Helper()
		before := sent.Load()
		if _, err := c.Write(context.Background(), shard); err != nil {
			t.Fatal(err)
		}
		return sent.Load() - before
	}
	first, second := bytes(), bytes()
	if first < 30_000 || second > 11_000 {
		t.Errorf("%d bytes the first time, %d the second", first, second)
	}
	if a.hinted.Load() != 1000 || s.names.Len() != 1000 {
		t.Errorf("%d series were known again, %d have names", a.hinted.Load(), s.names.Len())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "names end with their stream", func() bool { return s.names.Len() == 0 })
}

// TestNumbersUnderLoad: several senders with several tenants, whose series come and go, on streams that age.
func TestNumbersUnderLoad(t *testing.T) {
	a := &auditor{t: t}
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) { RegisterWrite(s, a, nil) })
	var wg sync.WaitGroup
	var want atomic.Int64
	for sender := range 3 {
		c := dial(t, s.Addr().String(), ClientOptions{StreamAge: time.Duration(1+sender) * 10 * time.Millisecond})
		for worker := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(sender), uint64(worker)))
				for turn := range 100 {
					numbers := make([]int, 1+r.IntN(50))
					for i := range numbers {
						numbers[i] = turn + r.IntN(100)
					}
					want.Add(int64(len(numbers)))
					if failures, err := c.Write(context.Background(),
						told(tenant.ID(fmt.Sprint("t", r.IntN(3))), numbers...)); err != nil ||
						failures != nil {
						t.Error(failures, err)
					}
				}
			})
		}
	}
	wg.Wait()
	if got := a.samples.Load(); got != want.Load() {
		t.Errorf("%d samples arrived of %d", got, want.Load())
	}
}

// TestStoreFailsNumbersStay: what becomes of a shard in the store does not change what its numbers mean.
func TestStoreFailsNumbersStay(t *testing.T) {
	var fail error
	var got []string
	addr := serve(t, func(s *Server) {
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			got = append(got, describe(s))
			return nil, fail
		}), nil)
	})
	c := dial(t, addr, ClientOptions{})
	for _, fail = range []error{errs.E(errs.Unavailable, "not yet"), errs.E(errs.Internal, "broken"), nil, nil} {
		if _, err := c.Write(context.Background(), told("a", 1, 2)); errs.KindOf(err) != errs.KindOf(fail) {
			t.Fatal(err)
		}
	}
	for _, s := range got {
		if s != describe(told("a", 1, 2)) {
			t.Errorf("arrived: %s", s)
		}
	}
}

// TestEndsRestart: a receiver that starts again gets all labels again, as from a sender that starts again.
func TestEndsRestart(t *testing.T) {
	a := &auditor{t: t}
	register := func(s *Server) { RegisterWrite(s, a, nil) }
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), register)
	addr := s.Addr().String()
	c := dial(t, addr, ClientOptions{})
	write := func(numbers ...int) {
		t.Helper()
		eventually(t, "a write passes", func() bool {
			_, err := c.Write(context.Background(), told("a", numbers...))
			return err == nil
		})
	}
	write(1, 2, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newServer(t, ServerOptions{Address: addr}, prometheus.NewRegistry(), register)
	write(3, 2)
	write(1, 2, 3)
	s.grpc.Stop()
	s = newServer(t, ServerOptions{Address: addr}, prometheus.NewRegistry(), register)
	write(2)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = dial(t, addr, ClientOptions{})
	write(4, 3, 2)
	eventually(t, "the names of the first sender's stream are gone", func() bool { return s.names.Len() == 3 })
}

// proxy passes connections on to addr and says of each piece how many bytes it has and whether it goes up, to addr;
// false cuts the connection in the middle of the piece.
func proxy(t testing.TB, addr string, pass func(n int, up bool) bool) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = lis.Close(); wg.Wait() })
	move := func(to, from net.Conn, up bool) {
		defer to.Close()
		defer from.Close()
		buf := make([]byte, 16<<10)
		for {
			n, err := from.Read(buf)
			whole := pass(n, up)
			if !whole {
				n /= 2
			}
			if _, werr := to.Write(buf[:n]); err != nil || werr != nil || !whole {
				return
			}
		}
	}
	wg.Go(func() {
		for {
			down, err := lis.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", addr)
			if err != nil {
				_ = down.Close()
				continue
			}
			wg.Go(func() { move(up, down, true) })
			wg.Go(func() { move(down, up, false) })
		}
	})
	return lis.Addr().String()
}

// TestCutFrames: connections break in the middle of frames and answers, again and again. What arrives is right, and
// with enough tries all of it does.
func TestCutFrames(t *testing.T) {
	a := &auditor{t: t}
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) { RegisterWrite(s, a, nil) })
	r := rand.New(rand.NewPCG(7, 7))
	var mu sync.Mutex
	left, cuts := 0, 0
	addr := proxy(t, s.Addr().String(), func(n int, _ bool) bool {
		mu.Lock()
		defer mu.Unlock()
		if left -= n; left > 0 || cuts == 12 {
			return true
		}
		left, cuts = r.IntN(15_000), cuts+1
		return false
	})
	c := dial(t, addr, ClientOptions{})
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(8, uint64(worker)))
			for range 60 {
				numbers := r.Perm(200)[:1+r.IntN(100)]
				eventually(t, "a shard passes", func() bool {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					defer cancel()
					_, err := c.Write(ctx, told("team", numbers...))
					return err == nil
				})
			}
		})
	}
	wg.Wait()
	if cuts != 12 {
		t.Errorf("%d cuts", cuts)
	}
}

// oldReceiver serves the Write stream as the first version of Hearth did.
func oldReceiver(t *testing.T, addr string, w Writer) *Server {
	return newServer(t, ServerOptions{Address: addr}, prometheus.NewRegistry(), func(s *Server) {
		s.grpc.RegisterService(service(serviceWriter, "hearthpb/hearth.proto", nil, grpc.StreamDesc{
			StreamName: "Write", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, ss grpc.ServerStream) error {
				var f hearthpb.WriteFrame
				if err := ss.RecvMsg(&f); err != nil {
					return err
				}
				if f.Hello.Version != 1 {
					return refuseVersion(f.Hello.Version, 1)
				}
				if err := ss.SendMsg(&hearthpb.WriteAnswer{Hello: f.Hello}); err != nil {
					return err
				}
				for {
					f = hearthpb.WriteFrame{}
					if err := ss.RecvMsg(&f); err != nil {
						return nil
					}
					b, err := wire.DecodeShard(f.Shard)
					if err != nil {
						return err
					}
					_, err = w.Write(ss.Context(), wire.All(b))
					b.Release()
					if err != nil {
						return err
					}
					if err := ss.SendMsg(&hearthpb.WriteAnswer{Number: f.Number}); err != nil {
						return err
					}
				}
			},
		}), nil)
	})
}

// TestRollingUpgrade: a sender meets a receiver of the version before, then of this one, then of the one before.
func TestRollingUpgrade(t *testing.T) {
	a := &auditor{t: t}
	s := oldReceiver(t, "", a)
	addr := s.Addr().String()
	c := dial(t, addr, ClientOptions{})
	write := func(hinted int64) {
		t.Helper()
		for range 3 {
			eventually(t, "a write passes", func() bool {
				_, err := c.Write(context.Background(), told("a", 1, 2))
				return err == nil
			})
		}
		if got := a.hinted.Swap(0); got != hinted {
			t.Errorf("%d series were known again, want %d", got, hinted)
		}
	}
	write(0)
	s.grpc.Stop()
	s = newServer(t, ServerOptions{Address: addr}, prometheus.NewRegistry(), func(s *Server) { RegisterWrite(s, a, nil) })
	write(4)
	s.grpc.Stop()
	oldReceiver(t, addr, a)
	write(0)
	if err := c.Close(); err != nil { // before the receiver, which waits for it
		t.Error(err)
	}
}

// rawNumbers opens a stream of version 2 without a Client.
func rawNumbers(t *testing.T, addr string) (grpc.ClientStream, *wire.StreamEncoder) {
	t.Helper()
	s := rawStream(t, addr)
	if err := s.SendMsg(&hearthpb.WriteFrame{Hello: &hearthpb.Hello{Magic: writeMagic, Version: 2}}); err != nil {
		t.Fatal(err)
	}
	a := new(hearthpb.WriteAnswer)
	if err := s.RecvMsg(a); err != nil || a.Hello.GetVersion() != 2 {
		t.Fatal(a, err)
	}
	return s, wire.NewStreamEncoder()
}

// TestBadNumbers: a frame that cannot be read ends the stream, as the two sides may not mean the same by a number any
// more. One that can be read but not be taken is answered.
func TestBadNumbers(t *testing.T) {
	var got []string
	var mu sync.Mutex
	srv := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, describe(s))
			return nil, nil
		}), nil)
	})
	addr := srv.Addr().String()
	f := func(bad func(frame []byte) []byte, goesOn bool) {
		t.Helper()
		s, e := rawNumbers(t, addr)
		send := func(number uint64, frame []byte) (*hearthpb.WriteAnswer, error) {
			t.Helper()
			if err := s.SendMsg(&hearthpb.WriteFrame{Number: number, Shard: frame}); err != nil {
				t.Fatal(err)
			}
			a := new(hearthpb.WriteAnswer)
			return a, s.RecvMsg(a)
		}
		frame := func(numbers ...int) []byte {
			out, _ := e.Add(e.Begin(nil, "a"), told("a", numbers...))
			return out
		}
		if a, err := send(1, frame(1, 2)); err != nil || a.Error != nil {
			t.Fatal(a, err)
		}
		a, err := send(2, bad(frame(2, 3)))
		if !goesOn {
			if status.Code(err) != codes.InvalidArgument {
				t.Fatalf("%v, %v", a, err)
			}
			return
		}
		if err != nil || a.Number != 2 || a.Error.GetKind() != uint32(errs.Invalid) {
			t.Fatal(a, err)
		}
		if a, err := send(3, frame(2, 1)); err != nil || a.Number != 3 || a.Error != nil {
			t.Fatal(a, err)
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	f(func(b []byte) []byte { return b[:len(b)-1] }, false)
	f(func(b []byte) []byte { return append(b, 1) }, false)
	f(func([]byte) []byte { return []byte("\x02\x01a\x01\xf0\x01") }, false)
	f(func(b []byte) []byte { // its first series is of tenant a, not of b
		b[2] = 'b'
		return b
	}, true)
	mu.Lock()
	defer mu.Unlock()
	for _, s := range got {
		if s != describe(told("a", 1, 2)) && s != describe(told("a", 2, 1)) {
			t.Errorf("arrived: %s", s)
		}
	}
	eventually(t, "names end with their streams", func() bool { return srv.names.Len() == 0 })
}

// TestJoin: shards that queue up share a frame when they are of one tenant and have no series in common; each call gets
// what concerns it. A call that nobody waits for leaves no trace.
func TestJoin(t *testing.T) {
	names := wire.NewSharedSeries(0)
	d := wire.NewStreamDecoder(names)
	defer d.Close()
	in := &inbound{
		writeServer: &writeServer{server: &Server{writing: newBudget(1<<30, streamParts)}},
		ctx:         t.Context(),
		budget:      newBudget(1<<30, streamParts),
		numbers:     d,
	}
	ws := &writeStream{encoder: wire.NewStreamEncoder(), queue: make(chan *writeCall, sendAhead),
		sent: map[uint64]*sentFrame{}}
	call := func(s wire.Shard) *writeCall {
		return &writeCall{shard: s, response: make(chan response, 1)}
	}
	first, second, other, again := call(told("a", 1, 2)), call(told("a", 3)), call(told("b", 4)), call(told("b", 5, 4))
	gone, last := call(told("b", 6)), call(told("b", 7))
	ws.abandon(gone)
	for _, c := range []*writeCall{second, other, again, gone, last} {
		ws.queue <- c
	}
	take := func(c *writeCall, next *writeCall, calls ...*writeCall) {
		t.Helper()
		frame, n := ws.frame(c)
		f := ws.sent[ws.last]
		if n != next || !slices.Equal(f.calls, calls) {
			t.Fatalf("a frame of %d calls", len(f.calls))
		}
		decoded := writeFrame{in: in}
		if err := decoded.decode(frame.buffers()); err != nil || decoded.err != nil || decoded.number != ws.last {
			t.Fatal(err, decoded.err)
		}
		if len(decoded.batch.Series) != f.total {
			t.Fatalf("%d series of %d", len(decoded.batch.Series), f.total)
		}
		if err := honest(wire.All(decoded.batch)); err != nil {
			t.Fatal(err)
		}
	}
	take(first, other, first, second)
	take(other, again, other)
	take(again, nil, again, last)
	ws.abandon(first)
	if frame, next := ws.frame(first); frame != nil || next != nil {
		t.Fatal("a frame that nobody waits for")
	}
	if len(ws.sent) != 3 || names.Len() != 6 {
		t.Fatalf("%d frames, %d names", len(ws.sent), names.Len())
	}

	all := []wire.Failure{{Series: 2, Reason: "x", Kind: errs.Conflict}, {Series: 0, Reason: "y", Kind: errs.Invalid}}
	a := response{WriteAnswer: &hearthpb.WriteAnswer{Failures: wire.AppendFailures(nil, all)}, total: 3}
	s := told("b", 5, 4)
	s.Series = []int32{1, 0}
	if got, err := a.outcome(s, again.first); err != nil || len(got) != 1 || got[0].Series != 1 || got[0].Reason != "y" {
		t.Error(got, err)
	}
	if got, err := a.outcome(told("b", 7), last.first); err != nil || len(got) != 1 || got[0].Series != 0 ||
		got[0].Reason != "x" {
		t.Error(got, err)
	}
	a.total = 2
	if got, err := a.outcome(s, 0); errs.KindOf(err) != errs.Internal {
		t.Error(got, err)
	}
}

// TestFailuresUnderLoad: each of many calls gets its own failures.
func TestFailuresUnderLoad(t *testing.T) {
	var frames atomic.Int64
	addr := serve(t, func(s *Server) {
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			frames.Add(1)
			var failures []wire.Failure
			for _, i := range s.Series {
				if v := int(s.Batch.Series[i].Samples[0].V); v%3 == 0 {
					failures = append(failures, wire.Failure{Series: int(i), Kind: errs.Conflict, Reason: fmt.Sprint(v), Samples: 1})
				}
			}
			return failures, nil
		}), nil)
	})
	c := dial(t, addr, ClientOptions{})
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(9, uint64(worker)))
			for range 50 {
				numbers := []int{r.IntN(1000), r.IntN(1000), r.IntN(1000), r.IntN(1000)}
				failures, err := c.Write(context.Background(), told("a", numbers...))
				if err != nil {
					t.Error(err)
				}
				at := map[int]string{}
				for _, f := range failures {
					at[f.Series] = f.Reason
				}
				for i, n := range numbers {
					want := ""
					if n%3 == 0 {
						want = fmt.Sprint(n)
					}
					if at[i] != want {
						t.Errorf("series %d of %v: %q", i, numbers, at[i])
					}
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d calls in %d frames", 32*50, frames.Load())
}

// TestAbandonedShard: a shard is not read any more when Write has returned, however early that is (with -race).
func TestAbandonedShard(t *testing.T) {
	a := &auditor{t: t}
	addr := serve(t, func(s *Server) { RegisterWrite(s, a, nil) })
	c := dial(t, addr, ClientOptions{})
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(10, uint64(worker)))
			for range 100 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(300))*time.Microsecond)
				s := told("a", r.Perm(50)...)
				_, _ = c.Write(ctx, s)
				cancel()
				clear(s.Series)
				clear(s.Batch.Series)
			}
		})
	}
	wg.Wait()
}

// TestIdleStreamEnds: a stream that nothing is written to ends, so that the receiver can forget its series.
func TestIdleStreamEnds(t *testing.T) {
	a := &auditor{t: t}
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) { RegisterWrite(s, a, nil) })
	c := dial(t, s.Addr().String(), ClientOptions{})
	c.agePeriod = time.Millisecond
	for range 3 {
		for range 3 {
			if _, err := c.Write(context.Background(), told("a", 1, 2)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the stream ends", func() bool { return value(s.metrics.streams) == 0 && s.names.Len() == 0 })
	}
}

// Series that have taken all the memory there is for names travel with their labels, and all are stored.
func TestNamesAreBounded(t *testing.T) {
	const room = 50_000
	got := map[string]bool{}
	var mu sync.Mutex
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		s.names = wire.NewSharedSeries(room)
		RegisterWrite(s, writerFunc(func(_ context.Context, shard wire.Shard) ([]wire.Failure, error) {
			mu.Lock()
			defer mu.Unlock()
			for _, i := range shard.Series {
				got[string(shard.Batch.Series[i].Labels())] = true
			}
			return nil, nil
		}), nil)
	})
	c := dial(t, s.Addr().String(), ClientOptions{})
	write := func(n int) {
		t.Helper()
		eventually(t, "the shard is stored", func() bool {
			_, err := c.Write(t.Context(), shard("a", n))
			if err != nil && errs.KindOf(err) != errs.Unavailable {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	write(10)
	if s.names.Len() != 10 || len(s.versions()) != 2 {
		t.Fatalf("%d names, versions %v", s.names.Len(), s.versions())
	}
	write(1000)
	if len(got) != 1000 || s.names.Bytes() > room || len(s.versions()) != 1 {
		t.Errorf("%d series stored; %d bytes of names of %d, versions %v", len(got), s.names.Bytes(), room, s.versions())
	}
	eventually(t, "the names have gone with their stream",
		func() bool { return s.names.Bytes() == 0 && s.names.Len() == 0 })
	s.full.Store(time.Now().Add(-2 * namesRest).UnixMilli())
	if len(s.versions()) != 2 {
		t.Error("numbers are refused for ever")
	}
}
