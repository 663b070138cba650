package distributor

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

// sampleOf is one sample of one series.
func sampleOf(id tenant.ID, series string, t int64) *wire.Batch {
	b := wire.NewBatch(id)
	b.Add(labels.FromStrings("__name__", series)).Samples = []wire.Sample{{T: t, V: 1}}
	return b
}

// orders records the timestamps that a member gets of each series, in the order in which it gets them.
type orders struct {
	mu sync.Mutex
	of map[string][]int64
}

func (o *orders) note(s wire.Shard) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of == nil {
		o.of = map[string][]int64{}
	}
	for _, i := range s.Series {
		x := &s.Batch.Series[i]
		key := string(s.Batch.Tenant) + string(x.Labels())
		o.of[key] = append(o.of[key], x.Samples[0].T)
	}
}

// check fails when a series is not complete, or not in order.
func (o *orders) check(t *testing.T, member string, series, samples int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.of) != series {
		t.Errorf("member %s has %d series, want %d", member, len(o.of), series)
	}
	for name, got := range o.of {
		if len(got) != samples || !slices.IsSorted(got) {
			t.Errorf("member %s got of %q: %v, want %d in order", member, name, got, samples)
			return
		}
	}
}

// after is a member that takes d for each write.
func (o *orders) after(d time.Duration) func(context.Context, wire.Shard) ([]wire.Failure, error) {
	return func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
		time.Sleep(d)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		o.note(s)
		return nil, nil
	}
}

func droppedBy(c *cluster, member string) (n float64) {
	for _, reason := range []string{"evicted", "queue full", "too old", "refused", "closed"} {
		n += testutil.ToFloat64(c.metrics.dropped.WithLabelValues(member, reason))
	}
	return n
}

// Many senders and members that are all at their limit: the senders wait, no copy is dropped, although far more
// requests are under way than may be kept for a member, and each series comes in order.
func TestOverloadOfAllLosesNothing(t *testing.T) {
	const senders, samples = 64, 20
	f := func(rf int, local bool) {
		synctest.Test(t, func(t *testing.T) {
			opts := DefaultOptions()
			opts.MemberBatches = 8
			ids := []string{"a", "b", "c"}
			c := newCluster(t, newFakeRing(rf, ids[:rf]...), opts)
			got := map[string]*orders{}
			for _, id := range ids[:rf] {
				got[id] = new(orders)
				c.member(id).become(got[id].after(10 * time.Millisecond))
			}
			if local {
				c.Distributor.dial = func(m ring.Member) (Writer, error) {
					if m.ID == "a" {
						return Local{c.member("a")}, nil
					}
					return c.dial(m)
				}
			}
			start := time.Now()
			var wg sync.WaitGroup
			for s := range senders {
				wg.Go(func() {
					for n := range samples {
						if r := c.push(sampleOf("acme", fmt.Sprint("m", s), int64(n))); r.Err() != nil {
							t.Error(r.Err())
						}
					}
				})
			}
			wg.Wait()
			if least := senders * samples / opts.MemberConcurrency * 10 * int(time.Millisecond) / 2; rf > 1 &&
				time.Since(start) < time.Duration(least) {
				t.Errorf("the senders were done after %s: they did not wait", time.Since(start))
			}
			c.close()
			for _, id := range ids[:rf] {
				got[id].check(t, id, senders, samples)
				if n := droppedBy(c, id); n > 0 {
					t.Errorf("RF %d: %v copies for %s were dropped", rf, n, id)
				}
			}
		})
	}
	for _, rf := range []int{1, 2, 3} {
		f(rf, false)
		f(rf, true)
	}
}

// A member that alone is slow costs the others nothing: its copies are put off, and come, in order, when it is well
// again.
func TestSlowMemberIsPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const senders, samples = 32, 20
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
		got := map[string]*orders{"a": {}, "b": {}, "c": {}}
		for id, o := range got {
			c.member(id).become(o.after(time.Millisecond))
		}
		for n := range samples { // all are well for a while
			c.push(sampleOf("acme", "before", int64(n)))
		}
		c.member("b").become(got["b"].after(200 * time.Millisecond))
		start := time.Now()
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				for n := range samples {
					c.push(sampleOf("acme", fmt.Sprint("m", s), int64(n)))
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > time.Second { // b alone would need 16 s
			t.Errorf("the senders were held up for %s by one slow member", took)
		}
		if testutil.ToFloat64(c.metrics.putOff.WithLabelValues("b")) == 0 {
			t.Error("nothing was put off")
		}
		c.member("b").become(got["b"].after(time.Millisecond))
		time.Sleep(30 * time.Second)
		for id, o := range got {
			o.check(t, id, senders+1, samples)
			if n := droppedBy(c, id); n > 0 {
				t.Errorf("%v copies for %s were dropped", n, id)
			}
		}
		c.close()
	})
}

// What a member missed comes before what is newer of the same series, whatever made it miss it.
func TestRetriesKeepTheOrder(t *testing.T) {
	for name, trouble := range map[string]func(context.Context, wire.Shard) ([]wire.Failure, error){
		"down": down, "dark": dark,
		"full": func(context.Context, wire.Shard) ([]wire.Failure, error) {
			return nil, errs.E(errs.Exhausted, "disk full")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
				var got orders
				well := got.after(3 * time.Millisecond)
				for n := range 60 {
					switch n {
					case 0, 40:
						c.member("c").become(well)
					case 20:
						c.member("c").become(trouble)
					}
					c.push(sampleOf("acme", "m", int64(n)))
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(time.Minute)
				got.check(t, "c", 1, 60)
				c.close()
			})
		})
	}
}

