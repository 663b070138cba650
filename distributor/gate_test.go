package distributor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/internal/wire/otlp"
)

// However many tenants ask for all they can get, none gets much more than another, and a tenant that comes late is
// let in when a few requests have ended.
func TestGateIsFair(t *testing.T) {
	f := func(tenants int) {
		c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
		defer c.close()
		g := &c.gate
		g.most = usage{1000, 1_000_000}
		held := make([][]*reservation, tenants)
		// turn ends one request of each of the first n tenants, who then take all that they get.
		turn := func(n int) {
			for i := range n {
				if len(held[i]) > 0 {
					held[i][0].done()
					held[i] = held[i][1:]
				}
				held[i] = append(held[i], greedy(t, g, c.tenants.of(tenant.ID(fmt.Sprint("t", i))))...)
			}
		}
		for n := 1; n <= tenants; n++ {
			turns := 0
			for len(held[n-1]) == 0 {
				if turn(n); turns > 5 {
					t.Fatalf("tenant %d of %d has found no room after %d turns", n, tenants, turns)
				}
				turns++
			}
			for range 1000 {
				turn(n)
			}
		}
		least, most := len(held[0]), 0
		for _, tickets := range held {
			least, most = min(least, len(tickets)), max(most, len(tickets))
			for _, reservation := range tickets {
				reservation.done()
			}
		}
		if most > 2*least || most*tenants < 800 {
			t.Errorf("%d tenants have from %d to %d requests within the gate", tenants, least, most)
		}
		if g.now != (usage{}) {
			t.Errorf("%+v is still accounted for", g.now)
		}
	}
	f(1)
	f(2)
	f(5)
	f(20)
}

// greedy takes requests of 1000 bytes until it gets no more.
func greedy(t *testing.T, g *gate, a *tenantState) (held []*reservation) {
	return greedyFrom(t, g, a, string(a.id))
}

func greedyFrom(t *testing.T, g *gate, a *tenantState, address string) (held []*reservation) {
	for {
		reservation, err := g.begin(a, address, 1000)
		if err == nil {
			if err = reservation.ask(1000, false); err == nil {
				err = reservation.enter()
			}
			if err == nil {
				held = append(held, reservation)
				continue
			}
			reservation.done()
		}
		if errs.KindOf(err) != errs.Exhausted {
			t.Fatal(err)
		}
		return held
	}
}

// Somebody who names ever new tenants leaves something for those who come from elsewhere.
func TestGateIsFairToAddresses(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
	defer c.close()
	g := &c.gate
	g.most = usage{1000, 1_000_000}
	var all []*reservation
	for i := range 2000 {
		all = append(all, greedyFrom(t, g, c.tenants.of(tenant.ID(fmt.Sprint("t", i))), "attacker")...)
	}
	honest := greedyFrom(t, g, c.tenants.of("honest"), "elsewhere")
	if len(honest) < 10 {
		t.Errorf("an attacker of many names has %d requests, and leaves %d", len(all), len(honest))
	}
	for _, reservation := range append(all, honest...) {
		reservation.done()
	}
	if g.now != (usage{}) || len(g.byAddress) != 0 {
		t.Errorf("%+v of %d addresses is still accounted for", g.now, len(g.byAddress))
	}
}

// Names of tenants that are no more than claims take bounded memory, and never the place of a tenant with samples.
func TestClaimedTenantsAreBounded(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
	defer c.close()
	as := &c.tenants
	as.of("real").stored(1)
	as.of("real").refused("inflight", 0)
	for i := range 2 * maxClaimed {
		as.of(tenant.ID(fmt.Sprint("claim-", i))).refused("inflight", 1)
	}
	if len(as.claimed) > maxClaimed || len(as.byID) > maxClaimed+1 {
		t.Errorf("%d accounts, %d of them claimed", len(as.byID), len(as.claimed))
	}
	for name, n := range map[string]int{"requests": testutil.CollectAndCount(c.metrics.limitedRequests),
		"samples": testutil.CollectAndCount(c.metrics.limitedSamples)} {
		if n > maxClaimed+1 {
			t.Errorf("%d series of refused %s", n, name)
		}
	}
	if testutil.ToFloat64(c.metrics.limitedRequests.WithLabelValues("real", "inflight")) != 1 {
		t.Error("what is known of a real tenant is forgotten")
	}
	gone := as.of("late")
	as.mu.Lock()
	as.forget("late")
	as.mu.Unlock()
	gone.refused("inflight", 1)
	if c.metrics.limitedRequests.DeleteLabelValues("late", "inflight") {
		t.Error("a request that was under way counts for a tenant that is forgotten")
	}
}

