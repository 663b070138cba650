package distributor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

func TestPushPutsEverySeriesOnItsReplicas(t *testing.T) {
	r := newFakeRing(3, "a", "b", "c", "d", "e")
	c := newCluster(t, r, DefaultOptions())
	b := batch(200)
	b.Metadata = []wire.Metadata{{Family: "x"}, {Family: "y"}, {Family: "z"}}
	if got := c.push(b); got.Samples != 200 || got.Err() != nil || got.Tenant != "acme" || got.Series != 200 {
		t.Fatalf("result %+v", got)
	}
	c.close()
	for i := range b.Series {
		want := r.Replicas(nil, b.Tenant, b.Series[i].Hash)
		for m := range r.members {
			if has := c.member(r.members[m].ID).has(b.Series[i].Labels()); has != slices.Contains(want, int32(m)) {
				t.Fatalf("series %d on member %d: %v, its replicas are %v", i, m, has, want)
			}
		}
	}
	families := map[string]int{}
	for _, m := range c.members {
		for f, n := range m.metadata {
			families[f] += n
		}
		if m.writes > 1 {
			t.Fatalf("a member got %d shards of one batch", m.writes)
		}
	}
	if want := (map[string]int{"x": 3, "y": 3, "z": 3}); fmt.Sprint(families) != fmt.Sprint(want) {
		t.Fatalf("copies of metadata %v, want %v", families, want)
	}
	freed(t, b)
}

// One of three members is dark: nobody waits for it, and when it is back it gets what it missed.
func TestPushDoesNotWaitForADarkMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
		c.member("b").become(dark)
		b := batch(10)
		start := time.Now()
		if got := c.push(b); got.Samples != 10 || got.Err() != nil {
			t.Fatalf("result %+v", got)
		}
		if waited := time.Since(start); waited > 0 {
			t.Fatalf("Push waited %s for a dark member", waited)
		}
		time.Sleep(time.Minute)
		c.member("b").become(nil)
		time.Sleep(20 * time.Second)
		if series, _ := c.member("b").count(); series != 10 {
			t.Fatalf("the member that was dark has %d series, want 10", series)
		}
		if n := testutil.ToFloat64(c.metrics.bytes.WithLabelValues("b")); n != 0 {
			t.Fatalf("%v bytes are still kept for it", n)
		}
		c.close()
		freed(t, b)
	})
}

func TestPushWithoutAQuorumFailsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := DefaultOptions()
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), opts)
		c.member("b").become(dark)
		c.member("c").become(dark)
		b := batch(20)
		start := time.Now()
		got := c.push(b)
		if waited := time.Since(start); waited != opts.WriteTimeout {
			t.Fatalf("Push waited %s, want the write timeout %s", waited, opts.WriteTimeout)
		}
		if got.Samples != 0 || len(got.Failures) != 20 || got.Kind() != errs.Unavailable {
			t.Fatalf("result %+v", got)
		}
		if text := got.Err().Error(); !strings.Contains(text, "tenant acme") ||
			!strings.Contains(text, `{__name__="m", i="0"}`) ||
			!strings.Contains(text, "... and 10 more") {
			t.Fatalf("error %q", text)
		}
		// The sender heard that it must send again, so nothing is kept for the dark members.
		time.Sleep(time.Minute)
		if _, writes := c.member("b").count(); writes != 1 {
			t.Fatalf("a write that failed was tried %d times", writes)
		}
		c.close()
		freed(t, b)
	})
}

func TestPushFailsAtOnceWhenMembersRefuseConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
		c.member("b").become(down)
		c.member("c").become(down)
		start := time.Now()
		got := c.push(batch(3))
		if waited := time.Since(start); waited != 0 || got.Kind() != errs.Unavailable {
			t.Fatalf("after %s: %+v", waited, got)
		}
		if !strings.Contains(got.Failures[0].Reason, "connection refused") {
			t.Fatalf("reason %q does not tell the cause", got.Failures[0].Reason)
		}
		c.close()
	})
}

func TestPushFoldsOutcomesBySeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
		// Series 0 is refused by one, 1 by two, 2 by all, 3 once for good and once for now.
		c.member("a").become(refusing(errs.Conflict, 1, 2, 3))
		c.member("b").become(refusing(errs.Conflict, 0, 1, 2))
		c.member("c").become(refusing(errs.Conflict, 2))
		b := batch(5)
		b.Series[1].Samples = append(b.Series[1].Samples, wire.Sample{T: 2000})
		b.Rejected = []wire.Failure{{Series: -1, Kind: errs.Invalid, Reason: "bad label", Samples: 1, Whole: 1}}
		got := c.push(b)
		kinds := map[int]errs.Kind{}
		for _, f := range got.Failures {
			kinds[f.Series] = f.Kind
		}
		if want := (map[int]errs.Kind{-1: errs.Invalid, 1: errs.Conflict, 2: errs.Conflict}); fmt.Sprint(
			kinds) != fmt.Sprint(want) {
			t.Fatalf("failures %v, want %v", got.Failures, want)
		}
		if got.Samples != 4 || got.Series != 6 { // one sample of series 1 was refused, the other stored
			t.Fatalf("%d samples of %d series, want 4 of 6", got.Samples, got.Series)
		}
		if got.Kind() != errs.Conflict || !strings.Contains(got.Err().Error(), "series 1 refused") {
			t.Fatalf("error %v", got.Err())
		}
		c.member("c").become(down)
		if got := c.push(b); got.Kind() != errs.Unavailable { // series 0 and 3 have one copy and one conflict
			t.Fatalf("result %+v", got)
		}
		c.close()
		freed(t, b)
	})
}

// What a member cannot store now it gets later, and only that.
func TestPushRetriesOnlyTheMissingSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
		c.member("a").become(refusing(errs.Exhausted, 2, 4))
		b := batch(6)
		b.Metadata = []wire.Metadata{{Family: "x"}}
		if got := c.push(b); got.Err() != nil {
			t.Fatal(got.Err())
		}
		synctest.Wait()
		if series, _ := c.member("a").count(); series != 4 {
			t.Fatalf("%d series before the retry, want 4", series)
		}
		c.member("a").become(nil)
		time.Sleep(time.Second)
		m := c.member("a")
		if series, writes := m.count(); series != 6 || writes != 2 || m.metadata["x"] != 1 {
			t.Fatalf("%d series in %d writes, metadata %v", series, writes, m.metadata)
		}
		c.close()
		freed(t, b)
	})
}

func TestPushWithFewerMembersThanTheQuorum(t *testing.T) {
	f := func(rf int, ids []string, want string) {
		t.Helper()
		c := newCluster(t, newFakeRing(rf, ids...), DefaultOptions())
		defer c.close()
		b := batch(2)
		b.Metadata = []wire.Metadata{{Family: "x"}}
		got := c.push(b)
		if want == "" {
			if got.Err() != nil || got.Samples != 2 {
				t.Fatalf("rf %d, members %v: %+v", rf, ids, got)
			}
			return
		}
		if got.Kind() != errs.Unavailable || len(got.Failures) != 3 || !strings.Contains(got.Err().Error(), want) {
			t.Fatalf("rf %d, members %v: %v", rf, ids, got.Err())
		}
		for _, id := range ids {
			if _, writes := c.member(id).count(); writes > 0 {
				t.Fatalf("rf %d, members %v: %s was written to", rf, ids, id)
			}
		}
	}
	f(3, []string{"a"}, "the ring has 1 of the 2 members")
	f(5, []string{"a", "b"}, "the ring has 2 of the 3 members")
	f(2, []string{"a"}, "the ring has 1 of the 2 members")
	f(3, nil, "no member")
	f(3, []string{"a", "b"}, "")
}

func TestPushWithReplicationFactor2(t *testing.T) {
	f := func(thanos bool, want errs.Kind) {
		t.Helper()
		opts := DefaultOptions()
		opts.ThanosRF2 = thanos
		c := newCluster(t, newFakeRing(2, "a", "b"), opts)
		defer c.close()
		c.member("b").become(down)
		if got := c.push(batch(3)); got.Kind() != want {
			t.Fatalf("as Thanos %v: %v", thanos, got.Err())
		}
	}
	f(false, errs.Unavailable)
	f(true, errs.OK)
}

