package definition

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

const whole = `
groups:
- name: g
  interval: 30s
  query_offset: 1m
  limit: 7
  labels: {team: a}
  partial_response_strategy: Warn
  source_tenants: [b, a, b]
  rules:
  - {record: "a:b", expr: up, labels: {x: y}}
  - alert: A
    expr: up == 0
    for: 5m
    keep_firing_for: 1m
    labels: {severity: "{{ $value }}"}
    annotations: {summary: "{{ $labels.job }}"}
- name: h
  evaluation_delay: 2m
  align_evaluation_time_on_interval: true
  rules: []
`

// TestParseFile: all that Prometheus, Thanos and Mimir have is read.
func TestParseFile(t *testing.T) {
	p := ParseFile([]byte(whole))
	if err := p.Err(); err != nil || len(p.Groups) != 2 || p.Rules() != 2 {
		t.Fatalf("%+v", p)
	}
	g, h := p.Groups[0], p.Groups[1]
	if g.Name != "g" || time.Duration(g.Interval) != 30*time.Second || time.Duration(*g.QueryOffset) != time.Minute ||
		g.Limit != 7 || g.Labels["team"] != "a" || g.PartialResponse != Warn ||
		!reflect.DeepEqual(g.SourceTenants, []tenant.ID{"a", "b"}) || g.Rules[1].KeepFiringFor != model.Duration(time.Minute) {
		t.Errorf("%+v", g)
	}
	if h.PartialResponse != Abort || time.Duration(*h.QueryOffset) != 2*time.Minute || h.SourceTenants != nil {
		t.Errorf("%+v", h)
	}
}

// TestText: a group as text is the same group again.
func TestText(t *testing.T) {
	for _, g := range ParseFile([]byte(whole)).Groups {
		text, err := g.Text()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseGroup(text)
		if err != nil || !reflect.DeepEqual(again, g) {
			t.Errorf("%v:\n%s\n%+v, want\n%+v", err, text, again, g)
		}
		if strings.Contains(string(text), "evaluation_delay") {
			t.Errorf("an old name is written: %s", text)
		}
	}
}

// TestFaults: an error names the line, the group and the rule.
func TestFaults(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		p := ParseFile([]byte(text))
		err := p.Err()
		if errs.KindOf(err) != errs.Invalid {
			t.Fatalf("%q: %v", text, err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%.200q: %v lacks %q", text, err, w)
			}
		}
	}
	rule := func(text string) string {
		return "groups:\n- name: g\n  rules:\n  - {record: ok, expr: up}\n  - " + text
	}
	f(rule("{record: r, expr: 'sum('}"), "5:", `group "g", rule 2, "r"`, "parse")
	f(rule("{alert: A, expr: up, annotations: {a: '{{ nonsense }}'}}"), `group "g", rule 2, "A"`, `annotation "a"`, "nonsense")
	f(rule("{alert: A, expr: up, labels: {a: '{{'}}"), `group "g", rule 2, "A"`, `label "a"`)
	f(rule("{record: 'a{b}', expr: up}"), "5:", "braces")
	f(rule("{record: r, expr: up, labels: {__name__: x}}"), `rule 2, "r"`, "invalid label name: __name__")
	f(rule("{record: r, expr: up, nonsense: x}"), "line 5", "nonsense")
	f(rule("{record: r, expr: '"+strings.Repeat("-", 300)+"1'}"), `rule 2, "r"`, "levels deep")
	f(rule("{record: r, expr: 'x{a=~\""+strings.Repeat("(a|b){100}", 200)+"\"}'}"), `rule 2, "r"`)
	f(rule("{alert: A, expr: up, annotations: {a: '"+strings.Repeat("x", MaxTemplateBytes+1)+"'}}"), "line 5",
		`rule 2, "A"`, `annotation "a" has 32769 bytes`)
	f("groups: [{name: '', rules: []}]", "no name")
	f("groups: [{name: g, labels: {__name__: x}}]", `line 1: group "g"`, "__name__")
	f("groups: [{name: g, interval: 10ms}]", `group "g"`, "shorter than 1s")
	f("groups: [{name: g, partial_response_strategy: maybe}]", `group "g"`, `"maybe"`)
	f("groups: [{name: g, source_tenants: [a/b]}]", `group "g": source_tenants`, "a/b")
	f("groups: [{name: g}, {name: h},\n {name: g}]", `line 2: there is a group "g" in line 1, too`)
	f("a: b", "line 1", "field a not found")
	f("[", "line 1")
	f("groups: [{name: g}]\ngroups: []", "already defined")
	f(strings.Repeat("#", MaxFileBytes+1), "has 16777217 bytes")
}

