package distributor

import (
	"math"
	"time"

	"golang.org/x/time/rate"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// allowance is how fast a tenant may send to this process.
type allowance struct {
	perSecond float64 // this process's share of the limit
	burst     int
}

// The default burst is the larger of burstSamples, which is what Prometheus puts into one request, and burstSeconds of
// the rate, since senders do not spread what they scrape evenly.
const (
	burstSamples = 2000
	burstSeconds = 10
)

// allowanceOf divides a tenant's rate among the processes that take writes. The burst is that of each process: a sender
// that speaks to one of them is not refused for a request that the tenant may send at once.
func allowanceOf(l *tenant.Limits, processes int) allowance {
	burst := l.SamplesBurst
	if burst <= 0 {
		burst = int(math.Ceil(min(max(burstSamples, burstSeconds*l.SamplesPerSecond), math.MaxInt32)))
	}
	return allowance{perSecond: l.SamplesPerSecond / float64(max(processes, 1)), burst: burst}
}

// longestWait bounds the Retry-After of an answer, as limits can be raised meanwhile.
const longestWait = 5 * time.Minute

// take lets n samples pass (0), or says how long they must wait. n is at most the burst.
func (l *limiter) take(now time.Time, n int, p allowance) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bucket == nil {
		l.bucket = rate.NewLimiter(rate.Limit(p.perSecond), p.burst)
	}
	if l.bucket.Limit() != rate.Limit(p.perSecond) {
		l.bucket.SetLimitAt(now, rate.Limit(p.perSecond))
	}
	if l.bucket.Burst() != p.burst {
		l.bucket.SetBurstAt(now, p.burst)
	}
	if l.bucket.AllowN(now, n) {
		return 0
	}
	wait := (float64(n) - l.bucket.TokensAt(now)) / p.perSecond * float64(time.Second)
	return time.Duration(min(max(wait, 1), float64(longestWait)))
}

// limitRate refuses samples that come too fast with kind Limited. More than the burst could never pass: they are
// TooLarge, so that no sender tries them again and again.
func (d *Distributor) limitRate(_ *request, p *part) error {
	l := p.limits
	if l == nil || l.SamplesPerSecond <= 0 {
		return nil
	}
	n := p.samples()
	if n == 0 {
		return nil
	}
	processes := 1
	if d.opts.Distributors != nil {
		processes = max(d.opts.Distributors(), 1)
	}
	allowed := allowanceOf(l, processes)
	if n > allowed.burst {
		p.tenant.refused("samples_burst", n)
		return errs.E(errs.TooLarge, "tenant %s: request of %d samples is larger than samples_burst %d, which is how many "+
			"may come at once: send smaller requests, or raise it in --runtime-config.file",
			p.tenant.id, n, allowed.burst)
	}
	wait := p.tenant.rate.take(time.Now(), n, allowed)
	if wait == 0 {
		return nil
	}
	p.tenant.refused("samples_per_second", n)
	err := errs.E(errs.Limited, "tenant %s: %d samples come faster than samples_per_second %g (%g at this process, one "+
		"of %d; samples_burst %d): send slower, or raise it in --runtime-config.file",
		p.tenant.id, n, l.SamplesPerSecond, allowed.perSecond, processes, allowed.burst)
	return errs.WithRetryAfter(err, wait)
}
