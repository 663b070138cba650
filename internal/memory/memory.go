package memory

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// maxWaiting is how many leases may wait at a time. One more is refused at once.
const maxWaiting = 1000

// retryAfter is how long the sender of a refused request should wait before it sends again.
const retryAfter = time.Second

// Budget is a number of bytes that requests share. It is safe for concurrent use.
type Budget struct {
	limit string // the flag that sets total, for messages
	total int64
	m     *metrics

	mu      sync.Mutex // guards what follows, and all leases
	used    int64
	tenants map[tenant.ID]int64 // bytes of each tenant that holds any
	leases  map[*Lease]struct{} // the open ones
	waiting []*waiter           // the longest waiting first
}

type metrics struct {
	held    *prometheus.GaugeVec   // by owner
	leases  *prometheus.GaugeVec   // by owner
	waited  *prometheus.CounterVec // by owner
	refused *prometheus.CounterVec // by owner and reason
}

// NewBudget makes a budget of total bytes. limit is the name of the flag that sets total, for messages. reg may be
// nil; two budgets cannot share a registry, as their metrics have the same names.
func NewBudget(reg prometheus.Registerer, limit string, total int64) *Budget {
	f := promauto.With(reg)
	gauge := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: "hearth_memory_" + name, Help: help}, []string{"owner"})
	}
	b := &Budget{limit: limit, total: total, tenants: map[tenant.ID]int64{}, leases: map[*Lease]struct{}{}}
	b.m = &metrics{
		held:   gauge("held_bytes", "Bytes that open requests hold or have reserved, by the part of the process."),
		leases: gauge("leases", "Requests that hold memory, by the part of the process."),
		waited: f.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_memory_waits_total", Help: "Times that a request waited for memory, by the part of the process.",
		}, []string{"owner"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_memory_refused_total",
			Help: "Times that a request got no memory, by the part of the process and why: never, full or unfair.",
		}, []string{"owner", "reason"}),
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hearth_memory_budget_bytes", Help: "Bytes that requests may hold together.",
	}, func() float64 { return float64(total) })
	return b
}

// Total is how many bytes the budget has.
func (b *Budget) Total() int64 { return b.total }

// Free is how many bytes no lease holds at the moment.
func (b *Budget) Free() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total - b.used
}

// Owner is a part of the process that uses a budget.
type Owner struct {
	budget *Budget
	name   string
	wait   time.Duration
}

// Owner returns the part of the process called name. Take of its leases waits for at most wait.
func (b *Budget) Owner(name string, wait time.Duration) *Owner { return &Owner{b, name, wait} }

// Lease is what one request holds. It is safe for concurrent use.
type Lease struct {
	owner  *Owner
	tenant tenant.ID
	first  *Lease // the lease that its request began with, which may be this one

	// Guarded by Budget.mu:
	bytes  int64
	all    int64 // bytes of all leases of the request; counted only in its first lease
	closed bool
}

// waiter is a lease that waits for bytes.
type waiter struct {
	lease   *Lease
	bytes   int64
	granted chan struct{} // closed when the lease holds them
}

// Open opens the first lease of a request of a tenant. It holds nothing yet.
func (o *Owner) Open(id tenant.ID) *Lease {
	l := &Lease{owner: o, tenant: id}
	l.first = l
	return l.open()
}

// OpenFor opens one more lease for the request of l, which is closed on its own. The bound on one request is a bound
// on all its leases together.
func (o *Owner) OpenFor(l *Lease) *Lease {
	return (&Lease{owner: o, tenant: l.tenant, first: l.first}).open()
}

func (l *Lease) open() *Lease {
	o, b := l.owner, l.owner.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leases[l] = struct{}{}
	b.m.leases.WithLabelValues(o.name).Inc()
	return l
}

