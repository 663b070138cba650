package query

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// moody is a source that can be silent: from its after-th series on, and in all other calls, for a time or until it is
// given up.
// Info is silent too, unless only its data are (as with a gateway whose bucket does not answer).
type moody struct {
	*sourcetest.Memory
	silence  atomic.Int64 // of each call; negative = for good
	after    int
	dataOnly bool
	asked    atomic.Int64
}

const forGood = time.Duration(-1)

func (m *moody) wait(ctx context.Context) error {
	d := time.Duration(m.silence.Load())
	switch {
	case d == 0:
		return nil
	case d < 0:
		<-ctx.Done()
	default:
		select {
		case <-ctx.Done():
		case <-time.After(d):
			return nil
		}
	}
	return errs.Wrap(errs.Unavailable, ctx.Err())
}

func (m *moody) Select(ctx context.Context, r *series.Request) series.Set {
	m.asked.Add(1)
	return &moodySet{Set: m.Memory.Select(ctx, r), m: m, ctx: ctx}
}

type moodySet struct {
	series.Set
	m   *moody
	ctx context.Context
	n   int
	err error
}

func (s *moodySet) Next() bool {
	if s.n == s.m.after {
		s.err = s.m.wait(s.ctx)
	}
	s.n++
	return s.err == nil && s.Set.Next()
}

func (s *moodySet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.Set.Err()
}

func (m *moody) LabelNames(ctx context.Context, r *series.Request) ([]string, series.Warnings, error) {
	if err := m.wait(ctx); err != nil {
		return nil, nil, err
	}
	return m.Memory.LabelNames(ctx, r)
}

func (m *moody) LabelValues(ctx context.Context, name string, r *series.Request) ([]string, series.Warnings, error) {
	if err := m.wait(ctx); err != nil {
		return nil, nil, err
	}
	return m.Memory.LabelValues(ctx, name, r)
}

func (m *moody) Exemplars(
	ctx context.Context,
	_ tenant.ID,
	_, _ int64,
	_ ...[]*labels.Matcher,
) ([]exemplar.QueryResult, series.Warnings, error) {
	return []exemplar.QueryResult{{SeriesLabels: labels.FromStrings("__name__", "up")}}, nil, m.wait(ctx)
}

func (m *moody) Metadata(
	ctx context.Context,
	_ tenant.ID,
	_ string,
	_ int,
) (map[string][]metadata.Metadata, series.Warnings, error) {
	return map[string][]metadata.Metadata{"up": {{Help: "h"}}}, nil, m.wait(ctx)
}

func (m *moody) Info(ctx context.Context) (series.Info, error) {
	if !m.dataOnly {
		if err := m.wait(ctx); err != nil {
			return series.Info{}, err
		}
	}
	return m.Memory.Info(ctx)
}

// moodyQuerier is a querier over moody sources: receivers r..., RF=3, and gateways s... of one bucket.
type moodyQuerier struct {
	t *testing.T
	*Querier
	sources map[string]*moody
}

func newMoodyQuerier(t *testing.T, rows int, names ...string) *moodyQuerier {
	t.Helper()
	var all []sourcetest.Series
	for i := range rows {
		all = append(all, oneSample(1, "__name__", "up", "i", fmt.Sprintf("%05d", i)))
	}
	c := &moodyQuerier{t: t, sources: map[string]*moody{}}
	ms := Membership{ReplicationFactor: 3}
	var endpoints []Endpoint
	for _, name := range names {
		e, mem := receiver(name, map[tenant.ID][]sourcetest.Series{tenant.Default: all})
		if name[0] == 's' {
			mem.About.Role, mem.About.Blocks = series.RoleStore, whole("bucket")
		} else {
			ms.History = append(ms.History, ring.Incarnation{Member: ring.Member{ID: name}})
		}
		c.sources[name] = &moody{Memory: mem}
		e.Source, e.Known = c.sources[name], mem.About
		endpoints = append(endpoints, e)
	}
	opts := DefaultOptions()
	opts.Retention = 100 * 365 * 24 * time.Hour
	opts.Membership = func(tenant.ID) Membership { return ms }
	var err error
	if c.Querier, err = New(slog.New(slog.DiscardHandler), nil, func() []Endpoint { return endpoints }, opts); err != nil {
		t.Fatal(err)
	}
	if err := c.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *moodyQuerier) silence(d time.Duration, names ...string) {
	for _, name := range names {
		c.sources[name].silence.Store(int64(d))
	}
}

