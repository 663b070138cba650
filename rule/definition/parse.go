package definition

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/template"
)

// Bounds on texts, in bytes.
const (
	// MaxFileBytes is the largest file of groups, and MaxGroupBytes the largest text of one group that a client sends.
	// Each is also how large the text may become when its aliases are written out.
	MaxFileBytes, MaxGroupBytes = 16 << 20, 1 << 20
	// MaxTemplateBytes is the largest label or annotation of an alerting rule. Both are templates.
	MaxTemplateBytes = 32 << 10
)

// leastInterval is the shortest interval of a group, whatever limits say.
const leastInterval = model.Duration(time.Second)

// Parsed is what the text of some groups says.
type Parsed struct {
	// Groups are all groups, without tenant and namespace. They are checked only if there are no Faults.
	Groups []Group
	// Faults and Doubts are what is wrong. Each names the group, the rule and the line where these are known. Thanos's
	// rules-check passes Doubts, and a ruler does not.
	Faults, Doubts []error
}

// Err joins Faults and Doubts, as an error of kind Invalid; nil = there are none.
func (p *Parsed) Err() error {
	return errs.Wrap(errs.Invalid, errors.Join(append(p.Faults[:len(p.Faults):len(p.Faults)], p.Doubts...)...))
}

// Rules is how many rules there are.
func (p *Parsed) Rules() (n int) {
	for _, g := range p.Groups {
		n += len(g.Rules)
	}
	return n
}

// groupText is a group as texts have it: Prometheus's, with what Thanos, Mimir and Cortex add.
type groupText struct {
	rulefmt.RuleGroup `yaml:",inline"`
	Strategy          string   `yaml:"partial_response_strategy,omitempty"`
	SourceTenants     []string `yaml:"source_tenants,omitempty"`
	// EvaluationDelay is Mimir's old name of query_offset.
	EvaluationDelay *model.Duration `yaml:"evaluation_delay,omitempty"`
	// Align is Mimir's. Groups are evaluated at times that do not depend on the start of a process in any case.
	Align bool `yaml:"align_evaluation_time_on_interval,omitempty"`
}

// groupNode is where in the text a group and its rules are.
type groupNode struct {
	Name  yaml.Node          `yaml:"name"`
	Rules []rulefmt.RuleNode `yaml:"rules"`
}

// ParseFile reads the first document of a file of groups. Keys that are not known are faults.
func ParseFile(text []byte) Parsed {
	var file struct {
		Groups []groupText `yaml:"groups"`
	}
	var places struct {
		Groups []groupNode `yaml:"groups"`
	}
	if err := decode(text, MaxFileBytes, &file, &places); err != nil {
		return Parsed{Faults: []error{err}}
	}
	return check(file.Groups, places.Groups)
}

// ParseGroup reads the text of one group, as a client sends it. Keys that are not known are faults.
func ParseGroup(text []byte) (Group, error) {
	var group groupText
	var place groupNode
	if err := decode(text, MaxGroupBytes, &group, &place); err != nil {
		return Group{}, errs.E(errs.Invalid, "the group cannot be read: %w", err)
	}
	p := check([]groupText{group}, []groupNode{place})
	return p.Groups[0], p.Err()
}

// decode reads the first document of text into to, and into places what becomes of its lines. An empty text changes
// nothing.
func decode(text []byte, limit int, to, places any) error {
	if len(text) > limit {
		return errs.E(errs.TooLarge, "the text has %d bytes, and may have %d", len(text), limit)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return err
	}
	if size := writtenOut(&root, map[*yaml.Node]int{}, limit); size > limit {
		return errs.E(errs.TooLarge, "the text becomes larger than %d bytes when its aliases are written out", limit)
	}
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(to); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return root.Decode(places)
}

// writtenOut is about how many bytes n takes when its aliases are written out, or any number above limit. sizes are
// those of nodes that are known already; a node that holds itself is above every limit.
func writtenOut(n *yaml.Node, sizes map[*yaml.Node]int, limit int) int {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
		if size, known := sizes[n]; known {
			return size
		}
	}
	if n.Anchor != "" {
		sizes[n] = limit + 1 // until it is known: the node may hold an alias of itself
	}
	size := len(n.Value) + 1
	for _, item := range n.Content {
		if size += writtenOut(item, sizes, limit); size > limit {
			break // the size may have any value above limit, and must not overflow
		}
	}
	if n.Anchor != "" {
		sizes[n] = size
	}
	return size
}

