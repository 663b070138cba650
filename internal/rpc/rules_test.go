package rpc

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// someRules are groups with every field set, of two tenants.
func someRules() []rulestate.Group {
	at := time.Unix(1_700_000_000, 5000).UTC()
	rules := []rulestate.Rule{
		{
			Alerting: true, State: rulestate.Firing, For: time.Minute, KeepFiringFor: time.Second, Name: "A", Query: "up == 0",
			Annotations: labels.FromStrings("summary", "{{ $value }}"), Labels: labels.FromStrings("team", "x"),
			Alerts: []rulestate.Alert{{
				Labels: labels.FromStrings("alertname", "A"), Annotations: labels.FromStrings("summary", "1"),
				State: rulestate.Firing, ActiveAt: at, KeepFiringSince: at.Add(time.Second), Value: "1e+00",
			}},
			Health: "ok", EvaluationTime: time.Millisecond, LastEvaluation: at,
		},
		{Name: "r", Query: "up", Labels: labels.FromStrings("a", "b"), Health: "err", LastError: "no", LastEvaluation: at},
	}
	g := rulestate.Group{Tenant: tenant.Default, Name: "g", File: "f", Interval: time.Minute, Limit: 3, Warn: true,
		EvaluationTime: time.Second, LastEvaluation: at, Rules: rules}
	other := rulestate.Group{Tenant: "other", Name: "g", File: "f", Rules: rules[1:]}
	return []rulestate.Group{g, other}
}

