package tsdb

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// rules are how a tenant's data is treated: its limits, and the options where they say nothing. They never change.
type rules struct {
	limits    *tenant.Limits // whose pointer is the version; nil = none
	window    time.Duration
	future    time.Duration
	retention time.Duration
	exemplars int64
	zeros     bool // start timestamps become zero samples
}

// rulesOf are the rules of tenant id at the moment.
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

// windowOf is the window in the rules of tenant id: Info asks for that of all tenants.
func (o *Options) windowOf(id tenant.ID) time.Duration {
	if o.Limits != nil {
		if w := time.Duration(o.Limits(id).OutOfOrderWindow); w > 0 {
			return w
		}
	}
	return o.Window
}

// headWindow is the out-of-order window of the head, whose newest sample it looks back from: ms.
func (r *rules) headWindow() int64 { return (r.window + r.future + 5*time.Minute).Milliseconds() }

// seriesPerMetric is the limit of this name, 0 = none.
func (r *rules) seriesPerMetric() int {
	if r.limits == nil {
		return 0
	}
	return r.limits.SeriesPerMetric
}

// follow returns the rules of the moment, and sees to it that the head goes by them.
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
		in.births.stopCounting()
	}
	in.rules.Store(next)
	return next, nil
}

// configure makes the head go by r before anything is accepted by it. The head's window only grows until the tenant is
// opened again: transactions that began under the old one may still bring what is old. The caller holds in.adopting.
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

// refusal is a series that a limit keeps from being made.
type refusal struct {
	limit string // its name in files
	text  string
}

func (r *refusal) Error() string { return r.text }

// births decides whether a series may be made, and counts those of each metric name while there is a limit on them.
type births struct {
	mu      sync.Mutex // guards what follows
	share   share
	metrics map[string]int // series by metric name; nil = not counted
}

// localBound is how many series of a limit over the whole cluster this receiver takes when it stores a part (share) of the
// tenant's series: that part, and as much more as keeps an uneven placement from refusing series that the limit allows.
func localBound(limit int, share float64) int {
	if share >= 1 || share <= 0 {
		return limit
	}
	n := float64(limit) * share
	return min(limit, int(math.Ceil(n+n/10+2*math.Sqrt(n))))
}

// share remembers the largest part for a while: series that the ring has taken away from this receiver stay in its head
// until they are cut, and must not keep the others out. The zero value is ready.
type share struct {
	now, before float64
	since       time.Time // of now
}

// observe returns the largest part seen in the last one to two times hold.
func (s *share) observe(part float64, at time.Time, hold time.Duration) float64 {
	if age := at.Sub(s.since); s.since.IsZero() || age >= hold || age < 0 {
		s.before, s.now, s.since = s.now, 0, at
		if age >= 2*hold {
			s.before = 0
		}
	}
	s.now = max(s.now, part)
	return max(s.now, s.before)
}

// allowance is how many series this receiver takes of a limit of the tenant.
// The caller holds births.mu.
func (in *instance) allowance(limit int) int {
	if in.opts.Share == nil {
		return limit
	}
	return localBound(limit, in.births.share.observe(in.opts.Share(in.id), in.opts.Now(), 3*in.opts.BlockDuration/2))
}

// mayBeBorn is nil when a series may be made.
func (in *instance) mayBeBorn(ls labels.Labels) error {
	r := in.rules.Load()
	if r.limits == nil || r.limits.ActiveSeries <= 0 && r.limits.SeriesPerMetric <= 0 {
		return nil
	}
	in.births.mu.Lock()
	defer in.births.mu.Unlock()
	if limit := r.limits.ActiveSeries; limit > 0 {
		if n, bound := int(in.db.Head().NumSeries()), in.allowance(limit); n >= bound {
			return in.refuse("active_series", limit, "series", n, bound)
		}
	}
	if limit := r.limits.SeriesPerMetric; limit > 0 && in.births.metrics != nil {
		name := ls.Get(model.MetricNameLabel)
		if n, bound := in.births.metrics[name], in.allowance(limit); name != "" && n >= bound {
			return in.refuse("series_per_metric", limit, fmt.Sprintf("series of metric %.128s", name), n, bound)
		}
	}
	return nil
}

func (in *instance) refuse(limit string, value int, what string, n, bound int) error {
	text := fmt.Sprintf("tenant %s has %d %s on this receiver, which takes %d of %s %d: send fewer, or raise it in --runtime-config.file",
		in.id, n, what, bound, limit, value)
	return &refusal{limit: limit, text: text}
}

// born counts a series that was made.
func (b *births) born(ls labels.Labels) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := ls.Get(model.MetricNameLabel)
	if b.metrics == nil || name == "" {
		return
	}
	if n, known := b.metrics[name]; known {
		b.metrics[name] = n + 1
		return
	}
	b.metrics[strings.Clone(name)] = 1
}

// died counts series off that the head dropped.
func (b *births) died(gone map[chunks.HeadSeriesRef]labels.Labels) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.metrics == nil {
		return
	}
	for _, ls := range gone {
		name := ls.Get(model.MetricNameLabel)
		if b.metrics[name]--; b.metrics[name] <= 0 {
			delete(b.metrics, name)
		}
	}
}

func (b *births) stopCounting() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.metrics = nil
}

// startCounting counts the series by metric name if a limit needs it and they are not counted yet. It keeps series from
// being made and from being dropped meanwhile; while a cut is under way it leaves it for later.
func (in *instance) startCounting(ctx context.Context) (err error) {
	if in.rules.Load().seriesPerMetric() == 0 || !in.cutting.tryTake() {
		return nil
	}
	defer in.cutting.give()
	if err := in.fence.take(ctx); err != nil {
		return err
	}
	defer in.fence.give()
	in.births.mu.Lock()
	defer in.births.mu.Unlock()
	if in.births.metrics != nil {
		return nil
	}
	index, err := in.db.Head().Index()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	names, err := index.LabelValues(ctx, model.MetricNameLabel, nil)
	if err != nil {
		return err
	}
	metrics := make(map[string]int, len(names))
	for _, name := range names {
		p, err := index.Postings(ctx, model.MetricNameLabel, name)
		if err != nil {
			return err
		}
		n := 0
		for p.Next() {
			n++
		}
		if n > 0 {
			metrics[strings.Clone(name)] = n
		}
	}
	in.births.metrics = metrics
	return nil
}
