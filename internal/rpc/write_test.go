package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

type writerFunc func(ctx context.Context, s wire.Shard) ([]wire.Failure, error)

func (f writerFunc) Write(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
	return f(ctx, s)
}

func stored(context.Context, wire.Shard) ([]wire.Failure, error) { return nil, nil }

// shard is a shard of n series of tenant id, one sample each.
func shard(id tenant.ID, n int) wire.Shard {
	b := wire.NewBatch(id)
	for i := range n {
		s := b.Add(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)))
		s.Samples = append(s.Samples, wire.Sample{T: int64(1000 + i), V: float64(i)})
	}
	return wire.All(b)
}

func value(m prometheus.Metric) float64 {
	var out dto.Metric
	if m.Write(&out) != nil {
		return -1
	}
	return out.GetGauge().GetValue() + out.GetCounter().GetValue()
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after ten seconds: %s", what)
		}
	}
}

func TestWriteCarriesShards(t *testing.T) {
	got := make(chan string, 1)
	addr := serve(t, func(s *Server) {
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			got <- describe(s)
			return nil, nil
		}), nil)
	})
	c := dial(t, addr, ClientOptions{Instance: "me"})
	sent := shard("team-a", 5)
	sent.Batch.Metadata = []wire.Metadata{{Family: "m", Help: "h", Unit: "u", Type: "counter"}, {Family: "n"}}
	sent.Series, sent.Metadata = []int32{4, 1}, []int32{0}
	if failures, err := c.Write(context.Background(), sent); err != nil || failures != nil {
		t.Fatal(failures, err)
	}
	if s := <-got; s != describe(sent) {
		t.Errorf("%s arrived as %s", describe(sent), s)
	}
}

func describe(s wire.Shard) string {
	var b strings.Builder
	b.WriteString(string(s.Batch.Tenant))
	lb := labels.NewScratchBuilder(4)
	for _, i := range s.Series {
		one := s.Batch.Series[i]
		fmt.Fprint(&b, " ", wire.LabelsOf(&lb, one.Labels()), one.Key, one.Hash, one.Samples)
	}
	for _, i := range s.Metadata {
		fmt.Fprint(&b, " ", s.Batch.Metadata[i])
	}
	return b.String()
}

func TestFailuresKeepTheirSeries(t *testing.T) {
	var at int
	addr := serve(t, func(s *Server) {
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			return []wire.Failure{{Series: at, Kind: errs.Conflict, Reason: "too old", Samples: 1},
				{Series: 0, Kind: errs.Invalid, Exemplars: 2}}, nil
		}), nil)
	})
	c := dial(t, addr, ClientOptions{})
	s := shard("a", 10)
	s.Series = []int32{7, 2, 9}
	at = 2
	got, err := c.Write(context.Background(), s)
	want := []wire.Failure{{Series: 9, Kind: errs.Conflict, Reason: "too old", Samples: 1},
		{Series: 7, Kind: errs.Invalid, Exemplars: 2}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, at = range []int{3, -1} {
		if got, err := c.Write(context.Background(), s); errs.KindOf(err) != errs.Internal {
			t.Errorf("a failure of series %d of 3: %+v, %v", at, got, err)
		}
	}
}

func TestWriteErrorsKeepTheirKind(t *testing.T) {
	var fail error
	addr := serve(t, func(s *Server) {
		RegisterWrite(s, writerFunc(func(context.Context, wire.Shard) ([]wire.Failure, error) { return nil, fail }), nil)
	})
	c := dial(t, addr, ClientOptions{})
	for k := errs.Invalid; k <= errs.Internal; k++ {
		fail = errs.WithRetryAfter(errs.E(k, "no"), time.Second)
		_, err := c.Write(context.Background(), shard("a", 1))
		if errs.KindOf(err) != k || errs.RetryAfter(err) != time.Second || !strings.HasSuffix(err.Error(), ": no") {
			t.Errorf("%s came back as %s: %v", k, errs.KindOf(err), err)
		}
	}
}

