package rpc

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// maxRulesBytes bounds what one peer may send as its rules and alerts.
const maxRulesBytes = 256 << 20

// rules sends the groups that the caller may see. Rules of a Thanos caller have the external labels of their tenant, as
// the series that they make have.
func (h *storeServer) rules(in *thanospb.RulesRequest, out grpc.ServerStream) error {
	if h.Rules == nil {
		return errs.E(errs.Unsupported, "this process has no rules")
	}
	g, err := h.Tenants.grantTo(callerOf(out.Context()))
	if err != nil {
		return err
	}
	q, err := rulesQueryFromPB(in)
	if err != nil {
		return err
	}
	matchers := q.Matchers
	if !g.own { // they are for rules with external labels
		q.Matchers = nil
	}
	ids := g.tenants
	if g.all {
		ids = []tenant.ID{""}
	}
	for _, id := range ids {
		groups, warnings, err := h.Rules.Rules(out.Context(), id, q)
		if err != nil {
			return err
		}
		if !g.own {
			groups = rulestate.Query{Matchers: matchers}.Select(h.withExternal(groups))
		}
		for i := range groups {
			if err := out.SendMsg(ruleGroupToPB(&groups[i])); err != nil {
				return err
			}
		}
		for _, w := range warnings {
			frame := &thanospb.RulesResponse{Result: &thanospb.RulesResponse_Warning{Warning: w}}
			if err := out.SendMsg(frame); err != nil {
				return err
			}
		}
	}
	return nil
}

// withExternal adds the external labels of each group's tenant to its rules.
func (h *storeServer) withExternal(groups []rulestate.Group) []rulestate.Group {
	groups = slices.Clone(groups)
	for i := range groups {
		relabel := series.Relabeler(h.external(groups[i].Tenant))
		rules := slices.Clone(groups[i].Rules)
		for k := range rules {
			rules[k].Labels = relabel(rules[k].Labels)
		}
		groups[i].Rules = rules
	}
	return groups
}

var _ rulestate.Source = (*Client)(nil)

