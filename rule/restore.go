package rule

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
)

// forStateName is the name of the series that say since when alerts are active.
const forStateName = "ALERTS_FOR_STATE"

// evalsBeforeRestore: rules that alerts depend on may be evaluated behind them, so the alerts that there are can be
// known only after two evaluations.
const evalsBeforeRestore = 2

// restore looks for the alerts of rules that have no state of their own in what was stored, as Prometheus does after
// its start. A rule whose series cannot be read is tried again behind each slot, and writes none until then: no answer
// does not mean that there were no alerts.
func (g *group) restore(ctx context.Context, e *engine, now time.Time) {
	began, did := time.Now(), false
	for _, r := range g.rules {
		if r.alert == nil || r.alert.Restored() || r.evals < evalsBeforeRestore || r.disabled.Load() != nil {
			continue
		}
		did = true
		was, err := lastActive(ctx, e.querier, g, r, now)
		if err != nil {
			e.metrics.restoreFailures.Inc()
			if what := err.Error(); r.unread != what {
				r.unread = what
				g.log.Warn("the alerts of a rule are not restored yet; tried again behind each slot", "rule", r.lib.Name(),
					"err", err)
			}
			continue
		}
		r.mu.Lock()
		r.alert.ForEachActiveAlert(func(a *rules.Alert) {
			if w, ok := was[a.Labels.String()]; ok {
				if at, ok := restoredActiveAt(w, now, time.Duration(r.def.For), g.opts.ForGracePeriod); ok {
					a.ActiveAt = at
				}
			}
		})
		r.mu.Unlock()
		r.alert.SetRestored(true)
	}
	if did {
		e.metrics.restored(g, time.Since(began))
	}
}

// activity is what a stored series says of an alert: since when it was active, and when that was last stored.
type activity struct{ since, seen time.Time }

// restoredActiveAt is since when an alert with that "for" counts as active at now; false = as it is.
func restoredActiveAt(was activity, now time.Time, hold, grace time.Duration) (time.Time, bool) {
	left := hold - was.seen.Sub(was.since) // for how long it was still to be pending
	switch {
	case left <= 0: // it was firing
		return was.since, true
	case hold < grace: // it begins anew, since it would otherwise have to wait for the grace period
		return time.Time{}, false
	case left < grace:
		return now.Add(grace - hold), true
	}
	return was.since.Add(now.Sub(was.seen)), true // the outage does not count as time in which it was active
}

// lastActive reads the stored series of a rule's alerts, by the text of the alerts' labels. An alert whose series has
// ended was not active.
func lastActive(ctx context.Context, from Querier, g *group, r *rule, now time.Time) (map[string]activity, error) {
	if g.opts.OutageTolerance < time.Millisecond {
		return nil, nil
	}
	selector := forStateSelector(r)
	ask := asker{from: from, tenants: g.ownTenant(), lookback: g.opts.OutageTolerance}
	since, err := ask.query(ctx, selector, now)
	if err != nil || len(since) == 0 {
		return nil, err
	}
	seen, err := ask.query(ctx, "timestamp("+selector+")", now)
	if err != nil {
		return nil, err
	}
	out := make(map[string]activity, len(since))
	for _, s := range since {
		out[g.alertOf(s.Metric)] = activity{since: time.Unix(int64(s.F), 0).UTC()}
	}
	for _, s := range seen {
		key := g.alertOf(s.Metric)
		if a, ok := out[key]; ok {
			a.seen = time.Unix(int64(s.F), 0).UTC()
			out[key] = a
		}
	}
	for key, a := range out { // it came or went between the two queries
		if a.seen.IsZero() {
			delete(out, key)
		}
	}
	return out, nil
}

// alertOf is the text of the labels of the alert that a stored series belongs to.
func (g *group) alertOf(ls labels.Labels) string {
	return labels.NewBuilder(ls).Del(model.MetricNameLabel).Del(g.opts.RestoreIgnored...).Labels().String()
}

// forStateSelector selects the series of all alerts of a rule. Labels that are templates differ from alert to alert.
func forStateSelector(r *rule) string {
	ms := []string{
		labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, forStateName).String(),
		labels.MustNewMatcher(labels.MatchEqual, labels.AlertName, r.lib.Name()).String(),
	}
	r.labels.Range(func(l labels.Label) {
		if strings.Contains(l.Value, "{{") || l.Name == model.MetricNameLabel || l.Name == labels.AlertName {
			return
		}
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value).String())
	})
	return "{" + strings.Join(ms, ",") + "}"
}