// TestWritesAreInFlightTogether: every call waits in the writer until all have come, over one stream.
func TestWritesAreInFlightTogether(t *testing.T) {
	const n = 50
	var here atomic.Int64
	allHere := make(chan struct{})
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		RegisterWrite(s, writerFunc(func(context.Context, wire.Shard) ([]wire.Failure, error) {
			if here.Add(1) == n {
				close(allHere)
			}
			<-allHere
			return nil, nil
		}), nil)
	})
	c := dial(t, s.Addr().String(), ClientOptions{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := c.Write(context.Background(), shard(tenant.ID(fmt.Sprint("t", i)), 3)); err != nil {
				t.Error(err)
			}
		})
	}
	<-allHere
	if open := value(s.metrics.streams); open != 1 {
		t.Errorf("%v streams", open)
	}
	wg.Wait()
}

// TestLanes: one tenant's work is done in order, and does not wait for another's.
func TestLanes(t *testing.T) {
	l := newTenantQueues()
	var mu sync.Mutex
	done := map[tenant.ID][]int{}
	blocked, release := make(chan struct{}), make(chan struct{})
	l.add("slow", func() { close(blocked); <-release })
	<-blocked
	var other sync.WaitGroup
	for i := range 100 {
		for _, id := range []tenant.ID{"slow", "quick"} {
			if id == "quick" {
				other.Add(1)
			}
			l.add(id, func() {
				mu.Lock()
				defer mu.Unlock()
				done[id] = append(done[id], i)
				if id == "quick" {
					other.Done()
				}
			})
		}
	}
	other.Wait()
	close(release)
	l.close()
	for id, order := range done {
		if len(order) != 100 || !slices.IsSorted(order) {
			t.Errorf("%s: %v", id, order)
		}
	}
	if l.add("a", func() { t.Error("ran after close") }) || len(l.queues) != 0 {
		t.Error("work was taken after close")
	}
}

func TestWriteDeadline(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	var n atomic.Int64
	addr := serve(t, func(s *Server) {
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			if s.Batch.Tenant == "slow" {
				entered <- struct{}{}
				<-release
			}
			n.Add(1)
			return nil, nil
		}), nil)
	})
	defer close(release)
	c := dial(t, addr, ClientOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error)
	go func() {
		_, err := c.Write(ctx, shard("slow", 1))
		failed <- err
	}()
	<-entered
	cancel()
	if err := <-failed; errs.KindOf(err) != errs.Unavailable {
		t.Errorf("a canceled write: %v", err)
	}
	if _, err := c.Write(context.Background(), shard("a", 1)); err != nil { // the stream still works
		t.Error(err)
	}
}

func TestCutConnection(t *testing.T) {
	entered := make(chan struct{}, 10)
	hang := func(ctx context.Context, _ wire.Shard) ([]wire.Failure, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	first := newServer(t, ServerOptions{}, prometheus.NewRegistry(),
		func(s *Server) { RegisterWrite(s, writerFunc(hang), nil) })
	addr := first.Addr().String()
	c := dial(t, addr, ClientOptions{})
	errors := make(chan error)
	for i := range 5 {
		go func() {
			_, err := c.Write(context.Background(), shard(tenant.ID(fmt.Sprint("t", i)), 1))
			errors <- err
		}()
	}
	for range 5 {
		<-entered
	}
	first.grpc.Stop() // all connections are cut
	for range 5 {
		if err := <-errors; errs.KindOf(err) != errs.Unavailable || !strings.HasPrefix(err.Error(), addr) {
			t.Errorf("a write whose stream was cut: %v", err)
		}
	}
	newServer(t, ServerOptions{Address: addr}, prometheus.NewRegistry(),
		func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	eventually(t, "the client writes again", func() bool {
		_, err := c.Write(context.Background(), shard("a", 1))
		return err == nil
	})
}

// TestServerStops: a write that the server has read is finished and acknowledged before Close returns.
func TestServerStops(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		RegisterWrite(s, writerFunc(func(context.Context, wire.Shard) ([]wire.Failure, error) {
			close(entered)
			<-release
			return nil, nil
		}), nil)
	})
	c := dial(t, s.Addr().String(), ClientOptions{})
	wrote := make(chan error)
	go func() {
		_, err := c.Write(context.Background(), shard("a", 1))
		wrote <- err
	}()
	<-entered
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	<-s.closing
	close(release)
	if err := <-wrote; err != nil {
		t.Errorf("a write under way when the server stopped: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := c.Write(context.Background(), shard("a", 1)); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("a write after the stop: %v", err)
	}
}

// TestStreamsAge: streams are replaced while writes go on, and old ones end.
func TestStreamsAge(t *testing.T) {
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(),
		func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	c := dial(t, s.Addr().String(), ClientOptions{StreamAge: time.Nanosecond})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if _, err := c.Write(context.Background(), shard("a", 2)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := value(s.metrics.shards.WithLabelValues("ok")); n != 160 {
		t.Errorf("%v shards were counted", n)
	}
	eventually(t, "old streams end", func() bool { return value(s.metrics.streams) <= 1 })
}

func TestWriterPanics(t *testing.T) {
	s := newServer(t, ServerOptions{}, prometheus.NewRegistry(), func(s *Server) {
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			if s.Batch.Tenant == "bad" {
				panic("at the writer")
			}
			return nil, nil
		}), nil)
	})
	c := dial(t, s.Addr().String(), ClientOptions{})
	if _, err := c.Write(context.Background(), shard("bad", 1)); errs.KindOf(err) != errs.Internal {
		t.Error(err)
	}
	if _, err := c.Write(context.Background(), shard("good", 1)); err != nil {
		t.Error(err)
	}
	if n := value(s.metrics.panics); n != 1 {
		t.Errorf("%v panics counted", n)
	}
}

