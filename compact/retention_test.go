package compact

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
)

// TestSettle: a longer period is in force at once, a shorter one after it was wanted for a day without a change.
func TestSettle(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Unix(1_000_000, 0)
	var is terms
	step := func(after time.Duration, known bool, what map[string]Periods, want string) {
		t.Helper()
		now = now.Add(after)
		is = is.settle(what, known, now, day)
		var got []string
		for name, p := range is.inForce() {
			got = append(got, fmt.Sprintf("%s=%d", name, p.Raw/day))
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != want {
			t.Errorf("in force: %s, want %s", text, want)
		}
	}
	set := func(days int, tenants ...any) map[string]Periods {
		out := map[string]Periods{"": {Raw: time.Duration(days) * day}}
		for i := 0; i+1 < len(tenants); i += 2 {
			out[tenants[i].(string)] = Periods{Raw: time.Duration(tenants[i+1].(int)) * day}
		}
		return out
	}
	step(0, true, set(30), "=0") // the first time all is kept for ever
	step(23*time.Hour, true, set(30), "=0")
	step(time.Hour, true, set(30), "=30")
	step(time.Minute, true, set(60), "=60")             // longer
	step(time.Minute, true, set(40), "=60")             // shorter
	step(23*time.Hour, true, set(50), "=60")            // another one: the wait begins anew
	step(23*time.Hour, true, set(50), "=60")            //
	step(2*time.Hour, true, set(50), "=50")             //
	step(time.Hour, true, set(50, "a", 10), "=50 a=50") // a tenant's own
	step(day, true, set(50, "a", 10), "=50 a=10")
	step(day, false, set(50), "=50 a=10") // the file is broken, or gone
	step(day, true, set(50), "=50")       // and so longer again
	step(day, true, set(50, "b", 100), "=50 b=100")
	step(time.Hour, true, set(50), "=50 b=100") // b lost its own: shorter
	step(23*time.Hour, false, set(50), "=50 b=100")
	step(2*time.Hour, true, set(50), "=50 b=100") // a broken file in between begins the wait anew
	step(day, true, set(50), "=50")
	step(day, true, set(0), "=0")
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
		o := testOptions(t, "one")
		o.Jobs.Off, o.Jobs.Downsample, o.DeleteDelay = true, false, 0
		o.Interval, o.CleanInterval, o.Retention.Wait = time.Hour, time.Hour, day
		o.Retention.Default = Periods{40 * time.Hour, 30 * day, 365 * day}
		o.Retention.Tenants = func() (map[string]Periods, error) {
			return map[string]Periods{"b": {OneHour: 100 * day}, "": {OneHour: day}}, nil
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
			"own": 100 * day, "nobody's": 365 * day} {
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
	o.Retention.Tenants = func() (map[string]Periods, error) { return nil, errors.New("broken") }
	_ = bkt.Delete(t.Context(), retentionName)
	once(t, newCompactor(t, bkt, o))
	if len(viewOf(t, bkt).Deletions) != 0 {
		t.Error("a block was marked by a configuration that is not valid")
	}
}