// Take adds n bytes, and waits if others hold them. Errors: Limited if no request can have that many bytes, Exhausted
// if the wait was too long or too many wait already, Unavailable if ctx ends or the lease is closed.
func (l *Lease) Take(ctx context.Context, n int64) error {
	b := l.owner.budget
	b.mu.Lock()
	verdict, err := l.tryLocked(n)
	if err != nil || verdict == Granted || verdict == Never || len(b.waiting) >= maxWaiting || l.owner.wait <= 0 {
		defer b.mu.Unlock()
		return l.answerLocked(verdict, err, n)
	}
	w := &waiter{l, n, make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.m.waited.WithLabelValues(l.owner.name).Inc()
	b.mu.Unlock()

	timer := time.NewTimer(l.owner.wait)
	defer timer.Stop()
	select {
	case <-w.granted:
		return nil
	case <-timer.C:
	case <-ctx.Done():
		err = errs.E(errs.Unavailable, "tenant %s: %s waited for memory: %w", l.tenant, l.owner.name, ctx.Err())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.granted: // just before the lock was taken
		return nil
	default:
	}
	b.waiting = slices.DeleteFunc(b.waiting, func(o *waiter) bool { return o == w })
	return l.answerLocked(verdict, err, n)
}

// Grow adds n bytes if they are free, and never waits. Errors are those of Take.
func (l *Lease) Grow(n int64) error {
	b := l.owner.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	verdict, err := l.tryLocked(n)
	return l.answerLocked(verdict, err, n)
}

// Settle keeps n bytes and gives back the rest. It does nothing if the lease holds fewer.
func (l *Lease) Settle(n int64) {
	b := l.owner.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if !l.closed && n < l.bytes {
		l.addLocked(n - l.bytes)
		b.wakeLocked()
	}
}

// Give gives n bytes back, which the lease holds. It does nothing once the lease is closed.
func (l *Lease) Give(n int64) {
	b := l.owner.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if !l.closed {
		l.addLocked(-min(n, l.bytes))
		b.wakeLocked()
	}
}

// Bytes is how many bytes the lease holds.
func (l *Lease) Bytes() int64 {
	l.owner.budget.mu.Lock()
	defer l.owner.budget.mu.Unlock()
	return l.bytes
}

// Close gives everything back; nothing can be taken afterwards. A second Close does nothing.
func (l *Lease) Close() {
	b := l.owner.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	delete(b.leases, l)
	b.m.leases.WithLabelValues(l.owner.name).Dec()
	l.addLocked(-l.bytes)
	b.wakeLocked()
}

func (l *Lease) tryLocked(n int64) (Verdict, error) {
	b := l.owner.budget
	if l.closed {
		return Granted, errs.E(errs.Unavailable, "tenant %s: %s asked for memory after its end", l.tenant, l.owner.name)
	}
	own := l.first.all
	verdict := PerTenant.Decide(n, own, b.tenants[l.tenant]-own, b.used, b.total)
	if verdict == Granted {
		l.addLocked(n)
	}
	return verdict, nil
}

func (l *Lease) addLocked(n int64) {
	b := l.owner.budget
	l.bytes += n
	l.first.all += n
	b.used += n
	if b.tenants[l.tenant] += n; b.tenants[l.tenant] == 0 {
		delete(b.tenants, l.tenant)
	}
	b.m.held.WithLabelValues(l.owner.name).Add(float64(n))
}

// wakeLocked grants what can be granted now. A lease that waits for many bytes does not hold up one that waits for
// few: it could be overtaken for ever, but no wait lasts longer than Owner.wait.
func (b *Budget) wakeLocked() {
	b.waiting = slices.DeleteFunc(b.waiting, func(w *waiter) bool {
		if verdict, err := w.lease.tryLocked(w.bytes); err != nil || verdict != Granted {
			return false
		}
		close(w.granted)
		return true
	})
}

// answerLocked counts a refusal and returns its error; nil for Granted. An err that is there already wins.
func (l *Lease) answerLocked(v Verdict, err error, n int64) error {
	b := l.owner.budget
	if err != nil || v == Granted {
		return err
	}
	reason := [...]string{Never: "never", Full: "full", Unfair: "unfair"}[v]
	b.m.refused.WithLabelValues(l.owner.name, reason).Inc()
	switch v {
	case Never:
		return errs.E(errs.Limited,
			"tenant %s: the request needs %d bytes of memory or more, and one may have %d of the %d that this process has "+
				"for all (limit %s)",
			l.tenant, l.first.all+n, PerTenant.Most(b.total), b.total, b.limit)
	case Unfair:
		err = errs.E(errs.Exhausted,
			"tenant %s: its requests hold %d bytes of memory here, and the rest of %d is kept for other tenants: "+
				"try again (limit %s)",
			l.tenant, b.tenants[l.tenant], b.total, b.limit)
	default:
		err = errs.E(errs.Exhausted,
			"tenant %s: %d bytes of memory are not free, requests hold %d of %d: try again (limit %s)",
			l.tenant, n, b.used, b.total, b.limit)
	}
	return errs.WithRetryAfter(err, retryAfter)
}

// Holder is what one tenant holds of a budget by one owner.
type Holder struct {
	Owner  string
	Tenant tenant.ID
	Leases int
	Bytes  int64
}

// Holders returns who holds how much, the largest first.
func (b *Budget) Holders() []Holder {
	type key struct {
		owner string
		id    tenant.ID
	}
	sums := map[key]*Holder{}
	b.mu.Lock()
	for l := range b.leases {
		k := key{l.owner.name, l.tenant}
		if sums[k] == nil {
			sums[k] = &Holder{Owner: k.owner, Tenant: k.id}
		}
		sums[k].Leases++
		sums[k].Bytes += l.bytes
	}
	b.mu.Unlock()
	out := make([]Holder, 0, len(sums))
	for _, h := range sums {
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b Holder) int {
		if a.Bytes != b.Bytes {
			return int(max(-1, min(1, b.Bytes-a.Bytes)))
		}
		return strings.Compare(a.Owner+"\x00"+string(a.Tenant), b.Owner+"\x00"+string(b.Tenant))
	})
	return out
}
