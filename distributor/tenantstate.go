package distributor

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// A tenant that sent nothing for stateIdle is forgotten, with its metrics. Idle tenants are looked for every
// sweepEvery.
const (
	stateIdle  = time.Hour
	sweepEvery = 10 * time.Minute
	// maxClaimed bounds the tenants of which nothing was ever stored: anybody may send such names.
	maxClaimed = 50_000
)

// tenantStates is what a distributor keeps of each tenant that sends to it.
type tenantStates struct {
	metrics *metrics

	mu    sync.Mutex // guards what follows
	byID  map[tenant.ID]*tenantState
	swept time.Time
	// claimed are those of byID of which nothing has been stored since their state began.
	claimed map[tenant.ID]*tenantState
}

// tenantState is what is kept of one tenant. It is forgotten an hour after its last use.
type tenantState struct {
	id      tenant.ID
	used    time.Time // of the last request; guarded by tenantStates.mu
	metrics *metrics
	samples func() prometheus.Counter // made with the first sample
	checks  atomic.Pointer[checks]    // of the newest limits
	rate    limiter
	held    usage       // guarded by gate.mu
	real    atomic.Bool // something of it was stored

	mu      sync.Mutex // guards what follows
	reasons []string   // of refusals, by which it has series of metrics
	gone    bool       // it is forgotten, and has none any more
}

// limiter is a token bucket whose settings may change between two requests.
type limiter struct {
	mu     sync.Mutex
	bucket *rate.Limiter // nil before the first use
}

// of gives the state of a tenant, which begins with the first request.
func (as *tenantStates) of(id tenant.ID) *tenantState {
	now := time.Now()
	as.mu.Lock()
	defer as.mu.Unlock()
	a := as.byID[id]
	if a == nil {
		a = &tenantState{id: id, metrics: as.metrics}
		a.samples = sync.OnceValue(func() prometheus.Counter { return as.metrics.tenantSamples.WithLabelValues(string(id)) })
		as.boundClaimed()
		as.byID[id], as.claimed[id] = a, a
	}
	a.used = now
	if a.real.Load() {
		delete(as.claimed, id)
	}
	if now.Sub(as.swept) >= sweepEvery {
		as.swept = now
		as.sweep(now)
	}
	return a
}

// sweep forgets the tenants that are idle. as.mu is held.
func (as *tenantStates) sweep(now time.Time) {
	for id, a := range as.byID {
		if now.Sub(a.used) >= stateIdle {
			as.forget(id)
		}
	}
}

// forget drops a tenant and its metrics. as.mu is held.
func (as *tenantStates) forget(id tenant.ID) {
	a := as.byID[id]
	delete(as.byID, id)
	delete(as.claimed, id)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
	as.metrics.forgetTenant(string(id), a.reasons)
}

// boundClaimed forgets claimed tenants where there are too many. Requests of theirs that are under way keep their
// state, and the gate counts them for as long as they last. as.mu is held.
func (as *tenantStates) boundClaimed() {
	for id, a := range as.claimed {
		if len(as.claimed) < maxClaimed {
			return
		}
		if a.real.Load() {
			delete(as.claimed, id)
			continue
		}
		as.forget(id)
	}
}

// stored counts samples that a quorum has.
func (a *tenantState) stored(samples int) {
	if samples > 0 {
		if !a.real.Load() {
			a.real.Store(true)
		}
		a.samples().Add(float64(samples))
	}
}

// refused counts a request that was refused as a whole, with its number of samples (0 = it was not decoded).
func (a *tenantState) refused(reason string, samples int) {
	a.count(a.metrics.limitedRequests, reason, 1)
	a.lost(reason, samples)
}

// lost counts samples that were refused.
func (a *tenantState) lost(reason string, samples int) {
	if samples > 0 {
		a.count(a.metrics.limitedSamples, reason, samples)
	}
}

// count adds n to a counter that has the labels tenant and reason.
func (a *tenantState) count(what *prometheus.CounterVec, reason string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return
	}
	if !slices.Contains(a.reasons, reason) {
		a.reasons = append(a.reasons, reason)
	}
	what.WithLabelValues(string(a.id), reason).Add(float64(n))
}
