package rule

import (
	"cmp"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/rules"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// groupID names a group of a tenant.
type groupID struct {
	tenant          tenant.ID
	namespace, name string
}

func idOf(g *definition.Group) groupID { return groupID{g.Tenant, g.Namespace, g.Name} }

// key is the value of the label rule_group.
func (id groupID) key() string { return rules.GroupKey(id.namespace, id.name) }

// virtualFile stands for the file of the group in the hash of its slots: the same in all processes.
func (id groupID) virtualFile() string { return string(id.tenant) + "/" + id.namespace }

// compare orders groups.
func (id groupID) compare(o groupID) int {
	return cmp.Or(cmp.Compare(id.tenant, o.tenant), cmp.Compare(id.namespace, o.namespace), cmp.Compare(id.name, o.name))
}

// rule is a rule that runs.
type rule struct {
	// lib evaluates the rule. alert is lib if the rule is an alerting one, else nil. The library's alerting rule has no
	// labels and no annotations: they are expanded before it sees the samples (templates.expand).
	lib   rules.Rule
	alert *rules.AlertingRule
	// labels are those of the group and of the rule; annotations may be templates, too.
	labels, annotations labels.Labels
	expr                string // as the library prints it
	def                 rulefmt.Rule
	// disabled is why the rule is not evaluated; nil = it is.
	disabled atomic.Pointer[errs.Error]

	// previous are the series of the last evaluation whose samples were stored, by the bytes of their labels. Only the
	// evaluation uses it, and what follows.
	previous map[string]labels.Labels
	evals    int    // how many times it was evaluated
	fault    string // what the log says is wrong; "" = nothing
	unread   string // why its stored series could not be read

	mu sync.Mutex // guards the alerts of alert while they are changed
}

// text identifies what a rule does: rules with the same text give the same series and alerts.
func (r *rule) text() string {
	kind := "record"
	if r.alert != nil {
		kind = "alert"
	}
	return fmt.Sprintf("%s %q %q %s %s %s", kind, r.lib.Name(), r.expr, r.labels, r.def.For, r.def.KeepFiringFor)
}

// news notes what is wrong with the rule, "" = nothing, and reports whether the log does not say so yet. A fault that
// lasts is logged once, and not in each slot.
func (r *rule) news(fault string) bool {
	was := r.fault
	r.fault = fault
	return was != fault
}

// nameAndLabels is what a rule keeps when people change its expression or its durations.
func (r *rule) nameAndLabels() string {
	return fmt.Sprintf("%t %q %s", r.alert != nil, r.lib.Name(), r.labels)
}

// compile makes a group that can run. Its alerts are looked for in what was stored, unless adopt gives it some.
func compile(log *slog.Logger, def definition.Group, opts *Options) (*group, error) {
	id := idOf(&def)
	g := &group{
		id: id, def: def, log: log.With("tenant", string(id.tenant), "file", id.namespace, "group", id.name),
		offset: opts.QueryOffset, done: make(chan struct{}), ended: make(chan struct{}), opts: opts,
		sent: map[string]*sent{},
	}
	interval := time.Duration(def.Interval)
	if interval == 0 {
		interval = opts.Interval
	}
	if interval <= 0 {
		return nil, errs.E(errs.Invalid, "tenant %s: %s: group %q: interval %s: must be positive", id.tenant, id.namespace,
			id.name, interval)
	}
	g.grid = gridOf(id.virtualFile(), id.name, interval)
	if def.QueryOffset != nil {
		g.offset = time.Duration(*def.QueryOffset)
	}
	if g.tenants = def.SourceTenants; len(g.tenants) == 0 {
		g.tenants = []tenant.ID{id.tenant}
	}
	parser := expr.New(0)
	var lib []rules.Rule
	for i, d := range def.Rules {
		e, err := parser.ParseExpr(d.Expr)
		if err != nil {
			return nil, fmt.Errorf("tenant %s: %s: group %q: rule %d, %q: %w", id.tenant, id.namespace, id.name, i+1,
				d.Alert+d.Record, err)
		}
		r := &rule{def: d, expr: e.String(), labels: rules.FromMaps(def.Labels, d.Labels)}
		if d.Alert != "" {
			r.annotations = labels.FromMap(d.Annotations)
			r.alert = rules.NewAlertingRule(d.Alert, e, time.Duration(d.For), time.Duration(d.KeepFiringFor),
				labels.EmptyLabels(), labels.EmptyLabels(), labels.EmptyLabels(), "", false, g.log)
			r.lib = r.alert
		} else {
			r.lib = rules.NewRecordingRule(d.Record, e, r.labels)
		}
		g.rules = append(g.rules, r)
		lib = append(lib, r.lib)
	}
	dependencies.AnalyseRules(lib)
	g.batches = batchesOf(lib)
	return g, nil
}

// dependencies finds which rules of a group read what others of it write.
var dependencies = func() rules.RuleDependencyController {
	opts := &rules.ManagerOptions{}
	rules.NewManager(opts) // it fills in the only implementation
	return opts.RuleDependencyController
}()

// batchesOf are the rules of a group, by index, in batches of which each may be evaluated at once: first those that
// read no result of others, then one by one those that read and are read, then those that nobody reads. Where the
// library cannot tell, since an expression selects series without a name, each rule is a batch.
func batchesOf(lib []rules.Rule) (out [][]int) {
	var first, middle, last []int
	for i, r := range lib {
		switch {
		case r.NoDependencyRules():
			first = append(first, i)
		case r.NoDependentRules():
			last = append(last, i)
		default:
			middle = append(middle, i)
		}
	}
	if len(first) > 0 {
		out = append(out, first)
	}
	for _, i := range middle {
		out = append(out, []int{i})
	}
	if len(last) > 0 {
		out = append(out, last)
	}
	return out
}

// disableDuplicates disables rules that another group of the tenant has, too: both would write the same series, and one
// of the writes would fail in each slot for ever. The rule of the first of the groups stays. It gives what it found,
// for people.
func disableDuplicates(groups []*group) (found []string) {
	type owner struct {
		tenant  tenant.ID
		text    string
		sources string
		offset  time.Duration
	}
	owners := map[owner]*group{}
	for _, g := range groups {
		for i, r := range g.rules {
			o := owner{g.id.tenant, r.text(), fmt.Sprint(g.tenants), g.offset}
			first := owners[o]
			switch {
			case first == nil:
				owners[o] = g
				r.disabled.Store(nil)
			case first != g:
				why := errs.E(errs.Conflict, "disabled: group %q of %s has the same rule", first.id.name, first.id.namespace)
				r.disabled.Store(why.(*errs.Error))
				found = append(found, fmt.Sprintf("tenant %s: %s: group %q: rule %d, %q: %v", g.id.tenant, g.id.namespace,
					g.id.name, i+1, r.lib.Name(), why))
			}
		}
	}
	return found
}
