package query

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

func selectAll(q *Querier) (n int, warnings series.Warnings, err error) {
	set := q.Select(context.Background(), &series.Request{
		Tenant:   tenant.Default,
		MinTime:  0,
		MaxTime:  2000,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")},
	})
	defer set.Close()
	for set.Next() {
		n++
	}
	return n, set.Warnings(), set.Err()
}

// TestPolling: an endpoint that comes, goes and comes back is noticed, and the ones that are down are asked only when
// the answer needs them.
func TestPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := map[tenant.ID][]sourcetest.Series{tenant.Default: {oneSample(1, "__name__", "up")}}
		var down [3]atomic.Bool
		var selected [3]atomic.Int64
		var endpoints []Endpoint
		var history []ring.Incarnation
		for i, name := range []string{"a", "b", "c"} {
			e, m := receiver(name, data)
			m.Fail = func() error {
				if down[i].Load() {
					return errs.E(errs.Unavailable, "no route")
				}
				return nil
			}
			e.Source = &counting{Memory: m, n: &selected[i]}
			endpoints = append(endpoints, e)
			history = append(history, ring.Incarnation{Member: ring.Member{ID: name}})
		}
		opts := DefaultOptions()
		opts.Retention = 100 * 365 * 24 * time.Hour
		opts.Membership = func(tenant.ID) Membership { return Membership{ReplicationFactor: 3, History: history} }
		var known atomic.Int64 // how many of the endpoints
		known.Store(1)
		q, err := New(slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry(),
			func() []Endpoint { return endpoints[:known.Load()] }, opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		f := func(step string, wantAsked string, wantWarning string) {
			t.Helper()
			before := [3]int64{selected[0].Load(), selected[1].Load(), selected[2].Load()}
			n, warnings, err := selectAll(q)
			asked := ""
			for i := range selected {
				if selected[i].Load() > before[i] {
					asked += endpoints[i].Name
				}
			}
			if got := strings.Join(warnings,
				"|"); n != 1 || err != nil || asked != wantAsked || !strings.Contains(got, wantWarning) ||
				wantWarning == "" && got != "" {
				t.Errorf("%s: %d series, asked %s, warnings %q, error %v", step, n, asked, warnings, err)
			}
		}
		f("one of three is known", "a", "receivers b, c did not answer")
		known.Store(3)
		time.Sleep(2 * time.Second)
		f("all are known", "abc", "")
		down[1].Store(true)
		f("one is down, not noticed yet", "abc", "")
		time.Sleep(10 * time.Second)
		f("one is down", "ac", "")
		down[2].Store(true)
		time.Sleep(10 * time.Second)
		f("two are down", "abc", "receivers b, c did not answer")
		down[1].Store(false)
		f("one is back, not noticed yet", "abc", "")
		time.Sleep(2 * time.Second)
		f("one is back", "ab", "")
	})
}

// TestDiscoveryLearns: what discovery learns of an endpoint counts until that has answered for the first time.
func TestDiscoveryLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bucket atomic.Value
		bucket.Store("")
		dark := series.FailedSource(errs.E(errs.Unavailable, "it starts"))
		q, err := New(slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry(), func() []Endpoint {
			return []Endpoint{{Name: "s", Source: dark, Known: series.Info{Role: series.RoleStore, Instance: "s",
				Blocks: series.Holding{Bucket: bucket.Load().(string)}}}}
		}, DefaultOptions())
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		for _, want := range []string{"", "shared"} {
			bucket.Store(want)
			time.Sleep(5 * time.Second)
			if got := q.snapshot.Load().endpoints[0].info.Blocks.Bucket; got != want {
				t.Errorf("bucket %q, want %q", got, want)
			}
		}
	})
}

type counting struct {
	*sourcetest.Memory
	n *atomic.Int64
}

func (c *counting) Select(ctx context.Context, r *series.Request) series.Set {
	c.n.Add(1)
	return c.Memory.Select(ctx, r)
}

// stuck is a source whose sets yield one series and then nothing until they are canceled.
type stuck struct{ *sourcetest.Memory }

