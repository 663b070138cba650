package rulestate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

var now = time.Unix(1_700_000_000, 0).UTC()

func recording(name string, ls ...string) Rule {
	return Rule{Name: name, Query: "up", Labels: labels.FromStrings(ls...), Health: "ok", LastEvaluation: now}
}

func alerting(name string, state State, at time.Time, ls ...string) Rule {
	r := recording(name, ls...)
	r.Alerting, r.State, r.LastEvaluation = true, state, at
	if state > Inactive {
		r.Alerts = []Alert{{Labels: labels.FromStrings("alertname", name), State: state, ActiveAt: at, Value: "1e+00"}}
	}
	return r
}

func group(id tenant.ID, file, name string, rules ...Rule) Group {
	return Group{Tenant: id, File: file, Name: name, Interval: time.Minute, Rules: rules, LastEvaluation: now}
}

// show prints groups as file;name@tenant[rule...].
func show(groups []Group) string {
	var parts []string
	for _, g := range groups {
		var rules []string
		for _, r := range g.Rules {
			text := r.Name + r.Labels.String()
			if r.Alerting {
				text += fmt.Sprintf("=%s/%d", r.State, len(r.Alerts))
			}
			rules = append(rules, text)
		}
		parts = append(parts, fmt.Sprintf("%s;%s@%s[%s]", g.File, g.Name, g.Tenant, strings.Join(rules, " ")))
	}
	return strings.Join(parts, " ")
}