// TestBombs: aliases that make a text large, or endless, are refused before anything is made of them.
func TestBombs(t *testing.T) {
	laughs := "x: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
	for i := range 12 {
		laughs += fmt.Sprintf("y%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i+1, i, i, i, i, i, i, i, i, i)
	}
	long := "x: &a " + strings.Repeat("x", 1<<19) + "\ny: [*a, *a, *a]\n"
	for name, text := range map[string]string{
		"billion laughs": laughs, "three times half a MiB": long, "itself": "x: &a [*a]\n",
		"each other": "x: &a [&b [*a], *b]\n", "rules": "name: g\nrules: &r [*r]\n",
	} {
		_, err := ParseGroup([]byte(text))
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "aliases are written out") {
			t.Errorf("%s: %v", name, err)
		}
	}
	anchored := "name: g\nrules:\n- &r {record: a, expr: up}\n- {<<: *r, record: b}\n- *r\n"
	if g, err := ParseGroup([]byte(anchored)); err != nil || len(g.Rules) != 3 || g.Rules[1].Record != "b" {
		t.Errorf("aliases of people: %+v, %v", g, err)
	}
	deep := strings.Repeat("[", 20_000)
	if _, err := ParseGroup([]byte(deep)); err == nil {
		t.Error("20,000 brackets are a group")
	}
}

func TestLimits(t *testing.T) {
	p := ParseFile([]byte(whole))
	g := p.Groups[0]
	g.Tenant, g.Namespace = "acme", "file.yml"
	f := func(kind errs.Kind, want string, change func(*tenant.Limits)) {
		t.Helper()
		l := tenant.DefaultLimits()
		l.RuleSourceTenants = []string{"*"}
		change(&l)
		err := g.CheckLimits(&l)
		if errs.KindOf(err) != kind || kind != errs.OK && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if kind != errs.OK && !strings.Contains(err.Error(), `tenant acme, group "g" in "file.yml"`) {
			t.Errorf("%v does not say whose group it is", err)
		}
	}
	f(errs.OK, "", func(*tenant.Limits) {})
	f(errs.OK, "", func(l *tenant.Limits) { l.RulesPerGroup, l.RuleInterval = 2, model.Duration(30*time.Second) })
	f(errs.Invalid, "has 2 rules, and may have 1 (limit rules_per_group)", func(l *tenant.Limits) { l.RulesPerGroup = 1 })
	f(errs.Invalid, "limit rule_interval", func(l *tenant.Limits) { l.RuleInterval = model.Duration(time.Minute) })
	f(errs.Forbidden, "tenant a (limit rule_source_tenants)", func(l *tenant.Limits) { l.RuleSourceTenants = []string{"b"} })
	g.SourceTenants = []tenant.ID{"acme"}
	f(errs.OK, "", func(l *tenant.Limits) { l.RuleSourceTenants = nil })
	l := tenant.DefaultLimits()
	l.RuleGroups = 3
	if CheckCount("acme", 3, &l) != nil || errs.KindOf(CheckCount("acme", 4, &l)) != errs.Invalid {
		t.Error("rule_groups does not bound the groups")
	}
}

// FuzzParse: no text is a panic, and what is accepted is the same group when it is written and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("name: g\nrules: [{record: a, expr: up}]\n"))
	f.Add([]byte("x: &a [*a]"))
	f.Add([]byte("name: !!binary /w==\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := ParseFile(text)
		_ = p.Err()
		g, err := ParseGroup(text)
		if err != nil {
			if errs.KindOf(err) != errs.Invalid {
				t.Fatalf("of kind %s: %v", errs.KindOf(err), err)
			}
			return
		}
		again, err := g.Text()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseGroup(again)
		if err != nil || len(back.Rules) != len(g.Rules) || back.Name != g.Name {
			if tooLarge := new(errs.Error); errors.As(err, &tooLarge) && strings.Contains(err.Error(), "may have") {
				return // writing may make it larger
			}
			t.Fatalf("%v: %+v becomes %s", err, g, again)
		}
	})
}
