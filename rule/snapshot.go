package rule

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"

	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// Snapshot is the state of the groups that this ruler evaluates at this moment, sorted by tenant, file and name. The
// caller owns it. It is a rulestate.Local.
func (r *Ruler) Snapshot() []rulestate.Group {
	running := r.running()
	out := make([]rulestate.Group, 0, len(running))
	for _, g := range running {
		if g.led() {
			out = append(out, g.state())
		}
	}
	return out
}

func (g *group) state() rulestate.Group {
	s := rulestate.Group{
		Tenant: g.id.tenant, File: g.id.namespace, Name: g.id.name, Interval: g.grid.interval, Limit: g.def.Limit,
		Warn: g.def.PartialResponse == definition.Warn, Rules: make([]rulestate.Rule, 0, len(g.rules)),
	}
	g.mu.Lock()
	s.LastEvaluation, s.EvaluationTime = g.began, g.took
	g.mu.Unlock()
	for _, r := range g.rules {
		s.Rules = append(s.Rules, r.state())
	}
	return s
}

func (r *rule) state() rulestate.Rule {
	s := rulestate.Rule{
		Name: r.lib.Name(), Query: r.expr, Labels: r.labels, Health: string(r.lib.Health()),
		LastEvaluation: r.lib.GetEvaluationTimestamp(), EvaluationTime: r.lib.GetEvaluationDuration(),
	}
	if err := r.lib.LastError(); err != nil {
		s.LastError = err.Error()
	}
	if r.alert == nil {
		return s
	}
	s.Alerting, s.For, s.KeepFiringFor = true, time.Duration(r.def.For), time.Duration(r.def.KeepFiringFor)
	s.Annotations, s.State = r.annotations, stateOf(r.alert.State())
	for _, a := range r.alerts() {
		if !a.ResolvedAt.IsZero() {
			continue
		}
		s.Alerts = append(s.Alerts, rulestate.Alert{
			Labels: a.Labels, Annotations: a.Annotations, State: stateOf(a.State), ActiveAt: a.ActiveAt,
			KeepFiringSince: a.KeepFiringSince, Value: strconv.FormatFloat(a.Value, 'e', -1, 64),
		})
	}
	slices.SortFunc(s.Alerts, func(a, b rulestate.Alert) int {
		return cmp.Or(cmp.Compare(b.State, a.State), labels.Compare(a.Labels, b.Labels))
	})
	return s
}

func stateOf(s rules.AlertState) rulestate.State {
	switch s {
	case rules.StateInactive:
		return rulestate.Inactive
	case rules.StatePending:
		return rulestate.Pending
	case rules.StateFiring:
		return rulestate.Firing
	}
	return rulestate.Unknown
}