func TestSelect(t *testing.T) {
	groups := []Group{
		group("t", "f", "g", recording("r", "team", "a"), alerting("A", Firing, now, "team", "b", "sev", "{{ $value }}")),
		group("t", "f", "h", recording("r")),
		group("t", "e", "g", alerting("B", Inactive, now)),
	}
	before := show(groups)
	f := func(q Query, want string) {
		t.Helper()
		if got := show(q.Select(groups)); got != want {
			t.Errorf("%+v selects\n%s, want\n%s", q, got, want)
		}
		if show(groups) != before {
			t.Fatalf("%+v has changed the groups", q)
		}
	}
	match := func(texts ...string) [][]*labels.Matcher {
		sets, err := ParseMatchers(texts)
		if err != nil {
			t.Fatal(err)
		}
		return sets
	}
	f(Query{}, before)
	f(Query{Type: Recording}, `f;g@t[r{team="a"}] f;h@t[r{}]`)
	f(Query{Type: Alerting}, `f;g@t[A{sev="{{ $value }}", team="b"}=firing/1] e;g@t[B{}=inactive/0]`)
	f(Query{Type: Alerting, ExcludeAlerts: true, Files: []string{"f"}},
		`f;g@t[A{sev="{{ $value }}", team="b"}=firing/0]`)
	f(Query{Names: []string{"r", "B"}, Groups: []string{"g"}}, `f;g@t[r{team="a"}] e;g@t[B{}=inactive/0]`)
	f(Query{Matchers: match(`{team="a"}`)}, `f;g@t[r{team="a"}]`)
	f(Query{Matchers: match(`{team="a"}`, `{team=~"b|c"}`), Type: Alerting}, `f;g@t[A{sev="{{ $value }}", team="b"}=firing/1]`)
	f(Query{Matchers: match(`{team=~".+",team!="b"}`)}, `f;g@t[r{team="a"}]`)
	f(Query{Matchers: match(`{sev=~".+"}`)}, "") // a template is no label yet
	for _, bad := range []string{"{", "{}", `{a=~"("}`, strings.Repeat("(", 300)} {
		if _, err := ParseMatchers([]string{bad}); errs.KindOf(err) != errs.Invalid && errs.KindOf(err) != errs.TooLarge {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	q := Query{Matchers: match(`{team="a",x!~"b\"c"}`, `{team=~"b|c"}`)}
	if texts := q.MatcherTexts(); show(Query{Matchers: match(texts...)}.Select(groups)) != show(q.Select(groups)) {
		t.Errorf("matchers as text: %q", texts)
	}
}

// TestMerge: each rule once, with the more critical state and then the later evaluation, in the order of its file.
func TestMerge(t *testing.T) {
	later := now.Add(time.Second)
	one := []Group{
		group("t", "f", "g", alerting("Z", Inactive, later, "replica", "1"), recording("r", "replica", "1"), recording("r", "replica", "1")),
		group("u", "f", "g", recording("u")),
	}
	two := []Group{
		group("t", "f", "g", alerting("Z", Firing, now, "replica", "2"), recording("r", "replica", "2"), recording("more")),
		group("t", "a", "g", recording("b")),
	}
	want := `a;g@t[b{}] f;g@t[Z{}=firing/1 r{} r{} more{}] f;g@u[u{}]`
	for _, lists := range [][][]Group{{one, two}} {
		if got := show(Merge([]string{"replica"}, lists...)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	want = `a;g@t[b{}] f;g@t[Z{replica="2"}=firing/1 r{replica="2"} more{} Z{replica="1"}=inactive/0 r{replica="1"} ` +
		`r{replica="1"}] f;g@u[u{}]`
	if got := show(Merge(nil, two, one)); got != want {
		t.Errorf("without replica labels: got %s, want %s", got, want)
	}
	two[0].LastEvaluation, two[0].EvaluationTime, two[0].Rules[1].LastEvaluation = later, 7, later
	got := Merge([]string{"replica"}, one, two)
	if g := got[1]; g.EvaluationTime != 7 || !g.Rules[1].LastEvaluation.Equal(later) {
		t.Errorf("the later evaluation does not count: %+v", g)
	}
}

// ask sends a request to handle.
func ask(handle func(http.ResponseWriter, *http.Request, View), v View, query string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handle(w, httptest.NewRequest(http.MethodGet, "/api/v1/rules?"+query, nil), v)
	return w
}

func TestHandleRules(t *testing.T) {
	v := View{Tenants: []tenant.ID{tenant.Default}, TenantLabel: "tenant_id", Source: Local(func() []Group {
		return []Group{
			group(tenant.Default, "f", "b", recording("r")),
			group(tenant.Default, "f", "a", alerting("A", Firing, now)),
			group(tenant.Default, "e", "c", recording("r")),
			group("other", "e", "c", alerting("B", Pending, now, "team", "x")),
			group(tenant.Default, "e", "empty"),
		}
	})}
	type answer struct {
		Data struct {
			Groups []struct{ File, Name string }
			Next   string `json:"groupNextToken"`
		}
		ErrorType string
	}
	f := func(query, want, errorType string) (next string) {
		t.Helper()
		w := ask(HandleRules, v, query)
		var a answer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, g := range a.Data.Groups {
			got = append(got, g.File+";"+g.Name)
		}
		if strings.Join(got, " ") != want || a.ErrorType != errorType || (w.Code == http.StatusBadRequest) != (errorType != "") {
			t.Errorf("%s: %d %q %s, want %q", query, w.Code, got, w.Body, want)
		}
		return a.Data.Next
	}
	f("", "e;c f;a f;b", "")
	f("type=alert", "f;a", "")
	f("type=ALERT", "f;a", "")
	f("rule_name[]=r&file[]=f", "f;b", "")
	f("rule_group[]=nothing", "", "")
	next := f("group_limit=2", "e;c f;a", "")
	if next = f("group_limit=2&group_next_token="+next, "f;b", ""); next != "" {
		t.Errorf("the last page names another one: %s", next)
	}
	f("group_limit=3", "e;c f;a f;b", "")
	f("type=record&group_limit=1", "e;c", "")
	for _, bad := range []string{"type=x", "group_limit=0", "group_limit=x", "group_next_token=1", "exclude_alerts=x",
		"group_limit=1&group_next_token=00", "match[]={}", "match[]=%25", "a=%zz"} {
		f(bad, "", "bad_data")
	}
	if w := ask(HandleRules, v, "type=record&rule_group[]=none"); !strings.Contains(w.Body.String(), `"groups":[]`) {
		t.Errorf("no groups: %s", w.Body)
	}

	v.Tenants = []tenant.ID{tenant.Default, "other"}
	for _, handle := range []func(http.ResponseWriter, *http.Request, View){HandleRules, HandleAlerts} {
		w := ask(handle, v, "")
		for _, want := range []string{`"tenant_id":"default-tenant"`, `"tenant_id":"other"`} {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("over two tenants: no %s in %s", want, w.Body)
			}
		}
	}
	failed := errs.E(errs.Unavailable, "no answer")
	v.Source = failing{failed}
	if w := ask(HandleRules, v, ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a source that fails: %d", w.Code)
	}
	if w := ask(HandleAlerts, v, ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a source that fails: %d", w.Code)
	}
}

// TestReadAnswer: what HandleRules writes is read as it was.
func TestReadAnswer(t *testing.T) {
	rule := alerting("A", Firing, now, "team", "x")
	rule.For, rule.KeepFiringFor, rule.LastError = 90*time.Second, time.Minute, "e"
	rule.Annotations = labels.FromStrings("summary", "s")
	rule.Alerts[0].KeepFiringSince, rule.Alerts[0].Annotations = now.Add(time.Second), rule.Annotations
	g := group("", "f", "g", rule, alerting("B", Unknown, now), recording("r", "team", "y"))
	g.Limit, g.EvaluationTime, g.Rules[2].EvaluationTime = 7, 1500*time.Millisecond, 250*time.Millisecond
	w := ask(HandleRules, View{Tenants: []tenant.ID{""}, Source: Local(func() []Group { return []Group{g} })}, "")
	var a struct{ Data struct{ Groups []Group } }
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a.Data.Groups, []Group{g}) {
		t.Errorf("got\n%+v, want\n%+v", a.Data.Groups, g)
	}
}

type failing struct{ err error }

func (f failing) Rules(context.Context, tenant.ID, Query) ([]Group, []string, error) {
	return nil, nil, f.err
}

// TestLocal: groups of other tenants are not seen, and "" means all tenants.
func TestLocal(t *testing.T) {
	all := []Group{group("a", "f", "g", recording("r")), group("b", "f", "g", recording("r"))}
	l := Local(func() []Group { return all })
	for id, want := range map[tenant.ID]int{"a": 1, "b": 1, "c": 0, "": 2} {
		got, _, err := l.Rules(t.Context(), id, Query{})
		foreign := func(g Group) bool { return id != "" && g.Tenant != id }
		if len(got) != want || err != nil || slices.ContainsFunc(got, foreign) {
			t.Errorf("%q: %s, %v", id, show(got), err)
		}
	}
}
