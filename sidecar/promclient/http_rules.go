package promclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/rulestate"
)

// rulesResponse is the answer of Prometheus's API for rules.
type rulesResponse struct {
	Status string `json:"status"`
	Data   struct {
		Groups []struct {
			Name           string    `json:"name"`
			File           string    `json:"file"`
			Interval       float64   `json:"interval"`
			Limit          int       `json:"limit"`
			EvaluationTime float64   `json:"evaluationTime"`
			LastEvaluation time.Time `json:"lastEvaluation"`
			Rules          []rule    `json:"rules"`
		} `json:"groups"`
	} `json:"data"`
}

// rule has the fields of both types of rules.
type rule struct {
	Type           string        `json:"type"`
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Labels         labels.Labels `json:"labels"`
	Health         string        `json:"health"`
	LastError      string        `json:"lastError"`
	EvaluationTime float64       `json:"evaluationTime"`
	LastEvaluation time.Time     `json:"lastEvaluation"`
	State          string        `json:"state"`
	Duration       float64       `json:"duration"`
	KeepFiringFor  float64       `json:"keepFiringFor"`
	Annotations    labels.Labels `json:"annotations"`
	Alerts         []struct {
		Labels          labels.Labels `json:"labels"`
		Annotations     labels.Labels `json:"annotations"`
		State           string        `json:"state"`
		ActiveAt        time.Time     `json:"activeAt"`
		KeepFiringSince time.Time     `json:"keepFiringSince"`
		Value           string        `json:"value"`
	} `json:"alerts"`
}

// Rules are all rules of Prometheus and their alerts. The groups have no tenant yet.
func (c *Client) Rules(ctx context.Context) ([]rulestate.Group, error) {
	resp, err := c.do(ctx, http.MethodGet, c.address("/api/v1/rules", url.Values{}), nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var all rulesResponse
	if err := json.NewDecoder(&boundedBody{resp.Body, maxResponse}).Decode(&all); err != nil {
		return nil, broken(err)
	}
	if all.Status != "success" {
		return nil, errs.E(errs.Unavailable, "Prometheus: the list of rules has status %q", all.Status)
	}
	var groups []rulestate.Group
	for _, g := range all.Data.Groups {
		group := rulestate.Group{Name: g.Name, File: g.File, Interval: ofSeconds(g.Interval), Limit: g.Limit,
			EvaluationTime: ofSeconds(g.EvaluationTime), LastEvaluation: g.LastEvaluation}
		for i := range g.Rules {
			group.Rules = append(group.Rules, g.Rules[i].state())
		}
		groups = append(groups, group)
	}
	return groups, nil
}

func ofSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (r *rule) state() rulestate.Rule {
	out := rulestate.Rule{
		Alerting: r.Type == "alerting", Name: r.Name, Query: r.Query, Labels: r.Labels, Health: r.Health,
		LastError: r.LastError, EvaluationTime: ofSeconds(r.EvaluationTime), LastEvaluation: r.LastEvaluation,
	}
	if !out.Alerting {
		return out
	}
	out.State, out.Annotations = stateOf(r.State), r.Annotations
	out.For, out.KeepFiringFor = ofSeconds(r.Duration), ofSeconds(r.KeepFiringFor)
	for _, a := range r.Alerts {
		out.Alerts = append(out.Alerts, rulestate.Alert{Labels: a.Labels, Annotations: a.Annotations,
			State: stateOf(a.State), ActiveAt: a.ActiveAt, KeepFiringSince: a.KeepFiringSince, Value: a.Value})
	}
	return out
}

func stateOf(word string) rulestate.State {
	for s := rulestate.Inactive; s <= rulestate.Firing; s++ {
		if s.String() == word {
			return s
		}
	}
	return rulestate.Unknown
}
