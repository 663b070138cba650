package distributor

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// A tenant that sent nothing for accountIdle is forgotten, with its metrics; who is idle is looked for every sweepEvery.
const (
	accountIdle = time.Hour
	sweepEvery  = 10 * time.Minute
)

// accounts is what a distributor keeps of each tenant that sends to it.
type accounts struct {
	metrics *metrics

	mu    sync.Mutex // guards what follows
	byID  map[tenant.ID]*account
	swept time.Time
}

// account is one tenant's. It is forgotten an hour after its last use.
type account struct {
	id      tenant.ID
	used    time.Time // of the last request; guarded by accounts.mu
	metrics *metrics
	samples func() prometheus.Counter // made with the first sample
	checks  atomic.Pointer[checks]    // of the newest limits
	rate    limiter
	held    share // guarded by gate.mu
}

// limiter is a token bucket whose settings may change between two requests.
type limiter struct {
	mu     sync.Mutex
	bucket *rate.Limiter // nil before the first use
}

// of gives the account of a tenant, which begins with its first request.
func (as *accounts) of(id tenant.ID) *account {
	now := time.Now()
	as.mu.Lock()
	defer as.mu.Unlock()
	a := as.byID[id]
	if a == nil {
		a = &account{id: id, metrics: as.metrics}
		a.samples = sync.OnceValue(func() prometheus.Counter { return as.metrics.tenantSamples.WithLabelValues(string(id)) })
		as.byID[id] = a
	}
	a.used = now
	if now.Sub(as.swept) >= sweepEvery {
		as.swept = now
		as.sweep(now)
	}
	return a
}

// sweep forgets the tenants that are idle. With as.mu held.
func (as *accounts) sweep(now time.Time) {
	for id, a := range as.byID {
		if now.Sub(a.used) >= accountIdle {
			delete(as.byID, id)
			as.metrics.forgetTenant(string(id))
		}
	}
}

// stored counts samples that a quorum has.
func (a *account) stored(samples int) {
	if samples > 0 {
		a.samples().Add(float64(samples))
	}
}

// refused counts a request that was refused as a whole, of so many samples (0 = it was not decoded).
func (a *account) refused(reason string, samples int) {
	a.metrics.limitedRequests.WithLabelValues(string(a.id), reason).Inc()
	a.lost(reason, samples)
}

// lost counts samples that were refused.
func (a *account) lost(reason string, samples int) {
	if samples > 0 {
		a.metrics.limitedSamples.WithLabelValues(string(a.id), reason).Add(float64(samples))
	}
}