// silentBody sends first and then nothing until it is closed.
type silentBody struct {
	first  io.Reader
	silent *sync.WaitGroup
	closed chan struct{}
	once   sync.Once
}

func (b *silentBody) Read(p []byte) (int, error) {
	if n, err := b.first.Read(p); err == nil {
		return n, nil
	}
	b.once.Do(b.silent.Done)
	<-b.closed
	return 0, io.ErrUnexpectedEOF
}

// Bodies that do not come hold no place, and no more memory than has come of them, however many there are and whatever
// they claim.
func TestBodiesThatDoNotComeHoldNothing(t *testing.T) {
	translator, err := otlp.New(otlp.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	f := func(sent int, most int64) {
		t.Helper()
		opts := DefaultOptions()
		c := newCluster(t, newFakeRing(1, "a"), opts)
		defer c.close()
		handlers := []http.Handler{c.Handler(), c.OTLPHandler(translator)}
		closed := make(chan struct{})
		var silent, ended sync.WaitGroup
		const senders = 600
		for i := range senders {
			silent.Add(1)
			body := &silentBody{first: bytes.NewReader(make([]byte, sent)), silent: &silent, closed: closed}
			req := httptest.NewRequest(http.MethodPost, "/", body)
			req.ContentLength = []int64{-1, 1 << 20}[i%2]
			req.Header.Set("Content-Type", contentV1)
			req.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", i%250)
			ended.Go(func() {
				handlers[i/2%2].ServeHTTP(httptest.NewRecorder(), req)
				body.once.Do(silent.Done) // it was refused before it was read
			})
		}
		silent.Wait()
		if now := c.gate.now; now.requests != 0 || now.bytes > senders*most {
			t.Errorf("%d silent bodies, each after %d bytes, hold %+v", senders, sent, now)
		}
		if w := c.do(httpRequest{content: contentV1, body: bodyV1(sample1("__name__", "up"))}); w.Code != 204 {
			t.Errorf("beside %d silent bodies: %d %s", senders, w.Code, w.Body)
		}
		close(closed)
		ended.Wait()
		if c.gate.now != (usage{}) {
			t.Errorf("%+v is still accounted for", c.gate.now)
		}
	}
	f(0, 0)
	f(64, pieceSize)
	f(pieceSize-1, pieceSize)
}

// attack is a request as the handlers get it, of a body that may be slow.
type attack struct {
	name, path, content, encoding string
	body                          []byte
	slow                          bool // stops before the end
}

// attacks are requests that would take many times their size in memory.
func attacks(t *testing.T) []attack {
	one, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: []prompb.Label{{Name: "__name__", Value: "a"}}, Samples: []prompb.Sample{{}},
	}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	manySeries := snappy.Encode(nil, bytes.Repeat(one, 300_000))
	oneSeries, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: []prompb.Label{{Name: "__name__", Value: "a"}}, Samples: make([]prompb.Sample, 3_000_000),
	}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	symbols := &writev2.Request{Symbols: []string{"", "__name__", "a", "b", strings.Repeat("x", 10_000)}}
	for range 6_000 {
		symbols.Timeseries = append(symbols.Timeseries,
			writev2.TimeSeries{LabelsRefs: []uint32{1, 2, 3, 4}, Samples: make([]writev2.Sample, 1)})
	}
	references, err := symbols.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	zeros := snappy.Encode(nil, make([]byte, 100<<20))
	names := make([]string, 60_000)
	for i := range names {
		names[i] = fmt.Sprint("metric_", i)
	}
	noise := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	return []attack{
		{name: "many small series", content: contentV1, body: manySeries},
		{name: "many small samples", content: contentV1, body: snappy.Encode(nil, oneSeries)},
		{name: "references to a long symbol", content: contentV2, body: snappy.Encode(nil, references)},
		{name: "zeros", content: contentV1, body: zeros},
		{name: "slow", content: contentV1, body: noise, slow: true},
		{name: "gzip zeros", path: "otlp", content: contentV1, encoding: "gzip", body: zipped(make([]byte, 100<<20))},
		{name: "many data points", path: "otlp", content: contentV1, encoding: "gzip",
			body: zipped(otlpBody(contentV1, names...))},
		{name: "slow OTLP", path: "otlp", content: contentV1, body: noise, slow: true},
	}
}