// Rules does what rulestate.Source describes, for one tenant. It returns nothing when the peer has no rules. The rules
// of a Thanos process belong to the tenant that their external labels name, or to the default tenant.
func (c *Client) Rules(ctx context.Context, id tenant.ID, q rulestate.Query) ([]rulestate.Group, []string, error) {
	p, err := c.known(ctx)
	if err != nil || !p.rules {
		return nil, nil, err
	}
	req := &thanospb.RulesRequest{Type: thanospb.RulesRequest_Type(q.Type), PartialResponseStrategy: strategyFor(p)}
	if p.hearth { // Thanos would select by labels that are removed below
		req.MatcherString, req.HearthExcludeAlerts = q.MatcherTexts(), q.ExcludeAlerts
		req.RuleName, req.RuleGroup, req.File = q.Names, q.Groups, q.Files
	}
	var groups []rulestate.Group
	var warnings []string
	var frame thanospb.RulesResponse
	size := 0
	err = c.each(c.outgoing(ctx, id), "/"+serviceRules+"/Rules", req, &frame, func() error {
		if size += frame.SizeVT(); size > maxRulesBytes {
			return errs.E(errs.TooLarge, "its rules and alerts take more than %d bytes", maxRulesBytes)
		}
		if w := frame.GetWarning(); w != "" {
			warnings = append(warnings, w)
		}
		if g := frame.GetGroup(); g != nil {
			groups = append(groups, ruleGroupFromPB(id, g))
		}
		frame.Reset()
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if !p.hearth {
		if p, err = c.current(ctx, p); err != nil {
			return nil, nil, err
		}
		p.ownRules(id, groups)
	}
	return q.Select(groups), warnings, nil
}

// ownRules removes from groups the rules of other tenants than id, and from the rules the labels of tenant and replica.
func (p *peer) ownRules(id tenant.ID, groups []rulestate.Group) {
	b := labels.NewBuilder(labels.EmptyLabels())
	for i := range groups {
		rules := slices.DeleteFunc(groups[i].Rules, func(r rulestate.Rule) bool {
			if p.tenants.isExternal(r.Labels) {
				return p.foreign(id, r.Labels)
			}
			return id != cmp.Or(p.owner, tenant.Default)
		})
		for k := range rules {
			rules[k].Labels = p.strip(b, rules[k].Labels)
		}
		groups[i].Rules = rules
	}
}

func rulesQueryFromPB(in *thanospb.RulesRequest) (q rulestate.Query, err error) {
	if in.Type < 0 || in.Type > thanospb.RulesRequest_RECORD {
		return q, errs.E(errs.Invalid, "type %d of rules is not known", in.Type)
	}
	q = rulestate.Query{
		Type: rulestate.Type(in.Type), Names: in.RuleName, Groups: in.RuleGroup, Files: in.File,
		ExcludeAlerts: in.HearthExcludeAlerts,
	}
	q.Matchers, err = rulestate.ParseMatchers(in.MatcherString)
	return q, err
}

func ruleGroupToPB(g *rulestate.Group) *thanospb.RulesResponse {
	strategy := ruleStrategy(g.Warn)
	out := &thanospb.RuleGroup{
		Name: g.Name, File: g.File, Interval: g.Interval.Seconds(), Limit: int64(g.Limit),
		EvaluationDurationSeconds: g.EvaluationTime.Seconds(), LastEvaluation: timestamppb.New(g.LastEvaluation),
		PartialResponseStrategy: strategy,
	}
	for i := range g.Rules {
		out.Rules = append(out.Rules, ruleToPB(&g.Rules[i], strategy))
	}
	return &thanospb.RulesResponse{Result: &thanospb.RulesResponse_Group{Group: out}}
}

func ruleStrategy(warn bool) thanospb.PartialResponseStrategy {
	if warn {
		return thanospb.PartialResponseStrategy_WARN
	}
	return thanospb.PartialResponseStrategy_ABORT
}

func ruleToPB(r *rulestate.Rule, strategy thanospb.PartialResponseStrategy) *thanospb.Rule {
	at := timestamppb.New(r.LastEvaluation)
	if !r.Alerting {
		return &thanospb.Rule{Result: &thanospb.Rule_Recording{Recording: &thanospb.RecordingRule{
			Name: r.Name, Query: r.Query, Labels: labelsToPB(r.Labels), Health: r.Health, LastError: r.LastError,
			EvaluationDurationSeconds: r.EvaluationTime.Seconds(), LastEvaluation: at,
		}}}
	}
	out := &thanospb.Alert{
		State: thanospb.AlertState(r.State), Name: r.Name, Query: r.Query, DurationSeconds: r.For.Seconds(),
		KeepFiringForSeconds: r.KeepFiringFor.Seconds(), Labels: labelsToPB(r.Labels), Annotations: labelsToPB(r.Annotations),
		Health: r.Health, LastError: r.LastError, EvaluationDurationSeconds: r.EvaluationTime.Seconds(), LastEvaluation: at,
	}
	for _, a := range r.Alerts {
		one := &thanospb.AlertInstance{
			Labels: labelsToPB(a.Labels), Annotations: labelsToPB(a.Annotations), State: thanospb.AlertState(a.State),
			ActiveAt: timestamppb.New(a.ActiveAt), Value: a.Value, PartialResponseStrategy: strategy,
		}
		if !a.KeepFiringSince.IsZero() {
			one.HearthKeepFiringSince = timestamppb.New(a.KeepFiringSince)
		}
		out.Alerts = append(out.Alerts, one)
	}
	return &thanospb.Rule{Result: &thanospb.Rule_Alert{Alert: out}}
}

// ruleGroupFromPB reads a group. What it lacks is zero.
func ruleGroupFromPB(id tenant.ID, in *thanospb.RuleGroup) rulestate.Group {
	g := rulestate.Group{
		Tenant: id, Name: in.Name, File: in.File, Interval: seconds(in.Interval), Limit: clampInt(in.Limit),
		Warn:           in.PartialResponseStrategy == thanospb.PartialResponseStrategy_WARN,
		EvaluationTime: seconds(in.EvaluationDurationSeconds), LastEvaluation: timeFromPB(in.LastEvaluation),
	}
	for _, r := range in.Rules {
		if a := r.GetAlert(); a != nil {
			g.Rules = append(g.Rules, alertingFromPB(a))
		} else if rec := r.GetRecording(); rec != nil {
			g.Rules = append(g.Rules, rulestate.Rule{
				Name: rec.Name, Query: rec.Query, Labels: labelsFromPB(rec.Labels), Health: rec.Health, LastError: rec.LastError,
				EvaluationTime: seconds(rec.EvaluationDurationSeconds), LastEvaluation: timeFromPB(rec.LastEvaluation),
			})
		}
	}
	return g
}

func alertingFromPB(in *thanospb.Alert) rulestate.Rule {
	r := rulestate.Rule{
		Alerting: true, State: stateFromPB(in.State), Name: in.Name, Query: in.Query, For: seconds(in.DurationSeconds),
		KeepFiringFor: seconds(in.KeepFiringForSeconds), Labels: labelsFromPB(in.Labels),
		Annotations: labelsFromPB(in.Annotations), Health: in.Health, LastError: in.LastError,
		EvaluationTime: seconds(in.EvaluationDurationSeconds), LastEvaluation: timeFromPB(in.LastEvaluation),
	}
	for _, a := range in.Alerts {
		r.Alerts = append(r.Alerts, rulestate.Alert{
			Labels: labelsFromPB(a.GetLabels()), Annotations: labelsFromPB(a.GetAnnotations()), State: stateFromPB(a.GetState()),
			ActiveAt: timeFromPB(a.GetActiveAt()), KeepFiringSince: timeFromPB(a.GetHearthKeepFiringSince()),
			Value: a.GetValue(),
		})
	}
	return r
}

// stateFromPB reads a state. One that is not known is Unknown.
func stateFromPB(s thanospb.AlertState) rulestate.State {
	if s < 0 || s > thanospb.AlertState_FIRING {
		return rulestate.Unknown
	}
	return rulestate.State(s)
}

// seconds is a number of seconds of a peer as a duration. It is 0 for what is none.
func seconds(s float64) time.Duration {
	if d := s * float64(time.Second); d > math.MinInt64 && d < math.MaxInt64 {
		return time.Duration(d)
	}
	return 0
}

// timeFromPB is a time of a peer. It is zero for what is none: JSON has no years beyond 9999.
func timeFromPB(t *timestamppb.Timestamp) time.Time {
	if t == nil || !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}