// A member that answers about what it was not asked is not believed.
func TestPushDistrustsAnswersAboutOtherSeries(t *testing.T) {
	for _, series := range []int{-1, 1, 5, 1 << 20} {
		c := newCluster(t, newFakeRing(1, "a", "b"), DefaultOptions())
		b := batch(6)
		for i := range b.Series {
			b.Series[i].Hash = uint64(i % 2)
		}
		c.member("a").become(func(context.Context, wire.Shard) ([]wire.Failure, error) {
			return []wire.Failure{{Series: series, Kind: errs.Conflict}}, nil
		})
		if got := c.push(b); got.Kind() != errs.Unavailable || got.Samples != 3 || len(got.Failures) != 3 {
			t.Fatalf("series %d: %+v", series, got)
		}
		c.close()
	}
}

// A member that does not take anything costs memory up to the bound, and nobody time.
func TestPushOverADeadMembersBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := DefaultOptions()
		opts.MemberBatches, opts.MemberConcurrency = 4, 2
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), opts)
		c.member("b").become(dark)
		start := time.Now()
		for range 20 {
			if got := c.push(batch(5)); got.Err() != nil {
				t.Fatal(got.Err())
			}
			synctest.Wait()
		}
		if waited := time.Since(start); waited > 0 {
			t.Fatalf("20 writes waited %s for a dark member", waited)
		}
		if n := testutil.ToFloat64(c.metrics.dropped.WithLabelValues("b", "evicted")); n != 16 {
			t.Fatalf("%v shards evicted, want 16", n)
		}
		// What is new takes the place of the oldest that is not being written.
		time.Sleep(2*opts.WriteTimeout + 5*time.Second)
		if got := c.push(batch(5)); got.Err() != nil {
			t.Fatal(got.Err())
		}
		if n := testutil.ToFloat64(c.metrics.dropped.WithLabelValues("b", "evicted")); n != 17 {
			t.Fatalf("%v shards evicted, want 17", n)
		}
		for _, id := range []string{"a", "c"} {
			if series, _ := c.member(id).count(); series != 21*5 {
				t.Fatalf("member %s has %d series, want %d", id, series, 21*5)
			}
		}
		c.close()
	})
}

func TestRetriesEndWithAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := DefaultOptions()
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), opts)
		c.member("b").become(down)
		b := batch(5)
		c.push(b)
		time.Sleep(opts.RetryAge + 2*opts.RetryMax)
		_, writes := c.member("b").count()
		if n := testutil.ToFloat64(c.metrics.dropped.WithLabelValues("b", "too old")); n != 1 {
			t.Fatalf("%v shards dropped for their age after %d tries", n, writes)
		}
		if most := 20 + int(opts.RetryAge/opts.RetryMax)*2; writes > most || writes < 30 {
			t.Fatalf("%d tries in %s, want 30 to %d", writes, opts.RetryAge, most)
		}
		c.close()
		freed(t, b)
	})
}

func TestPushEndsWithTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
		c.member("a").become(dark)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		b := batch(1)
		start := time.Now()
		got, err := c.Push(ctx, b)
		if err != nil || got.Kind() != errs.Unavailable || time.Since(start) != time.Second {
			t.Fatalf("after %s: %+v, %v", time.Since(start), got, err)
		}
		c.close()
		freed(t, b)
	})
}

func TestCloseWaitsForReplicasOnTheirWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := DefaultOptions()
		opts.MemberConcurrency = 1
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), opts)
		slow := func(context.Context, wire.Shard) ([]wire.Failure, error) {
			time.Sleep(2 * time.Second)
			return nil, nil
		}
		c.member("b").become(slow)
		for range 3 {
			c.push(batch(5))
		}
		c.close()
		if series, _ := c.member("b").count(); series != 15 {
			t.Fatalf("the slow member has %d series at the end, want 15", series)
		}
		for id, m := range c.members {
			if m.closed != 1 {
				t.Fatalf("the writer of %s was closed %d times", id, m.closed)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal("Close is not idempotent:", err)
		}
		if _, err := c.Push(context.Background(), batch(1)); errs.KindOf(err) != errs.Unavailable {
			t.Fatalf("Push after Close: %v", err)
		}
	})
}

func TestCloseDoesNotWaitForADarkMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := DefaultOptions()
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), opts)
		c.member("b").become(dark)
		all := []*wire.Batch{}
		for range 100 {
			all = append(all, batch(2))
			c.push(all[len(all)-1])
		}
		start := time.Now()
		c.close()
		if waited := time.Since(start); waited > opts.WriteTimeout {
			t.Fatalf("Close took %s", waited)
		}
		for _, b := range all {
			freed(t, b)
		}
	})
}

func TestMembersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
		c.push(batch(5))
		c.member("a").become(func(context.Context, wire.Shard) ([]wire.Failure, error) {
			time.Sleep(time.Second)
			return nil, nil
		})
		go c.push(batch(5)) // on its way to a when that leaves
		synctest.Wait()
		c.place.Store(newFakeRing(1, "b"))
		c.push(batch(5))
		time.Sleep(2 * time.Second)
		if series, _ := c.member("a").count(); series != 10 || c.member("a").closed != 1 {
			t.Fatalf("the member that left has %d series, closed %d times", series, c.member("a").closed)
		}
		if series, _ := c.member("b").count(); series != 5 || c.member("b").closed != 0 {
			t.Fatalf("the member that came has %d series, closed %d times", series, c.member("b").closed)
		}
		if n := testutil.CollectAndCount(c.metrics.bytes); n != 1 {
			t.Fatalf("%d members in the metrics, want 1", n)
		}
		c.close()
	})
}

// A receiver that comes back under another address, as a restarted pod does, gets what it missed.
func TestMemberWithAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
		before := c.member("a")
		before.become(down)
		c.push(batch(5))
		synctest.Wait()
		after := &fakeMember{series: map[string]int{}, metadata: map[string]int{}}
		dials := map[string]int{}
		fault := errors.New("no such host")
		c.Distributor.dial = func(m ring.Member) (Writer, error) {
			dials[m.Addr]++
			if m.Addr == "elsewhere:10901" {
				return after, fault
			}
			return c.dial(m)
		}
		moved := newFakeRing(3, "a", "b", "c")
		moved.members[0].Addr = "elsewhere:10901"
		c.place.Store(moved)
		for range 3 {
			c.push(batch(5))
		}
		if dials["elsewhere:10901"] != 1 || before.hungUp() != 0 {
			t.Errorf("an address that cannot be dialed: %d dials within one moment, writer of the old one closed %d times",
				dials["elsewhere:10901"], before.hungUp())
		}
		fault = nil
		time.Sleep(2 * time.Second)
		c.push(batch(5))
		time.Sleep(10 * time.Second)
		if series, _ := after.count(); series != 25 {
			t.Errorf("the member under its new address has %d series, want 25", series)
		}
		if len(dials) != 1 || before.hungUp() != 1 || after.hungUp() != 0 {
			t.Errorf("dials %v, closed %d and %d times", dials, before.hungUp(), after.hungUp())
		}
		c.close()
		if after.hungUp() != 1 {
			t.Errorf("the writer was closed %d times", after.hungUp())
		}
	})
}

func TestMemberThatCannotBeDialedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
		refused := errors.New("no such certificate")
		dials := 0
		c.Distributor.dial = func(m ring.Member) (Writer, error) {
			if m.ID != "a" || refused == nil {
				return c.dial(m)
			}
			dials++
			return nil, refused
		}
		for range 10 {
			if got := c.push(batch(5)); got.Err() != nil {
				t.Fatal(got.Err())
			}
		}
		if dials != 1 {
			t.Fatalf("%d dials within one moment, want 1", dials)
		}
		c.member("b").become(down)
		if got := c.push(batch(1)); !strings.Contains(got.Err().Error(), "connection refused") &&
			!strings.Contains(got.Err().Error(), "no such certificate") {
			t.Fatal(got.Err())
		}
		c.member("b").become(nil)
		refused = nil
		time.Sleep(2 * time.Second)
		c.push(batch(5))
		synctest.Wait()
		if series, _ := c.member("a").count(); series != 5 {
			t.Fatalf("the member that can be dialed now has %d series, want 5", series)
		}
		c.close()
	})
}

