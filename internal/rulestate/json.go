package rulestate

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// The forms of groups, rules and alerts in answers: Prometheus's, with what Thanos adds.

type groupJSON struct {
	Name           string    `json:"name"`
	File           string    `json:"file"`
	Rules          []any     `json:"rules"`
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

func (g *Group) json() groupJSON {
	rules := make([]any, len(g.Rules))
	for i := range g.Rules {
		rules[i] = g.Rules[i].json(g.strategy())
	}
	return groupJSON{
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