// check makes groups of their texts, and finds what is wrong with them.
func check(texts []groupText, places []groupNode) (p Parsed) {
	lines := map[string]int{} // of groups, by name
	for i, text := range texts {
		var at groupNode
		if i < len(places) {
			at = places[i]
		}
		g, err := text.group()
		if err != nil {
			p.Faults = append(p.Faults, fmt.Errorf("group %q: %w", g.Name, err))
		}
		p.Groups = append(p.Groups, g)
		p.check(&g, at)
		if before, twice := lines[g.Name]; twice {
			p.Doubts = append(p.Doubts, fmt.Errorf("line %d: there is a group %q in line %d, too: Prometheus refuses such "+
				"a file", at.Name.Line, g.Name, before))
		}
		lines[g.Name] = at.Name.Line
	}
	return p
}

// group is the group that the text says. With an error it is what could be read.
func (t *groupText) group() (Group, error) {
	g := Group{RuleGroup: t.RuleGroup}
	if g.QueryOffset == nil {
		g.QueryOffset = t.EvaluationDelay
	}
	var err, bad error
	g.PartialResponse, err = ParseStrategy(t.Strategy)
	if g.SourceTenants, bad = parseTenants(t.SourceTenants); bad != nil {
		err = errors.Join(err, fmt.Errorf("source_tenants: %w", bad))
	}
	return g, err
}

// check finds what is wrong with a group.
func (p *Parsed) check(g *Group, at groupNode) {
	if g.Name == "" {
		p.Faults = append(p.Faults, errors.New("a group has no name"))
	}
	for _, err := range groupFaults(g) {
		p.Doubts = append(p.Doubts, fmt.Errorf("line %d: group %q: %w", at.Name.Line, g.Name, err))
	}
	parser := expr.New(0)
	for i := range g.Rules {
		var node rulefmt.RuleNode
		if i < len(at.Rules) {
			node = at.Rules[i]
		}
		r := &g.Rules[i]
		name := r.Alert + r.Record
		if err := templateBounds(r); err != nil { // before Validate, which parses templates
			p.Doubts = append(p.Doubts, fmt.Errorf("line %d: group %q, rule %d, %q: %w", node.Expr.Line, g.Name, i+1, name,
				err))
			continue
		}
		for _, err := range r.Validate(node, model.UTF8Validation, parser) {
			p.Faults = append(p.Faults, &rulefmt.Error{Group: g.Name, Rule: i + 1, RuleName: name, Err: err})
		}
	}
}

// groupFaults are what is wrong with a group apart from its name and its rules.
func groupFaults(g *Group) (all []error) {
	switch {
	case g.Interval < 0:
		all = append(all, fmt.Errorf("interval %s must not be negative", time.Duration(g.Interval)))
	case g.Interval > 0 && g.Interval < leastInterval:
		all = append(all, fmt.Errorf("interval %s is shorter than %s", g.Interval, leastInterval))
	}
	if g.QueryOffset != nil && *g.QueryOffset < 0 {
		all = append(all, fmt.Errorf("query_offset %s must not be negative", time.Duration(*g.QueryOffset)))
	}
	for name, value := range g.Labels {
		if !model.UTF8Validation.IsValidLabelName(name) || name == model.MetricNameLabel {
			all = append(all, fmt.Errorf("invalid label name: %s", name))
		}
		if !model.LabelValue(value).IsValid() {
			all = append(all, fmt.Errorf("invalid label value: %s", value))
		}
	}
	return all
}

// templateBounds is an error if a template is too large, or nested too deep.
func templateBounds(r *rulefmt.Rule) error {
	if r.Alert == "" {
		return nil
	}
	for what, texts := range map[string]map[string]string{"label": r.Labels, "annotation": r.Annotations} {
		for name, text := range texts {
			if len(text) > MaxTemplateBytes {
				return fmt.Errorf("%s %q has %d bytes, and may have %d", what, name, len(text), MaxTemplateBytes)
			}
			if err := template.Check(text); err != nil {
				return fmt.Errorf("%s %q: %w", what, name, err)
			}
		}
	}
	return nil
}

// parseTenants validates names of tenants, and returns them sorted, each once.
func parseTenants(names []string) (ids []tenant.ID, _ error) {
	for _, name := range names {
		id, err := tenant.Parse(name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Check finds what is wrong with a group that no text was parsed for, as an error of kind Invalid. It sorts the
// SourceTenants of the group that it returns.
func Check(g Group) (Group, error) {
	slices.Sort(g.SourceTenants)
	g.SourceTenants = slices.Compact(g.SourceTenants)
	var p Parsed
	p.check(&g, groupNode{})
	err := p.Err()
	if err != nil { // there are no lines
		err = errs.E(errs.Invalid, "%s", strings.NewReplacer("0:0: ", "", "line 0: ", "").Replace(err.Error()))
	}
	return g, err
}