func TestPushNeedsAnOpenDistributorAndARing(t *testing.T) {
	var placement ring.Placement
	d, err := New(nil, nil, func() ring.Placement { return placement }, nil, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	f := func(want string) {
		t.Helper()
		if _, err := d.Push(context.Background(), batch(1)); errs.KindOf(err) != errs.Unavailable ||
			!strings.Contains(err.Error(), want) {
			t.Fatalf("error %v, want %q", err, want)
		}
	}
	f("takes no writes")
	if err := d.Open(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	f("no ring")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	f("takes no writes")
}

// Without replication a member in this process is written to on the caller's goroutine: a panic there arrives here.
func TestPushWritesLocallyWithoutAQueue(t *testing.T) {
	c := newCluster(t, newFakeRing(1, "self", "other"), DefaultOptions())
	defer c.close()
	c.Distributor.dial = func(m ring.Member) (Writer, error) {
		if m.ID == "self" {
			return Local{c.member("self")}, nil
		}
		return c.dial(m)
	}
	b := batch(50)
	if got := c.push(b); got.Samples != 50 {
		t.Fatalf("result %+v", got)
	}
	self, _ := c.member("self").count()
	other, _ := c.member("other").count()
	if self+other != 50 || self == 0 || other == 0 {
		t.Fatalf("%d series here, %d there", self, other)
	}
	c.member("self").become(func(context.Context, wire.Shard) ([]wire.Failure, error) { panic("here") })
	defer func() {
		if recover() != "here" {
			t.Fatal("the local write ran on another goroutine")
		}
		c.member("self").become(nil)
	}()
	c.push(b)
}

func TestOptions(t *testing.T) {
	if err := DefaultOptions().Validate(); err != nil {
		t.Fatal(err)
	}
	err := Options{RetryMin: 2, RetryMax: 1}.Validate()
	for _, part := range []string{"write timeout", "maximum body", "maximum decoded", "maximum requests", "request bytes", "concurrency", "batches", "member bytes", "age", "below the minimum"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("error %v lacks %q", err, part)
		}
	}
	if _, err := New(nil, nil, nil, nil, Options{}); err == nil {
		t.Fatal("New takes options that are not valid")
	}
}

// TestPushSpan: a push of a sampled request has one span, which is the parent of the writes to members, and ends with
// an error when samples are not stored.
func TestPushSpan(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	ctx, root := provider.Tracer("test").Start(t.Context(), "root")
	defer root.End()
	opts := DefaultOptions()
	c := newCluster(t, newFakeRing(3, "a", "b", "c"), opts)
	defer c.close()
	parents := make(chan trace.SpanContext, 9)
	c.member("a").become(func(ctx context.Context, _ wire.Shard) ([]wire.Failure, error) {
		parents <- trace.SpanContextFromContext(ctx)
		return nil, nil
	})
	push := func(ctx context.Context) {
		t.Helper()
		b := batch(7)
		defer b.Release()
		if _, err := c.Push(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	push(t.Context())
	if parent := <-parents; parent.IsValid() || len(spans.GetSpans()) != 0 {
		t.Fatalf("without a sampled request: parent %v, spans %v", parent, spans.GetSpans())
	}
	push(ctx)
	parent := <-parents
	c.member("b").become(down)
	c.member("c").become(down)
	push(ctx) // which need not reach a: when b and c have failed, nobody needs a's copy
	got := spans.GetSpans()
	if len(got) != 2 || got[0].Name != "distributor push" || got[0].Parent.SpanID() != root.SpanContext().SpanID() ||
		!got[0].SpanContext.Equal(parent) || got[0].Status.Code != codes.Unset {
		t.Fatalf("spans %+v, parent of a member's write %v", got, parent)
	}
	if s := got[1].Status; s.Code != codes.Error || s.Description != errs.Unavailable.String() {
		t.Fatalf("status of a push that failed: %+v", s)
	}
	if a := got[0].Attributes; len(a) != 1 || a[0] != attribute.Int("series", 7) {
		t.Fatalf("attributes %v", a)
	}
}

// BenchmarkPushSpanUnsampled is what the span costs a request that is not sampled: nothing is allocated.
func BenchmarkPushSpanUnsampled(b *testing.B) {
	in := batch(1)
	b.ReportAllocs()
	for b.Loop() {
		_, span := startPush(b.Context(), in)
		endPush(span, Result{}, nil)
	}
}