func TestClosedClient(t *testing.T) {
	c, err := Dial(serve(t, func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) }), ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(context.Background(), shard("a", 1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Write(context.Background(), shard("a", 1)); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("a write after Close: %v", err)
	}
}

// rawStream opens a Write stream without a Client.
func rawStream(t *testing.T, addr string) grpc.ClientStream {
	t.Helper()
	c := dialThanos(t, addr)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	s, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/hearth.Writer/Write")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFirstFrame(t *testing.T) {
	addr := serve(t, func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	f := func(first *hearthpb.WriteFrame, want codes.Code, versions ...uint32) {
		t.Helper()
		s := rawStream(t, addr)
		if err := s.SendMsg(first); err != nil {
			t.Fatal(err)
		}
		err := s.RecvMsg(new(hearthpb.WriteAnswer))
		if status.Code(err) != want {
			t.Errorf("%v: %v, want %s", first, err, want)
		}
		var got []uint32
		for _, d := range status.Convert(err).Details() {
			got = append(got, d.(*hearthpb.Error).Versions...)
		}
		if !slices.Equal(got, versions) {
			t.Errorf("%v: versions %v offered, want %v", first, got, versions)
		}
	}
	f(&hearthpb.WriteFrame{Hello: &hearthpb.Hello{Magic: writeMagic, Version: 1, Instance: "x"}}, codes.OK)
	f(&hearthpb.WriteFrame{Hello: &hearthpb.Hello{Magic: writeMagic, Version: 99}}, codes.Unimplemented, 2, 1)
	f(&hearthpb.WriteFrame{Hello: &hearthpb.Hello{Magic: 1, Version: 1}}, codes.InvalidArgument)
	f(&hearthpb.WriteFrame{Number: 1, Shard: wire.AppendShard(nil, shard("a", 1))}, codes.InvalidArgument)
	f(&hearthpb.WriteFrame{}, codes.InvalidArgument)
}

func TestDamagedFrames(t *testing.T) {
	addr := serve(t, func(s *Server) { RegisterWrite(s, writerFunc(stored), nil) })
	s := rawStream(t, addr)
	ask := func(m *hearthpb.WriteFrame) *hearthpb.WriteAnswer {
		t.Helper()
		a := new(hearthpb.WriteAnswer)
		if err := s.SendMsg(m); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	hello := &hearthpb.WriteFrame{Hello: &hearthpb.Hello{Magic: writeMagic, Version: 1}}
	hello.Hello.ProtoReflect().SetUnknown([]byte{0xf8, 0x3f, 5}) // a field of a later version
	if a := ask(hello); a.Hello.GetVersion() != 1 {
		t.Fatalf("hello: %v", a)
	}
	good := wire.AppendShard(nil, shard("a", 2))
	for _, bad := range [][]byte{nil, {}, {1}, []byte("garbage"), good[:len(good)-1], append(slices.Clone(good), 0)} {
		if a := ask(&hearthpb.WriteFrame{Number: 7, Shard: bad}); a.Number != 7 || a.Error == nil {
			t.Errorf("%q: %v", bad, a)
		}
	}
	if a := ask(&hearthpb.WriteFrame{Number: 8, Shard: good}); a.Number != 8 || a.Error != nil { // the stream still works
		t.Errorf("a good shard: %v", a)
	}
}

func TestOversizeMessage(t *testing.T) {
	opts := DefaultServerOptions()
	opts.Address, opts.MaxMessageBytes = "127.0.0.1:0", 10_000
	s, err := NewServer(quiet, nil, opts)
	if err != nil {
		t.Fatal(err)
	}
	RegisterWrite(s, writerFunc(stored), nil)
	if err := s.Open(context.Background(), func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := dial(t, s.Addr().String(), ClientOptions{})
	if _, err := c.Write(context.Background(), shard("a", 1000)); err == nil ||
		!strings.Contains(err.Error(), "larger than max") {
		t.Errorf("a shard over the limit: %v", err)
	}
	eventually(t, "smaller shards pass", func() bool {
		_, err := c.Write(context.Background(), shard("a", 1))
		return err == nil
	})
}

// TestGoldenFrames fixes the bytes of docs/format/rpc.md.
func TestGoldenFrames(t *testing.T) {
	f := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	hello := &hearthpb.WriteFrame{Hello: &hearthpb.Hello{Magic: writeMagic, Version: 1, Instance: "r-1", Epoch: 2}}
	raw, err := hello.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	f("hello", fmt.Sprintf("%x", raw), "0a0e"+"0d57485248"+"1001"+"1a03722d31"+"2002")
	s := shard("a", 1)
	payload := wire.AppendShard(nil, s)
	ws := &writeStream{last: 299, sent: map[uint64]*sentFrame{}}
	frame, _ := ws.frame(&writeCall{shard: s})
	f("shard 300", fmt.Sprintf("%x", frameBytes(frame)), fmt.Sprintf("10ac02"+"1a%02x%x", len(payload), payload))
}

// What has its place in the stream is stored before what is written for the tenant from then on, however many writes
// are under way.
func TestWriteInOrder(t *testing.T) {
	var mu sync.Mutex
	var got []int64
	addr := serve(t, func(s *Server) {
		RegisterWrite(s, writerFunc(func(_ context.Context, s wire.Shard) ([]wire.Failure, error) {
			mu.Lock()
			defer mu.Unlock()
			for _, i := range s.Series {
				got = append(got, s.Batch.Series[i].Samples[0].T)
			}
			return nil, nil
		}), nil)
	})
	c := dial(t, addr, ClientOptions{})
	const n = 200
	var wg sync.WaitGroup
	for i := range n {
		s := shard("team-a", 1)
		s.Batch.Series[0].Samples[0].T = int64(i)
		placed := make(chan struct{})
		wg.Go(func() {
			if failures, err := c.WriteInOrder(context.Background(), s, func() { close(placed) }); err != nil ||
				failures != nil {
				t.Error(failures, err)
			}
		})
		<-placed
	}
	wg.Wait()
	if len(got) != n || !slices.IsSorted(got) {
		t.Errorf("%d shards of %d, stored in the order %v", len(got), n, got)
	}
}

// A peer that is not there, or goes away, is distinguished from one that refuses.
func TestUnreached(t *testing.T) {
	c := dial(t, "127.0.0.1:1", ClientOptions{})
	if _, err := c.Write(context.Background(), shard("a", 1)); !errs.IsUnreached(err) ||
		errs.KindOf(err) != errs.Unavailable {
		t.Errorf("nobody listens: %v, unreached %v", err, errs.IsUnreached(err))
	}
	addr := serve(t, func(s *Server) {
		RegisterWrite(s, writerFunc(func(context.Context, wire.Shard) ([]wire.Failure, error) {
			return nil, errs.E(errs.Unavailable, "tenant is quarantined")
		}), nil)
	})
	if _, err := dial(t, addr, ClientOptions{}).Write(context.Background(), shard("a", 1)); err == nil ||
		errs.IsUnreached(err) {
		t.Errorf("the peer refuses: %v, unreached %v", err, errs.IsUnreached(err))
	}
}
