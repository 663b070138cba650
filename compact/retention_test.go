package compact

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/compact/plan"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// TestSettle: a longer period is in force at once; what kept blocks keeps them for a day after it was in force.
func TestSettle(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Unix(1_000_000_000, 0)
	var is rulesRecord
	// kept is for how many days a block of a tenant is kept, 999 = for ever.
	kept := func(tenant, x string) int {
		policy, err := is.policy()
		if err != nil {
			t.Fatal(err)
		}
		s := plan.DefaultSettings()
		s.Owner.TenantLabel, s.Retention, s.Downsample = "tenant_id", policy, false
		for days := 1; days < 999; days++ {
			m := metaOf(tenant, 0, now, now.Add(-time.Duration(days)*day-time.Minute), block.SourceReceive)
			m.Thanos.Labels["x"] = x
			es := plan.Expired(plan.Bucket{Metas: []*block.Meta{m}}, &s, now)
			if len(es) == 1 && es[0].Waits == "" {
				return days
			}
		}
		return 999
	}
	step := func(after time.Duration, known bool, what ruleSet, want string) {
		t.Helper()
		now = now.Add(after)
		var err error
		if is, err = is.settle(what, known, now, day); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(kept("", ""), " ", kept("a", ""), " ", kept("a", "y"), " ", kept("b", ""))
		if got != want {
			t.Errorf("kept by nobody, a, a with x=y, b: %s, want %s", got, want)
		}
	}
	// set is the days of blocks of nobody and others, of a, and of a with x=y. 0 = no rule.
	set := func(days, a, y int) ruleSet {
		keep := func(n int) millis { return millis{int64(n) * day.Milliseconds()} }
		s := ruleSet{Default: keep(days), Others: tenantRules{Keep: keep(days)}, Tenants: map[string]tenantRules{}}
		if a != 0 {
			s.Tenants["a"] = tenantRules{Keep: keep(a)}
			if y != 0 {
				s.Tenants["a"] = tenantRules{Keep: keep(a), Rules: []matchedRule{{`{x="y"}`, keep(y)}}}
			}
		}
		return s
	}
	step(0, true, set(30, 0, 0), "999 999 999 999") // at first all is kept for ever
	step(23*time.Hour, true, set(30, 0, 0), "999 999 999 999")
	step(time.Hour, true, set(30, 0, 0), "30 30 30 30")
	step(time.Minute, true, set(60, 0, 0), "60 60 60 60") // longer
	step(day, true, set(60, 0, 0), "60 60 60 60")
	step(time.Minute, true, set(40, 0, 0), "60 60 60 60") // shorter
	step(23*time.Hour, true, set(50, 0, 0), "60 60 60 60")
	step(2*time.Hour, true, set(50, 0, 0), "50 50 50 50") // 60 was in force a day ago
	step(day, true, set(50, 10, 0), "50 50 50 50")        // a tenant's own
	step(day, true, set(50, 10, 0), "50 10 10 50")
	step(time.Hour, true, set(50, 10, 20), "50 10 20 50") // a rule that keeps some longer, at once
	step(time.Hour, true, set(50, 10, 5), "50 10 20 50")  // a rule that keeps some shorter waits, and no others
	step(day, true, set(50, 10, 5), "50 10 5 50")
	step(time.Hour, false, ruleSet{}, "50 10 5 50") // the file is broken, or gone
	step(time.Hour, true, set(50, 0, 0), "50 50 50 50")
	step(time.Hour, true, set(50, 40, 7), "50 50 50 50")
	step(23*time.Hour, false, ruleSet{}, "50 50 50 50") // a broken file in between begins the wait anew
	step(2*time.Hour, true, set(50, 40, 7), "50 50 50 50")
	step(day, true, set(50, 40, 7), "50 40 7 50")
	step(time.Hour, true, set(0, 0, 0), "999 999 999 999")
	for range 100 { // two compactors that do not agree: the longer one holds
		step(20*time.Minute, true, set(20, 0, 0), "999 999 999 999")
		step(20*time.Minute, true, set(0, 0, 0), "999 999 999 999")
	}
	if len(is.Earlier) != 1 {
		t.Errorf("%d sets are held", len(is.Earlier))
	}
	var err error
	for n := range 2 * maxEarlier {
		if is, err = is.settle(set(n+1, 0, 0), true, now, day); err != nil {
			break
		}
	}
	if errs.KindOf(err) != errs.Exhausted || len(is.Earlier) != maxEarlier {
		t.Errorf("more and more changes: %v, %d", err, len(is.Earlier))
	}
}

