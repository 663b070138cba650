package rulestate

import (
	"encoding/json"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// The forms of groups, rules and alerts in answers: Prometheus's, with what Thanos adds.

// groupJSON is a group with rules of type R: any of both where it is written, and alertingJSON where it is read, since
// that has the fields of both.
type groupJSON[R any] struct {
	Name           string    `json:"name"`
	File           string    `json:"file"`
	Rules          []R       `json:"rules"`
	Interval       float64   `json:"interval"`
	Limit          int       `json:"limit"`
	EvaluationTime float64   `json:"evaluationTime"`
	LastEvaluation time.Time `json:"lastEvaluation"`
	Strategy       string    `json:"partialResponseStrategy"`
}

type alertingJSON struct {
	State          string        `json:"state"`
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Duration       float64       `json:"duration"`
	KeepFiringFor  float64       `json:"keepFiringFor"`
	Labels         labels.Labels `json:"labels"`
	Annotations    labels.Labels `json:"annotations"`
	Alerts         []alertJSON   `json:"alerts"`
	Health         string        `json:"health"`
	LastError      string        `json:"lastError,omitempty"`
	EvaluationTime float64       `json:"evaluationTime"`
	LastEvaluation time.Time     `json:"lastEvaluation"`
	Type           string        `json:"type"`
}

type recordingJSON struct {
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Labels         labels.Labels `json:"labels"`
	Health         string        `json:"health"`
	LastError      string        `json:"lastError,omitempty"`
	EvaluationTime float64       `json:"evaluationTime"`
	LastEvaluation time.Time     `json:"lastEvaluation"`
	Type           string        `json:"type"`
}

type alertJSON struct {
	Labels          labels.Labels `json:"labels"`
	Annotations     labels.Labels `json:"annotations"`
	State           string        `json:"state"`
	ActiveAt        time.Time     `json:"activeAt,omitzero"`
	KeepFiringSince time.Time     `json:"keepFiringSince,omitzero"`
	Value           string        `json:"value"`
	Strategy        string        `json:"partialResponseStrategy"`
}

func (g *Group) json() groupJSON[any] {
	rules := make([]any, len(g.Rules))
	for i := range g.Rules {
		rules[i] = g.Rules[i].json(g.strategy())
	}
	return groupJSON[any]{
		Name: g.Name, File: g.File, Rules: rules, Interval: g.Interval.Seconds(), Limit: g.Limit,
		EvaluationTime: g.EvaluationTime.Seconds(), LastEvaluation: g.LastEvaluation, Strategy: g.strategy(),
	}
}

// strategy is Thanos's word for Warn.
func (g *Group) strategy() string {
	if g.Warn {
		return "WARN"
	}
	return "ABORT"
}

func (r *Rule) json(strategy string) any {
	if !r.Alerting {
		return recordingJSON{
			Name: r.Name, Query: r.Query, Labels: r.Labels, Health: r.Health, LastError: r.LastError,
			EvaluationTime: r.EvaluationTime.Seconds(), LastEvaluation: r.LastEvaluation, Type: "recording",
		}
	}
	return alertingJSON{
		State: r.State.String(), Name: r.Name, Query: r.Query, Duration: r.For.Seconds(),
		KeepFiringFor: r.KeepFiringFor.Seconds(), Labels: r.Labels, Annotations: r.Annotations,
		Alerts: alertsJSON(r.Alerts, strategy), Health: r.Health, LastError: r.LastError,
		EvaluationTime: r.EvaluationTime.Seconds(), LastEvaluation: r.LastEvaluation, Type: "alerting",
	}
}

func alertsJSON(alerts []Alert, strategy string) []alertJSON {
	out := make([]alertJSON, len(alerts))
	for i, a := range alerts {
		out[i] = alertJSON{
			Labels: a.Labels, Annotations: a.Annotations, State: a.State.String(), ActiveAt: a.ActiveAt,
			KeepFiringSince: a.KeepFiringSince, Value: a.Value, Strategy: strategy,
		}
	}
	return out
}

// UnmarshalJSON reads a group of an answer of Prometheus's API, which has no tenant.
func (g *Group) UnmarshalJSON(text []byte) error {
	var from groupJSON[alertingJSON]
	if err := json.Unmarshal(text, &from); err != nil {
		return err
	}
	*g = Group{Name: from.Name, File: from.File, Interval: ofSeconds(from.Interval), Limit: from.Limit,
		EvaluationTime: ofSeconds(from.EvaluationTime), LastEvaluation: from.LastEvaluation}
	for i := range from.Rules {
		g.Rules = append(g.Rules, from.Rules[i].rule())
	}
	return nil
}

func (r *alertingJSON) rule() Rule {
	out := Rule{
		Alerting: r.Type == "alerting", Name: r.Name, Query: r.Query, Labels: r.Labels, Health: r.Health,
		LastError: r.LastError, EvaluationTime: ofSeconds(r.EvaluationTime), LastEvaluation: r.LastEvaluation,
	}
	if !out.Alerting {
		return out
	}
	out.State, out.Annotations = stateOf(r.State), r.Annotations
	out.For, out.KeepFiringFor = ofSeconds(r.Duration), ofSeconds(r.KeepFiringFor)
	for _, a := range r.Alerts {
		out.Alerts = append(out.Alerts, Alert{Labels: a.Labels, Annotations: a.Annotations, State: stateOf(a.State),
			ActiveAt: a.ActiveAt, KeepFiringSince: a.KeepFiringSince, Value: a.Value})
	}
	return out
}

func ofSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
