package rulestate

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Group is a group of rules and how its last evaluation went.
type Group struct {
	// Tenant is whose group it is.
	Tenant tenant.ID
	// Name is unique within File. File is the path of a rule file, or a namespace of the API.
	Name, File string
	Interval   time.Duration
	// Limit bounds the alerts or series of each rule; 0 = no limit.
	Limit int
	// Warn: answers that may be incomplete are used, with a warning; false = the rule fails.
	Warn bool
	// EvaluationTime is how long the last evaluation took, and LastEvaluation when it began; zero = there was none.
	EvaluationTime time.Duration
	LastEvaluation time.Time
	Rules          []Rule
}

// Rule is a rule and how its last evaluation went.
type Rule struct {
	// Alerting: it is an alerting rule; false = a recording rule, which has none of the fields down to Alerts.
	Alerting           bool
	State              State // the most critical state of Alerts
	For, KeepFiringFor time.Duration
	Annotations        labels.Labels // templates
	Alerts             []Alert       // that are active

	// Name is that of the alert or of the recorded series.
	Name  string
	Query string
	// Labels are those of the rule and of its group, as templates.
	Labels labels.Labels
	// Health is "ok", "err" or "unknown". LastError is why it is "err".
	Health, LastError string
	EvaluationTime    time.Duration
	LastEvaluation    time.Time
}

// Alert is an alert of a rule that is pending or firing.
type Alert struct {
	Labels, Annotations labels.Labels
	State               State
	ActiveAt            time.Time
	// KeepFiringSince is when the condition ended of an alert that keeps firing; zero = it holds.
	KeepFiringSince time.Time
	// Value is that of the query, as Prometheus writes it ("1e+00").
	Value string
}

// State of an alert. A larger state is more critical. The numbers are those of Thanos's AlertState.
type State uint8

// The states.
const (
	Unknown State = iota // the rule was not evaluated yet
	Inactive
	Pending
	Firing
)

// stateWords are the words of the states in the API.
var stateWords = [...]string{"unknown", "inactive", "pending", "firing"}

// String is the state's word in the API.
func (s State) String() string {
	if int(s) < len(stateWords) {
		return stateWords[s]
	}
	return stateWords[Unknown]
}

// stateOf is the reverse of String; Unknown for any other word.
func stateOf(word string) State { return State(max(0, slices.Index(stateWords[:], word))) }

// Source knows the state of rules.
type Source interface {
	// Rules returns the groups of tenant id with the rules that q selects; "" = of all tenants. The caller must not change
	// what groups hold. Warnings say what may be missing.
	Rules(ctx context.Context, id tenant.ID, q Query) (groups []Group, warnings []string, err error)
}

// Local is the Source of groups that run in this process. It returns all of them, in any order.
type Local func() []Group

// Rules implements Source.
func (l Local) Rules(_ context.Context, id tenant.ID, q Query) ([]Group, []string, error) {
	groups := slices.Clone(l())
	groups = slices.DeleteFunc(groups, func(g Group) bool { return id != "" && g.Tenant != id })
	return q.Select(groups), nil, nil
}