// TestRetention: 400 days of a bucket with raw 40h, 5m 30d, 1h a year. Blocks go when they should, those without a
// tenant by the flags alone.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		bkt := objstore.NewInMemBucket()
		start := time.Now()
		ids := map[string]string{}
		number := byte(0)
		add := func(name, tenant string, resolution int64) {
			number++
			m := metaOf(tenant, resolution, start.Add(-14*day), start, block.SourceReceive)
			ids[bare(t, bkt, m, number).String()] = name
		}
		add("raw", "a", 0)
		add("5m", "a", 300_000)
		add("1h", "a", 3_600_000)
		add("own", "b", 3_600_000)
		add("nobody's", "", 3_600_000)
		number++
		matched := metaOf("b", 3_600_000, start.Add(-14*day), start, block.SourceReceive)
		matched.Thanos.Labels["env"] = "test"
		ids[bare(t, bkt, matched, number).String()] = "matched"
		o := testOptions(t, "one")
		o.Jobs.Off, o.Jobs.Downsample, o.DeleteDelay = true, false, 0
		o.Interval, o.CleanInterval, o.Retention.Wait = time.Hour, time.Hour, day
		o.Retention.Default = Periods{40 * time.Hour, 30 * day, 365 * day}
		o.Retention.Configured = func() (Configured, error) {
			own := TenantPeriods{Periods{OneHour: 100 * day},
				[]PeriodRule{{`{env!=""}`, Periods{OneHour: 50 * day}}, {`{env="test"}`, Periods{OneHour: 70 * day}}}}
			if time.Since(start) >= 60*day { // shorter, and so it waits for a day
				own.OneHour = 61 * day
			}
			return Configured{map[string]TenantPeriods{"b": own, "": {Periods: Periods{OneHour: day}}},
				TenantPeriods{Periods: o.Retention.Default}}, nil
		}
		c := newCompactor(t, bkt, o)
		_ = c.Open(t.Context(), nil)
		defer c.Close()
		gone := map[string]time.Duration{}
		for at := time.Duration(0); at < 400*day; at += 6 * time.Hour {
			time.Sleep(6 * time.Hour)
			synctest.Wait()
			for id, name := range ids {
				if _, ok := bkt.Objects()[id+"/"+block.MetaName]; !ok && gone[name] == 0 {
					gone[name] = time.Since(start)
				}
			}
		}
		for name, want := range map[string]time.Duration{"raw": 40 * time.Hour, "5m": 30 * day, "1h": 365 * day,
			"own": 61 * day, "matched": 50 * day, "nobody's": 365 * day} {
			if at := gone[name]; at < want || at > want+9*time.Hour {
				t.Errorf("%s is gone after %s, want %s", name, at, want)
			}
		}
	})
}

// TestPeriodsUnread: while it is not known what was in force nothing expires.
func TestPeriodsUnread(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	now := time.Now()
	bare(t, bkt, metaOf("a", 0, now.Add(-800*time.Hour), now.Add(-700*time.Hour), block.SourceReceive), 1)
	_ = bkt.Upload(t.Context(), retentionName, strings.NewReader("{"))
	o := testOptions(t, "one")
	o.Jobs.Off, o.Retention.Default.Raw = true, 100*time.Hour
	c := newCompactor(t, bkt, o)
	if err := c.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing expires") {
		t.Errorf("%v", err)
	}
	if len(viewOf(t, bkt).Deletions) != 0 {
		t.Error("a block was marked")
	}
	o.Retention.Configured = func() (Configured, error) { return Configured{}, errors.New("broken") }
	_ = bkt.Delete(t.Context(), retentionName)
	once(t, newCompactor(t, bkt, o))
	if len(viewOf(t, bkt).Deletions) != 0 {
		t.Error("a block was marked by a configuration that is not valid")
	}
}
