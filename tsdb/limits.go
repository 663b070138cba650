package tsdb

import (
	"time"

	"github.com/prometheus/prometheus/config"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// rules say how a tenant's data is treated: by its limits, and by the options where the limits say nothing. They
// never change.
type rules struct {
	limits    *tenant.Limits // another pointer means other limits; nil = none
	window    time.Duration
	future    time.Duration
	retention time.Duration
	exemplars int64
	zeros     bool // start timestamps become zero samples
}

// rulesOf returns the rules of tenant id as they are now.
func (o *Options) rulesOf(id tenant.ID) *rules {
	r := &rules{window: o.Window, future: o.Future, retention: o.Retention, exemplars: o.MaxExemplars}
	if o.Limits == nil {
		return r
	}
	r.limits = o.Limits(id)
	r.exemplars, r.zeros = r.limits.Exemplars, r.limits.StartTimestampZeros
	override := func(option *time.Duration, limit time.Duration) {
		if limit > 0 {
			*option = limit
		}
	}
	override(&r.window, time.Duration(r.limits.OutOfOrderWindow))
	override(&r.future, time.Duration(r.limits.FutureWindow))
	override(&r.retention, time.Duration(r.limits.Retention))
	return r
}

// windowOf is the window in the rules of tenant id, without the cost of rulesOf: Info asks for the windows of all
// tenants.
func (o *Options) windowOf(id tenant.ID) time.Duration {
	if o.Limits != nil {
		if w := time.Duration(o.Limits(id).OutOfOrderWindow); w > 0 {
			return w
		}
	}
	return o.Window
}

// headWindow is the out-of-order window of the head, in ms. The head measures it from its newest sample, not from now.
func (r *rules) headWindow() int64 { return (r.window + r.future + 5*time.Minute).Milliseconds() }

// seriesPerMetric is the limit of this name, 0 = none.
func (r *rules) seriesPerMetric() int {
	if r.limits == nil {
		return 0
	}
	return r.limits.SeriesPerMetric
}

// follow returns the rules as they are now, and makes the head go by them first.
func (in *instance) follow() (*rules, error) {
	r := in.rules.Load()
	if in.opts.Limits == nil || in.opts.Limits(in.id) == r.limits {
		return r, nil
	}
	in.adopting.Lock()
	defer in.adopting.Unlock()
	if r = in.rules.Load(); in.opts.Limits(in.id) == r.limits {
		return r, nil
	}
	next := in.opts.rulesOf(in.id)
	if err := in.configure(next); err != nil {
		return nil, errs.E(errs.Internal, "apply new limits of tenant %q: %w", in.id, err)
	}
	if next.seriesPerMetric() == 0 {
		in.seriesCounts.stopCounting()
	}
	in.rules.Store(next)
	return next, nil
}

// configure makes the head go by r, before anything is accepted under r. The head's window never shrinks until the
// tenant is opened again, because transactions that began under older rules may still bring old samples. The caller
// holds in.adopting.
func (in *instance) configure(r *rules) error {
	exemplars := int64(0)
	if in.exemplars.Load() {
		exemplars = r.exemplars
	}
	in.headWindow = max(in.headWindow, r.headWindow())
	return in.db.ApplyConfig(&config.Config{StorageConfig: config.StorageConfig{
		TSDBConfig:      &config.TSDBConfig{OutOfOrderTimeWindow: in.headWindow},
		ExemplarsConfig: &config.ExemplarsConfig{MaxExemplars: exemplars},
	}})
}