// TestRules: a Hearth process gets the groups of the tenant that it names, unchanged and selected.
func TestRules(t *testing.T) {
	all := someRules()
	addr := serve(t, func(s *Server) {
		RegisterStore(s, Store{Rules: rulestate.Local(func() []rulestate.Group { return all })})
	})
	c := dial(t, addr, ClientOptions{Instance: "i"})
	info, err := c.Info(context.Background())
	if err != nil || info.Role != series.RoleRule || info.MinTime <= info.MaxTime {
		t.Errorf("info: %+v, %v", info, err)
	}
	f := func(id tenant.ID, q rulestate.Query) {
		t.Helper()
		want, _, _ := rulestate.Local(func() []rulestate.Group { return all }).Rules(context.Background(), id, q)
		got, warnings, err := c.Rules(context.Background(), id, q)
		if err != nil || warnings != nil || asJSON(t, got) != asJSON(t, want) {
			t.Errorf("%s %+v: %v\n%s, want\n%s", id, q, err, asJSON(t, got), asJSON(t, want))
		}
	}
	matchers, err := rulestate.ParseMatchers([]string{`{a="b"}`, `{team=~"y|z"}`})
	if err != nil {
		t.Fatal(err)
	}
	f(tenant.Default, rulestate.Query{})
	f("other", rulestate.Query{})
	f("nobody", rulestate.Query{})
	f(tenant.Default, rulestate.Query{Type: rulestate.Alerting, ExcludeAlerts: true, Names: []string{"A"}})
	f(tenant.Default, rulestate.Query{Type: rulestate.Recording, Groups: []string{"g"}, Files: []string{"f"}})
	f(tenant.Default, rulestate.Query{Matchers: matchers})
	none := dial(t, serve(t, func(s *Server) {
		RegisterStore(s, Store{Sources: map[string]series.Source{"store": &sourcetest.Memory{}}})
	}), ClientOptions{})
	if got, _, err := none.Rules(context.Background(), tenant.Default, rulestate.Query{}); err != nil || got != nil {
		t.Errorf("of a process without rules: %v, %v", got, err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRulesOfThanos: a process that looks like Thanos gives rules with external labels. They go to the tenant that
// these name, without the labels of tenant and replica.
func TestRulesOfThanos(t *testing.T) {
	for _, all := range []bool{true, false} {
		addr := serve(t, func(s *Server) {
			registerForeign(s, Store{
				Sources: map[string]series.Source{"rule": &sourcetest.Memory{Data: map[tenant.ID][]sourcetest.Series{
					tenant.Default: nil, "other": nil}}},
				Rules:   rulestate.Local(someRules),
				Tenants: Tenants{All: all},
				External: func(id tenant.ID) labels.Labels {
					return labels.FromStrings("cluster", "c", "receive_replica", "r", "tenant_id", string(id))
				},
			}, true)
		})
		c := dial(t, addr, ClientOptions{})
		f := func(id tenant.ID, q rulestate.Query, want ...string) {
			t.Helper()
			groups, _, err := c.Rules(context.Background(), id, q)
			var got []string
			for _, g := range groups {
				for _, r := range g.Rules {
					got = append(got, string(g.Tenant)+r.Name+r.Labels.String())
				}
			}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %q, %v; want %q", id, got, err, want)
			}
		}
		f(tenant.Default, rulestate.Query{}, `default-tenantA{cluster="c", team="x"}`, `default-tenantr{a="b", cluster="c"}`)
		f(tenant.Default, rulestate.Query{Names: []string{"A"}}, `default-tenantA{cluster="c", team="x"}`)
		if all {
			f("other", rulestate.Query{}, `otherr{a="b", cluster="c"}`)
		} else {
			f("other", rulestate.Query{})
		}
		f("nobody", rulestate.Query{})
	}
}

// TestRulesMatchExternal: matchers of a Thanos caller see the labels that it gets.
func TestRulesMatchExternal(t *testing.T) {
	addr := serve(t, func(s *Server) { RegisterStore(s, Store{Rules: rulestate.Local(someRules)}) })
	c := dial(t, addr, ClientOptions{})
	f := func(want int, matchers ...string) {
		t.Helper()
		frame, n := new(thanospb.RulesResponse), 0
		req := &thanospb.RulesRequest{MatcherString: matchers}
		err := c.each(context.Background(), "/"+serviceRules+"/Rules", req, frame, func() error {
			n += len(frame.GetGroup().GetRules())
			frame.Reset()
			return nil
		})
		if err != nil || n != want {
			t.Errorf("%q: %d rules, %v; want %d", matchers, n, err, want)
		}
	}
	f(2)
	f(2, `{tenant_id="default-tenant"}`)
	f(1, `{tenant_id="default-tenant",a="b"}`)
	f(0, `{tenant_id="x"}`)
	req := &thanospb.RulesRequest{MatcherString: []string{strings.Repeat("(", 1000)}}
	err := c.each(context.Background(), "/"+serviceRules+"/Rules", req, new(thanospb.RulesResponse),
		func() error { return nil })
	if kind := errs.KindOf(err); kind != errs.Invalid && kind != errs.TooLarge {
		t.Errorf("a matcher that is none: %v", err)
	}
	req = &thanospb.RulesRequest{Type: 17}
	err = c.each(context.Background(), "/"+serviceRules+"/Rules", req, new(thanospb.RulesResponse),
		func() error { return nil })
	if errs.KindOf(err) != errs.Invalid {
		t.Errorf("a type that is none: %v", err)
	}
}

// FuzzRules: no bytes of a peer are a panic, and what is read can be shown as JSON.
func FuzzRules(f *testing.F) {
	for _, g := range someRules() {
		raw, err := ruleGroupToPB(&g).MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var frame thanospb.RulesResponse
		if frame.UnmarshalVT(raw) != nil || frame.GetGroup() == nil {
			return
		}
		g := ruleGroupFromPB(tenant.Default, frame.GetGroup())
		if _, err := json.Marshal(g); err != nil {
			t.Fatal(err)
		}
		again := ruleGroupToPB(&g)
		if back := ruleGroupFromPB(tenant.Default, again.GetGroup()); len(back.Rules) != len(g.Rules) || back.Name != g.Name {
			t.Fatalf("%+v becomes %+v", g, back)
		}
	})
}