// quarantine is a member that refuses one tenant.
func quarantine(
	bad tenant.ID,
	others func(context.Context, wire.Shard) ([]wire.Failure, error),
) func(context.Context, wire.Shard) ([]wire.Failure, error) {
	return func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
		if s.Batch.Tenant == bad {
			return nil, errs.E(errs.Unavailable, "tenant %q is quarantined", bad)
		}
		return others(ctx, s)
	}
}

// One tenant that a member does not take delays no other tenant's missing copies, and is logged once.
func TestTroubleOfATenantIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
		var log bytes.Buffer
		c.Distributor.log = slog.New(slog.NewTextHandler(&log, nil))
		c.member("c").become(down)
		c.push(sampleOf("broken", "m", 0))
		for i := range 20 {
			c.push(sampleOf(tenant.ID(fmt.Sprint("good", i)), "m", 0))
		}
		synctest.Wait()
		var got orders
		c.member("c").become(quarantine("broken", got.after(0)))
		time.Sleep(500 * time.Millisecond)
		got.check(t, "c", 20, 1)
		log.Reset()
		for n := range 200 {
			c.push(sampleOf("broken", "m", int64(n+1)))
			c.push(sampleOf("good0", "m", int64(n+1)))
			time.Sleep(time.Millisecond)
		}
		if lines := strings.Count(log.String(), "\n"); lines > 2 {
			t.Errorf("%d lines in the log of 200 requests:\n%s", lines, log.String())
		}
		c.close()
	})
}

// A member that is away for a moment, as when it restarts, is not in the log; one that stays away is, once, and once
// more when it is back.
func TestShortTroubleIsNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), DefaultOptions())
		var log bytes.Buffer
		c.Distributor.log = slog.New(slog.NewTextHandler(&log, nil))
		send := func(d time.Duration) int {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				c.push(sampleOf("acme", "m", time.Now().UnixMilli()))
			}
			return strings.Count(log.String(), "\n")
		}
		c.member("c").become(down)
		if n := send(2 * time.Second); n != 0 {
			t.Errorf("after two seconds the log says\n%s", &log)
		}
		c.member("c").become(nil)
		if n := send(20 * time.Second); n != 0 {
			t.Errorf("back after two seconds, the log says\n%s", &log)
		}
		c.member("c").become(down)
		if n := send(time.Minute); n != 1 || !strings.Contains(log.String(), "level=WARN") {
			t.Errorf("after a minute the log says\n%s", &log)
		}
		c.close()
	})
}

// Writes of some tenants that hang at a member do not keep another's waiting.
func TestHangingTenantsHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
		c.member("a").become(func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
			if s.Batch.Tenant != "good" {
				return dark(ctx, s)
			}
			return nil, nil
		})
		var wg sync.WaitGroup
		for i := range 5 {
			for range 20 {
				wg.Go(func() { c.push(sampleOf(tenant.ID(fmt.Sprint("slow", i)), "m", 0)) })
			}
		}
		synctest.Wait()
		start := time.Now()
		if r := c.push(sampleOf("good", "m", 0)); r.Err() != nil || time.Since(start) > 0 {
			t.Errorf("after %s: %v", time.Since(start), r.Err())
		}
		wg.Wait()
		c.close()
	})
}

// A tenant whose writes hang at a member is not taken for the member, although nobody else has written there meanwhile.
func TestHangingTenantIsNotTheMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(1, "a"), DefaultOptions())
		c.member("a").become(func(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
			if s.Batch.Tenant != "good" {
				return dark(ctx, s)
			}
			return nil, nil
		})
		var wg sync.WaitGroup
		for i := range 2 * DefaultOptions().MemberConcurrency {
			wg.Go(func() {
				for n := range 5 {
					c.push(sampleOf("slow", fmt.Sprint("m", i), int64(n)))
				}
			})
		}
		for n := range 3 {
			time.Sleep(13 * time.Second) // longer than a write may take
			start := time.Now()
			if r := c.push(sampleOf("good", "m", int64(n))); r.Err() != nil || time.Since(start) > time.Second {
				t.Errorf("after %s: %v", time.Since(start), r.Err())
			}
		}
		wg.Wait()
		c.close()
	})
}

// When what is kept for a member overflows, the tenant that takes most of it loses, and no other.
func TestOverflowIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := DefaultOptions()
		opts.MemberBatches = 40
		c := newCluster(t, newFakeRing(3, "a", "b", "c"), opts)
		c.member("c").become(down)
		for i := range 10 {
			c.push(sampleOf(tenant.ID(fmt.Sprint("small", i)), "m", 0))
		}
		for n := range 200 {
			c.push(sampleOf("greedy", "m", int64(n)))
		}
		for i := range 10 {
			c.push(sampleOf(tenant.ID(fmt.Sprint("late", i)), "m", 0))
		}
		synctest.Wait()
		var got orders
		c.member("c").become(got.after(0))
		time.Sleep(10 * time.Second)
		got.mu.Lock()
		tenants := len(got.of)
		got.mu.Unlock()
		if tenants != 21 {
			t.Errorf("%d of 21 tenants have copies at the member", tenants)
		}
		if n := droppedBy(c, "c"); n != 180 {
			t.Errorf("%v copies were dropped, want 180", n)
		}
		c.close()
	})
}