type stuckSet struct {
	series.Set
	ctx  context.Context
	more bool
}

func (s *stuck) Select(ctx context.Context, r *series.Request) series.Set {
	return &stuckSet{Set: s.Memory.Select(ctx, r), ctx: ctx}
}

func (s *stuckSet) Next() bool {
	if s.more {
		<-s.ctx.Done()
		return false
	}
	s.more = true
	return s.Set.Next()
}

func (s *stuckSet) Err() error {
	if s.ctx.Err() != nil {
		return errs.Wrap(errs.Unavailable, s.ctx.Err())
	}
	return nil
}

// TestCancel: a query that is canceled, times out or is closed early ends, with all its goroutines, and is no partial
// answer.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := map[tenant.ID][]sourcetest.Series{
			tenant.Default: {oneSample(1, "__name__", "up"), oneSample(1, "__name__", "up", "x", "y")}}
		a, _ := receiver("a", data)
		b, m := receiver("b", data)
		b.Source = &stuck{m}
		q := open(t, DefaultOptions(), a, b)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // before b is given up
		defer cancel()
		r := &series.Request{Tenant: tenant.Default, MaxTime: 2000}
		set := q.Select(ctx, r)
		for set.Next() {
		}
		if !errors.Is(set.Err(), context.DeadlineExceeded) || len(set.Warnings()) > 0 {
			t.Errorf("timeout: error %v, warnings %q", set.Err(), set.Warnings())
		}
		for range 2 {
			if err := set.Close(); err != nil {
				t.Error(err)
			}
		}
		set = q.Select(context.Background(), r)
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLimit: an answer that ends early because it has enough is not partial.
func TestLimit(t *testing.T) {
	data := map[tenant.ID][]sourcetest.Series{
		tenant.Default: {oneSample(1, "__name__", "up"), oneSample(1, "__name__", "up", "x", "y")}}
	a, _ := receiver("a", data)
	b, _ := receiver("b", map[tenant.ID][]sourcetest.Series{
		tenant.Default: {oneSample(1, "__name__", "up", "z", "1"), oneSample(1, "__name__", "up", "z", "2")}})
	opts := DefaultOptions()
	opts.Retention = 100 * 365 * 24 * time.Hour
	opts.Membership = func(tenant.ID) Membership {
		return Membership{ReplicationFactor: 1,
			History: []ring.Incarnation{{Member: ring.Member{ID: "a"}}, {Member: ring.Member{ID: "b"}}}}
	}
	q := open(t, opts, a, b)
	for limit := 1; limit <= 5; limit++ {
		set := q.Select(context.Background(), &series.Request{Tenant: tenant.Default, MaxTime: 2000, Limit: limit})
		n := 0
		for set.Next() {
			n++
		}
		if n != min(limit, 4) || set.Err() != nil || len(set.Warnings()) > 0 {
			t.Errorf("limit %d: %d series, error %v, warnings %q", limit, n, set.Err(), set.Warnings())
		}
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestLimitAndStandIn: a gateway failed, another went on in its place, and the limit was reached before that one ended.
func TestLimitAndStandIn(t *testing.T) {
	q := open(t, DefaultOptions())
	gateway := func(name string) *endpoint {
		return &endpoint{Endpoint: Endpoint{Name: name},
			info: series.Info{Instance: name, Role: series.RoleStore, Blocks: whole("bucket")}, heard: true}
	}
	both := &group{endpoints: []*endpoint{gateway("s1"), gateway("s2")}}
	col := new(collector)
	fail := func(n int) { col.change(n, func(r *response) { r.err = errs.E(errs.Unavailable, "cable cut") }) }
	first, second := col.begin(both, both.endpoints[0]), col.begin(both, both.endpoints[1])
	fail(first)
	s := &selection{q: q, req: &series.Request{Tenant: tenant.Default, MaxTime: 2000, Limit: 1},
		p: q.defaultParams(), plan: plan{groups: []*group{both}}}
	if missing := s.missing(col, true); len(missing) > 0 {
		t.Errorf("missing %q", missing)
	}
	fail(second)
	if missing := s.missing(col, true); len(missing) != 2 {
		t.Errorf("both failed: missing %q", missing)
	}
}

func TestBytesLimit(t *testing.T) {
	e, _ := receiver("r", map[tenant.ID][]sourcetest.Series{
		tenant.Default: {oneSample(1, "__name__", "up"), oneSample(1, "__name__", "up", "x", "y")}})
	opts := DefaultOptions()
	opts.MaxBytes = 40
	if _, _, err := selectAll(open(t, opts, e)); err != nil {
		t.Error(err)
	}
	opts.MaxBytes = 20
	if _, _, err := selectAll(open(t, opts, e)); errs.KindOf(err) != errs.Limited ||
		!strings.Contains(err.Error(), "limit on bytes") {
		t.Errorf("error %v", err)
	}
}

func TestOptions(t *testing.T) {
	if err := DefaultOptions().Validate(); err != nil {
		t.Error(err)
	}
	var zero Options
	zero.ReplicaLabels = []string{""}
	err := zero.Validate()
	for _, part := range []string{"max concurrent", "timeout", "lookback", "max samples", "info interval", "retention", "tenant label", "replica label"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
	if _, err := New(slog.Default(), nil, nil, zero); err == nil {
		t.Error("New took options that are not valid")
	}
}

func TestInfo(t *testing.T) {
	a, ma := receiver("a", nil)
	b, mb := receiver("b", nil)
	ma.About.Tenants, ma.About.MinTime, ma.About.MaxTime = []tenant.ID{"x"}, 5, 10
	mb.About.Tenants, mb.About.MinTime, mb.About.MaxTime = []tenant.ID{"x", "y"}, 1, 7
	info, err := open(t, DefaultOptions(), a, b).Info(context.Background())
	if err != nil || info.MinTime != 1 || info.MaxTime != 10 || !slices.Equal(info.Tenants, []tenant.ID{"x", "y"}) ||
		info.Role != "query" {
		t.Errorf("%+v, error %v", info, err)
	}
	ma.Fail = func() error { return errs.E(errs.Unavailable, "down") }
	if _, err := open(t, DefaultOptions(), a).Info(context.Background()); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("nothing heard: %v", err)
	}
	if info, err := open(t, DefaultOptions(), a,
		b).Info(context.Background()); err != nil || info.MinTime != math.MinInt64 ||
		info.MaxTime != math.MaxInt64 {
		t.Errorf("one was never heard, and may hold anything: %+v, error %v", info, err)
	}
	if _, err := open(t, DefaultOptions()).Info(context.Background()); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("no endpoints: error %v", err)
	}
}

// TestNewcomer: a receiver that registered after the last poll may have taken what others lost. It is asked at once.
func TestNewcomer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := map[tenant.ID][]sourcetest.Series{tenant.Default: {oneSample(1, "__name__", "up")}}
		var endpoints []Endpoint
		for _, name := range []string{"a", "c", "b"} {
			e, _ := receiver(name, data)
			e.Known = series.Info{Role: series.RoleReceive, Instance: name}
			endpoints = append(endpoints, e)
		}
		endpoints[1].Source.(*sourcetest.Memory).Fail = func() error { return errs.E(errs.Unavailable, "killed") }
		var known atomic.Int64
		known.Store(2)
		opts := DefaultOptions()
		opts.Retention = 100 * 365 * 24 * time.Hour
		opts.Membership = func(tenant.ID) (ms Membership) {
			ms.ReplicationFactor = 3
			for _, e := range endpoints[:known.Load()] {
				ms.History = append(ms.History, ring.Incarnation{Member: ring.Member{ID: e.Name}})
			}
			return ms
		}
		q, err := New(slog.New(slog.DiscardHandler), nil, func() []Endpoint { return endpoints[:known.Load()] }, opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		for range 2 {
			if n, warnings, err := selectAll(q); n != 1 || len(warnings) > 0 || err != nil {
				t.Errorf("%d receivers: %d series, warnings %q, error %v", known.Load(), n, warnings, err)
			}
			known.Store(3)
		}
	})
}