// slowBody stops where it ends until it may go on.
type slowBody struct {
	io.Reader
	stuck func()
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.stuck()
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// Many requests at once that would take gigabytes, of slow clients and while the member stores nothing, take what the
// gate allows. Those that do not fit are refused, and another tenant gets in.
func TestMemoryIsBounded(t *testing.T) {
	const (
		room       = 24 << 20
		concurrent = 40
	)
	opts := DefaultOptions()
	opts.MaxRequestBytes = room
	c := newCluster(t, newFakeRing(1, "a"), opts)
	leave := make(chan struct{})
	c.member("a").become(func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
		if s.Batch.Tenant != "calm" {
			<-leave
		}
		return nil, nil
	})
	translator, err := otlp.New(otlp.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	handlers := map[string]http.Handler{"": c.Handler(), "otlp": c.OTLPHandler(translator)}
	all := attacks(t)
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // so that little of what is measured is garbage
	runtime.GC()
	before := heap()
	var (
		peak    atomic.Uint64
		stuck   atomic.Int64
		clients sync.WaitGroup
		stop    = make(chan struct{})
		codes   sync.Map
	)
	for i := range concurrent {
		clients.Go(func() {
			for round := range 8 {
				a := all[(i+round)%len(all)]
				body := io.Reader(bytes.NewReader(a.body))
				if a.slow {
					body = &slowBody{body, func() { stuck.Add(1); <-leave }}
				}
				req := httptest.NewRequest(http.MethodPost, "/", body)
				if i%2 == 0 || a.slow {
					req.ContentLength = -1 // chunked
				}
				req.Header.Set("Content-Type", a.content)
				req.Header.Set("Content-Encoding", a.encoding)
				req.Header.Set("THANOS-TENANT", fmt.Sprint("greedy-", i%2))
				w := httptest.NewRecorder()
				handlers[a.path].ServeHTTP(w, req)
				n, _ := codes.LoadOrStore(w.Code, new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
				if w.Code == 503 { // as a sender does
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if now := heap(); now > peak.Load() {
				peak.Store(now)
			}
			// A tenant that asks for little is let in, at the latest when it comes again.
			w := c.do(httpRequest{content: contentV1, body: bodyV1(sample1("__name__", "up")),
				headers: []string{"THANOS-TENANT", "calm"}})
			late := i > 10_000
			if late {
				t.Error("the calm tenant was not let in")
			}
			if late || w.Code == 204 && i > 100 {
				select {
				case <-leave:
				default:
					close(leave)
				}
			}
			time.Sleep(time.Millisecond)
		}
	})
	clients.Wait()
	close(stop)
	watch.Wait()
	c.close()
	if grown := int64(peak.Load()) - int64(before); grown > 6*room {
		t.Errorf("the heap grew by %d MiB with %d MiB for requests", grown>>20, room>>20)
	} else {
		t.Logf("the heap grew by %d MiB with %d MiB for requests", grown>>20, room>>20)
	}
	codes.Range(func(code, n any) bool {
		t.Logf("%d: %d", code, n.(*atomic.Int64).Load())
		return true
	})
	if n := testutil.ToFloat64(c.metrics.limitedRequests.WithLabelValues("greedy-0", "inflight")); n == 0 {
		t.Error("nothing was refused for want of room")
	}
	if c.gate.now != (usage{}) {
		t.Errorf("%+v is still accounted for", c.gate.now)
	}
}

// heap is what objects on the heap take, garbage included.
func heap() uint64 {
	s := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtimemetrics.Read(s)
	return s[0].Value.Uint64()
}
