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
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// refusal is the error for a new series that a limit keeps out.
type refusal struct {
	limit string // the limit's name in limits files
	text  string
}

func (r *refusal) Error() string { return r.text }

// seriesCounts counts the series of each metric name, while there is a limit on them.
type seriesCounts struct {
	mu      sync.Mutex // guards what follows
	part    recentPart
	metrics map[string]int // series by metric name; nil = they are not counted
}

// localBound is how many series this receiver takes of a limit for the whole cluster, when it stores this part of the
// tenant's series: that part of the limit, and some more, because placement is uneven and must not refuse what the
// limit allows.
func localBound(limit int, part float64) int {
	if part >= 1 || part <= 0 {
		return limit
	}
	n := float64(limit) * part
	return min(limit, int(math.Ceil(n+n/10+2*math.Sqrt(n))))
}

// recentPart remembers the largest part of the last while. Series that the ring has moved to other receivers stay in
// the head until they are cut, and must not keep other series out meanwhile. The zero value is ready.
type recentPart struct {
	now, before float64
	since       time.Time // of now
}

// observe notes the part at a time, and returns the largest one of the last hold, or up to twice as long.
func (s *recentPart) observe(part float64, at time.Time, hold time.Duration) float64 {
	if age := at.Sub(s.since); s.since.IsZero() || age >= hold || age < 0 {
		s.before, s.now, s.since = s.now, 0, at
		if age >= 2*hold {
			s.before = 0
		}
	}
	s.now = max(s.now, part)
	return max(s.now, s.before)
}

// allowance is how many series this receiver takes of a limit of the tenant. The caller holds seriesCounts.mu.
func (in *instance) allowance(limit int) int {
	if in.opts.Share == nil {
		return limit
	}
	return localBound(limit, in.seriesCounts.part.observe(in.opts.Share(in.id), in.opts.Now(), 3*in.opts.BlockDuration/2))
}

// mayCreate is nil when the limits allow one more series with the labels ls. Otherwise it is a *refusal.
func (in *instance) mayCreate(ls labels.Labels) error {
	r := in.rules.Load()
	if r.limits == nil || r.limits.ActiveSeries <= 0 && r.limits.SeriesPerMetric <= 0 {
		return nil
	}
	in.seriesCounts.mu.Lock()
	defer in.seriesCounts.mu.Unlock()
	if limit := r.limits.ActiveSeries; limit > 0 {
		if n, bound := int(in.db.Head().NumSeries()), in.allowance(limit); n >= bound {
			return in.refuse("active_series", limit, "series", n, bound)
		}
	}
	if limit := r.limits.SeriesPerMetric; limit > 0 && in.seriesCounts.metrics != nil {
		name := ls.Get(model.MetricNameLabel)
		if n, bound := in.seriesCounts.metrics[name], in.allowance(limit); name != "" && n >= bound {
			return in.refuse("series_per_metric", limit, fmt.Sprintf("series of metric %.128s", name), n, bound)
		}
	}
	return nil
}

func (in *instance) refuse(limit string, value int, what string, n, bound int) error {
	text := fmt.Sprintf("tenant %s has %d %s on this receiver, which takes %d of %s %d: send fewer, or raise it in "+
		"--runtime-config.file", in.id, n, what, bound, limit, value)
	return &refusal{limit: limit, text: text}
}

// created counts a series that the head made.
func (b *seriesCounts) created(ls labels.Labels) {
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

// dropped takes series that the head dropped off the counts.
func (b *seriesCounts) dropped(gone map[chunks.HeadSeriesRef]labels.Labels) {
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

func (b *seriesCounts) stopCounting() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.metrics = nil
}

// startCounting counts the series by metric name, if a limit needs that and they are not counted yet. Meanwhile no
// series can be made or dropped. While a cut is under way it does nothing, and its caller tries again later.
func (in *instance) startCounting(ctx context.Context) (err error) {
	if in.rules.Load().seriesPerMetric() == 0 || !in.cutting.tryTake() {
		return nil
	}
	defer in.cutting.give()
	if err := in.fence.take(ctx); err != nil {
		return err
	}
	defer in.fence.give()
	in.seriesCounts.mu.Lock()
	defer in.seriesCounts.mu.Unlock()
	if in.seriesCounts.metrics != nil {
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
	in.seriesCounts.metrics = metrics
	return nil
}
