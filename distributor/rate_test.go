package distributor

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

func TestPaceOf(t *testing.T) {
	f := func(perSecond float64, burst, processes int, want allowance) {
		t.Helper()
		if got := allowanceOf(&tenant.Limits{SamplesPerSecond: perSecond, SamplesBurst: burst}, processes); got != want {
			t.Fatalf("%g, %d over %d: %+v, want %+v", perSecond, burst, processes, got, want)
		}
	}
	f(100, 0, 1, allowance{100, 2000}) // what Prometheus puts into one request
	f(1000, 0, 1, allowance{1000, 10_000})
	f(100, 500, 1, allowance{100, 500})
	f(1000, 0, 4, allowance{250, 10_000}) // the burst is not divided
	f(1000, 0, 0, allowance{1000, 10_000})
	f(0.5, 0, 2, allowance{0.25, 2000})
	f(200.05, 0, 1, allowance{200.05, 2001})
	f(1e300, 0, 2, allowance{5e299, 1<<31 - 1})
}

// A tenant gets what it may have, over any time, and hears when to come back.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		processes := 2
		opts := limited(tenant.Limits{SamplesPerSecond: 200, SamplesBurst: 300})
		opts.Distributors = func() int { return processes }
		c := newCluster(t, newFakeRing(1, "a"), opts)
		defer c.close()
		// ok or the seconds to wait
		f := func(n int, want time.Duration) {
			t.Helper()
			_, err := c.Push(t.Context(), batch(n))
			wait := errs.RetryAfter(err)
			if (err != nil && errs.KindOf(err) != errs.Limited) || wait.Round(time.Millisecond) != want ||
				(err != nil) != (want > 0) {
				t.Fatalf("%d samples: wait %v (%v), want %v", n, wait, err, want)
			}
			if err != nil && !strings.Contains(err.Error(), "acme") {
				t.Fatal(err)
			}
		}
		f(300, 0)
		f(100, time.Second) // 100 a second at this process
		f(50, 500*time.Millisecond)
		time.Sleep(500 * time.Millisecond)
		f(51, 10*time.Millisecond) // a refused request costs nothing
		f(50, 0)
		time.Sleep(time.Hour)
		// What could never pass is not to be tried again.
		if _, err := c.Push(t.Context(), batch(301)); errs.KindOf(err) != errs.TooLarge || errs.RetryAfter(err) != 0 ||
			!strings.Contains(err.Error(), "samples_burst 300") {
			t.Fatal(err)
		}
		f(300, 0)
		processes = 1 // the whole limit from here on
		f(1, 5*time.Millisecond)
		time.Sleep(time.Second)
		f(200, 0)
		f(1, 5*time.Millisecond)
	})
}

// TestDefaultBurst: whatever the rate, requests as Prometheus sends them pass when they are not too many.
func TestDefaultBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, perSecond := range []float64{1, 50, 2000} {
			c := newCluster(t, newFakeRing(1, "a"), limited(tenant.Limits{SamplesPerSecond: perSecond}))
			for range 3 {
				if _, err := c.Push(t.Context(), batch(2000)); err != nil {
					t.Errorf("%g samples a second: %v", perSecond, err)
				}
				time.Sleep(time.Duration(2000/perSecond*float64(time.Second)) + time.Millisecond)
			}
			c.close()
		}
	})
}

// Many senders together get the limit, not more and hardly less.
func TestRateOfManySenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, newFakeRing(1, "a"), limited(tenant.Limits{SamplesPerSecond: 1000, SamplesBurst: 1000}))
		defer c.close()
		var senders sync.WaitGroup
		for range 10 {
			senders.Go(func() {
				for i := 0; i < 100; i++ {
					c.Push(t.Context(), batch(100))
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		senders.Wait()
		if n, _ := c.member("a").count(); n < 10_000 || n > 11_100 {
			t.Fatalf("%d samples in 10 s, want about 1000 a second and a burst of 1000", n)
		}
	})
}
