package rule

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	promtemplate "github.com/prometheus/prometheus/template"

	"github.com/hearth-metrics/hearth/rule/template"
)

// templates expands the labels and annotations of alerts.
type templates struct {
	log         *slog.Logger
	external    map[string]string
	externalURL *url.URL
}

// prelude is before each template: names that people know from Prometheus.
const prelude = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}" +
	"{{$value := .Value}}"

// expansion expands the texts of one alert.
type expansion struct {
	template.Expander
	log    *slog.Logger
	ctx    context.Context
	budget *template.Budget
}

func (x *expansion) expand(text string) string {
	if !strings.Contains(text, "{{") || x.budget.Err() != nil {
		return text
	}
	out, err := x.Expander.Expand(x.ctx, prelude+text, x.budget)
	if err != nil {
		x.log.Warn("template of an alert not expanded", "template", x.Name, "err", err)
		return fmt.Sprintf("<error expanding template: %s>", err)
	}
	return out
}

// templatesTime bounds how long all templates of a rule may take in one slot, with the queries in them.
const templatesTime = 2 * time.Minute

// expand makes of each sample of v one with the labels of its alert, and gives the annotations of the alerts by the
// hash of these labels. The library then has nothing left to expand. So the state of alerts can be given back to it by
// their labels alone (resume), also where the labels came from templates that ask for data.
func (t *templates) expand(ctx context.Context, r *rule, v promql.Vector, at time.Time,
	query rules.QueryFunc) (promql.Vector, map[uint64]labels.Labels, error) {
	ctx, cancel := context.WithTimeout(ctx, templatesTime)
	defer cancel()
	out := make(promql.Vector, len(v))
	notes := make(map[uint64]labels.Labels, len(v))
	lb, sb := labels.NewBuilder(labels.EmptyLabels()), labels.NewScratchBuilder(0)
	externalURL := ""
	if t.externalURL != nil {
		externalURL = t.externalURL.String()
	}
	x := expansion{log: t.log, ctx: ctx, budget: template.NewBudget(len(v)), Expander: template.Expander{
		Name: "__alert_" + r.lib.Name(), At: model.Time(timestamp.FromTime(at)), Query: promtemplate.QueryFunc(query),
		ExternalURL: t.externalURL,
	}}
	for i, s := range v {
		x.Data = promtemplate.AlertTemplateData(s.Metric.Map(), t.external, externalURL, s)
		lb.Reset(s.Metric)
		lb.Del(model.MetricNameLabel)
		r.labels.Range(func(l labels.Label) { lb.Set(l.Name, x.expand(l.Value)) })
		lb.Set(labels.AlertName, r.lib.Name())
		sb.Reset()
		r.annotations.Range(func(a labels.Label) { sb.Add(a.Name, x.expand(a.Value)) })
		if err := x.budget.Err(); err != nil {
			return nil, nil, fmt.Errorf("alert %q: %w", r.lib.Name(), err)
		}
		out[i] = s
		out[i].Metric = lb.Labels()
		notes[out[i].Metric.Hash()] = sb.Labels()
	}
	return out, notes, nil
}

// evalAlert evaluates an alerting rule: the query first, then the state of its alerts, under the lock of the rule.
func (r *rule) evalAlert(ctx context.Context, t *templates, offset time.Duration, slot time.Time,
	query rules.QueryFunc, limit int) (promql.Vector, error) {
	ctx = rules.NewOriginContext(ctx, rules.NewRuleDetail(r.lib))
	found, err := query(ctx, r.expr, slot.Add(-offset))
	if err != nil {
		return nil, err
	}
	found, notes, err := t.expand(ctx, r, found, slot, query)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out, err := r.alert.Eval(ctx, offset, slot, given(found), nil, limit)
	if err != nil {
		return nil, err
	}
	r.alert.ForEachActiveAlert(func(a *rules.Alert) {
		if n, ok := notes[a.Labels.Hash()]; ok {
			a.Annotations = n
		}
	})
	for i := range out {
		out[i].Metric = r.withTemplates(out[i].Metric)
	}
	return out, nil
}

// withTemplates is ls with those labels of the rule that it lacks since their templates came out empty. As in
// Prometheus, the series of alerts then have the templates themselves.
func (r *rule) withTemplates(ls labels.Labels) labels.Labels {
	lacks := false
	r.labels.Range(func(l labels.Label) { lacks = lacks || !ls.Has(l.Name) })
	if !lacks {
		return ls
	}
	lb := labels.NewBuilder(r.labels)
	ls.Range(func(l labels.Label) { lb.Set(l.Name, l.Value) })
	return lb.Labels()
}

// alerts are copies of the rule's alerts, those that were resolved a moment ago included.
func (r *rule) alerts() (out []rules.Alert) {
	if r.alert == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.alert.ForEachActiveAlert(func(a *rules.Alert) { out = append(out, *a) })
	return out
}

// resume gives the rule alerts with their whole state. It must have none.
func (r *rule) resume(ctx context.Context, alerts []rules.Alert) error {
	if r.alert == nil || len(alerts) == 0 {
		return nil
	}
	v := make(promql.Vector, len(alerts))
	state := make(map[uint64]rules.Alert, len(alerts))
	for i, a := range alerts {
		v[i] = promql.Sample{Metric: a.Labels, F: a.Value}
		state[a.Labels.Hash()] = a
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// The evaluation makes an alert for each sample. What it says of their state does not matter.
	if _, err := r.alert.Eval(ctx, 0, time.Unix(0, 0), given(v), nil, 0); err != nil {
		return err
	}
	r.alert.ForEachActiveAlert(func(a *rules.Alert) {
		if was, ok := state[a.Labels.Hash()]; ok {
			*a = was
		}
	})
	return nil
}

// reset takes all alerts off the rule.
func (r *rule) reset(ctx context.Context) error {
	if r.alert == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// An evaluation without samples drops alerts that wait.
	r.alert.ForEachActiveAlert(func(a *rules.Alert) { *a = rules.Alert{State: rules.StatePending, Labels: a.Labels} })
	_, err := r.alert.Eval(ctx, 0, time.Unix(0, 0), given(nil), nil, 0)
	return err
}

// forget makes the rule one that was never evaluated.
func (r *rule) forget() {
	r.previous, r.evals = nil, 0
	if r.alert == nil {
		return
	}
	r.alert.SetRestored(false)
	_ = r.reset(context.Background()) // it has no query that could fail
}

// due are copies of the alerts that must be sent at slot, which are marked as sent: firing ones now and then, and each
// that was resolved since it was last sent.
func (r *rule) due(slot time.Time, resend, interval time.Duration) (out []rules.Alert) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.alert.ForEachActiveAlert(func(a *rules.Alert) {
		resolved := a.ResolvedAt.After(a.LastSentAt)
		if a.State == rules.StatePending || !resolved && !a.LastSentAt.Add(resend).Before(slot) {
			return
		}
		a.LastSentAt = slot
		// Four times as long, so that an alert outlives some evaluations or deliveries that fail.
		a.ValidUntil = slot.Add(4 * max(interval, resend))
		out = append(out, *a)
	})
	return out
}