// query selects everything and fails unless it takes between least and most, and says all of want, or nothing if that
// is empty.
func (c *moodyQuerier) query(step string, least, most time.Duration, want ...string) {
	c.t.Helper()
	begin := time.Now()
	n, warnings, err := selectAll(c.Querier)
	took, said := time.Since(begin), strings.Join(warnings, "|")
	bad := len(want) == 0 && said != ""
	for _, part := range want {
		bad = bad || !strings.Contains(said, part)
	}
	if rows := len(c.sources["r1"].Data[tenant.Default]); bad || err != nil || n != rows || took < least || took > most {
		c.t.Errorf("%s: %d of %d series after %s, warnings %q, error %v", step, n, rows, took, warnings, err)
	}
}

// during runs f in a bubble of its own, which fails when a goroutine is left.
func during(t *testing.T, what string, f func(t *testing.T)) {
	t.Run(what, func(t *testing.T) { synctest.Test(t, f) })
}

func TestSilentReceiver(t *testing.T) {
	for _, rows := range []int{1, 5000} { // many: the others are held up by the merge
		for _, after := range []int{0, 1} {
			during(t, fmt.Sprintf("%d series, silent after %d", rows, after), func(t *testing.T) {
				c := newMoodyQuerier(t, rows, "r1", "r2", "r3")
				defer c.Close()
				c.query("all are well", 0, 0)
				c.sources["r3"].after = after
				c.silence(forGood, "r3")
				c.query("one is silent", 500*time.Millisecond, time.Second)
				before := c.sources["r3"].asked.Load()
				for range 60 {
					c.query("one is known to be silent", 0, 0)
					time.Sleep(time.Second)
				}
				if n := c.sources["r3"].asked.Load(); n != before {
					t.Errorf("it was asked %d times more", n-before)
				}
				c.silence(0, "r3")
				time.Sleep(5 * time.Second)
				c.query("it is well again", 0, 0)
				if n := c.sources["r3"].asked.Load(); n != before+1 {
					t.Errorf("it is well and was asked %d times", n-before)
				}
			})
		}
	}
}

// TestSlowReceiver: who is slower than the others, but not by much, is waited for.
func TestSlowReceiver(t *testing.T) {
	during(t, "slow", func(t *testing.T) {
		c := newMoodyQuerier(t, 3, "r1", "r2", "r3")
		defer c.Close()
		c.silence(400*time.Millisecond, "r3")
		c.query("a little", 400*time.Millisecond, 400*time.Millisecond)
		c.silence(2*time.Second, "r1", "r2")
		c.silence(2800*time.Millisecond, "r3")
		c.query("all are slow", 2800*time.Millisecond, 2800*time.Millisecond)
		for name, s := range c.sources {
			if n := s.asked.Load(); n != 2 {
				t.Errorf("%s was asked %d times", name, n)
			}
		}
		c.silence(0, "r1", "r2")
		c.query("one alone is slow", 500*time.Millisecond, time.Second)
	})
}

func TestSilentQuorum(t *testing.T) {
	during(t, "two of three", func(t *testing.T) {
		c := newMoodyQuerier(t, 3, "r1", "r2", "r3")
		defer c.Close()
		c.silence(forGood, "r2", "r3")
		const said = "receivers r2, r3 did not answer"
		c.query("the answer needs one", 15*time.Second, 16*time.Second, said)
		time.Sleep(5 * time.Second)
		c.query("they did not answer the poll either", 3*time.Second, 4*time.Second, said)
		ctx := withParams(t.Context(), &params{})
		set := c.Select(ctx, &series.Request{Tenant: tenant.Default, MaxTime: 2000})
		for set.Next() {
		}
		if err := set.Err(); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), said) {
			t.Errorf("without partial answers: %v", err)
		}
		if err := set.Close(); err != nil {
			t.Error(err)
		}
		c.silence(0, "r2")
		time.Sleep(10 * time.Second) // a poll waits for all
		c.query("one is well again", 0, 0)
	})
	during(t, "what is lost anyway", func(t *testing.T) {
		c := newMoodyQuerier(t, 3, "r1", "r2", "r3", "s1")
		defer c.Close()
		c.sources["s1"].Fail = func() error { return errs.E(errs.Unavailable, "no bucket") }
		c.silence(forGood, "r3")
		c.query("waiting for it brings nothing", 500*time.Millisecond, time.Second, "store s1 did not answer: no bucket")
	})
}

func TestSilentGateway(t *testing.T) {
	during(t, "the only one", func(t *testing.T) {
		c := newMoodyQuerier(t, 3, "r1", "r2", "r3", "s1")
		defer c.Close()
		c.silence(8*time.Second, "s1")
		c.sources["s1"].dataOnly = true
		c.query("slow", 8*time.Second, 8*time.Second)
		c.silence(forGood, "s1")
		c.query("silent", 15*time.Second, 16*time.Second, "store s1 did not answer: silent for 15s")
		c.silence(forGood, "r3")
		c.query("beside a receiver", 3*time.Second, 16*time.Second, "store s1 did not answer: silent for")
	})
	during(t, "another stands in", func(t *testing.T) {
		c := newMoodyQuerier(t, 3, "r1", "r2", "r3", "s1", "s2")
		defer c.Close()
		c.query("well", 0, 0)
		first := "s1"
		if c.sources["s2"].asked.Load() > 0 {
			first = "s2"
		}
		c.silence(forGood, first)
		c.query("silent", 5*time.Second, 6*time.Second)
		c.query("known to be silent", 0, 0)
	})
}

// TestSilentLabels: the same holds for all other questions.
func TestSilentLabels(t *testing.T) {
	r := &series.Request{Tenant: tenant.Default, MaxTime: 2000}
	questions := map[string]func(*moodyQuerier) (bool, error){
		"label names": func(c *moodyQuerier) (bool, error) {
			found, w, err := c.LabelNames(context.Background(), r)
			return slices.Equal(found, []string{"__name__", "i"}) && len(w) == 0, err
		},
		"label values": func(c *moodyQuerier) (bool, error) {
			found, w, err := c.LabelValues(context.Background(), "i", r)
			return len(found) == 3 && len(w) == 0, err
		},
		"exemplars": func(c *moodyQuerier) (bool, error) {
			found, _, err := c.Exemplars(context.Background(), tenant.Default, 0, 2000)
			return len(found) == 1, err
		},
		"metadata": func(c *moodyQuerier) (bool, error) {
			found, w, err := c.tenantMetadata(context.Background(), tenant.Default, "")
			return len(found) == 1 && len(w) == 0, err
		},
	}
	for what, ask := range questions {
		during(t, what, func(t *testing.T) {
			c := newMoodyQuerier(t, 3, "r1", "r2", "r3")
			defer c.Close()
			c.opts.PartialResponse = false
			f := func(step string, least, most time.Duration, fails bool) {
				t.Helper()
				begin := time.Now()
				ok, err := ask(c)
				took := time.Since(begin)
				if took < least || took > most || fails != (errs.KindOf(err) == errs.Unavailable) || !fails && (!ok || err != nil) {
					t.Errorf("%s: after %s, as wanted %t, error %v", step, took, ok, err)
				}
				if fails && !strings.Contains(fmt.Sprint(err), "receivers r2, r3 did not answer") {
					t.Errorf("%s: error %v", step, err)
				}
			}
			f("well", 0, 0, false)
			c.silence(forGood, "r3")
			f("one is silent", 500*time.Millisecond, time.Second, false)
			f("it is known", 0, 0, false)
			c.silence(forGood, "r2")
			f("two are silent", 15*time.Second, 16*time.Second, true)
		})
	}
}

// TestNoResponseTimeout: without one, what the answer needs is waited for as long as the query may take.
func TestNoResponseTimeout(t *testing.T) {
	during(t, "none", func(t *testing.T) {
		c := newMoodyQuerier(t, 3, "r1", "r2", "r3", "s1")
		defer c.Close()
		c.opts.ResponseTimeout = 0
		c.sources["s1"].dataOnly = true
		c.silence(time.Minute, "s1")
		c.query("a minute", time.Minute, time.Minute)
	})
}
