package rulefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/expr"
)

// Checked is what Check found in a file.
type Checked struct {
	// Rules is how many rules the file has.
	Rules int
	// Faults are what keeps the file from being loaded. Each names the line where that is known.
	Faults []error
	// Doubts are what is most likely a mistake.
	Doubts []string
}

// group is a group of rules: Prometheus's, with what Thanos adds.
type group struct {
	rulefmt.RuleGroup `yaml:",inline"`
	Strategy          string `yaml:"partial_response_strategy"`
}

// groupNode is where in the file a group and its rules are.
type groupNode struct {
	Name  yaml.Node          `yaml:"name"`
	Rules []rulefmt.RuleNode `yaml:"rules"`
}

// Check reads the first document of a file. Keys that are not known are faults.
func Check(content []byte) (c Checked) {
	var file struct {
		Groups []group `yaml:"groups"`
	}
	strict := yaml.NewDecoder(bytes.NewReader(content))
	strict.KnownFields(true)
	if err := strict.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		c.Faults = []error{err}
		return c
	}
	var places struct {
		Groups []groupNode `yaml:"groups"`
	}
	_ = yaml.Unmarshal(content, &places) // it was decoded once
	lines := map[string]int{}            // of groups, by name
	for i, g := range file.Groups {
		var at groupNode
		if i < len(places.Groups) {
			at = places.Groups[i]
		}
		c.Faults = append(c.Faults, faults(g, at)...)
		c.Rules += len(g.Rules)
		if before, twice := lines[g.Name]; twice {
			c.Doubts = append(c.Doubts, fmt.Sprintf("line %d: there is a group %q in line %d, too: Prometheus refuses such "+
				"a file", at.Name.Line, g.Name, before))
		}
		lines[g.Name] = at.Name.Line
	}
	return c
}

// faults are what is wrong with a group.
func faults(g group, at groupNode) (all []error) {
	if g.Name == "" {
		all = append(all, errors.New("a group has no name"))
	}
	switch strings.ToUpper(g.Strategy) {
	case "", "WARN", "ABORT":
	default:
		all = append(all, fmt.Errorf("group %q: partial_response_strategy %q: want warn or abort", g.Name, g.Strategy))
	}
	parser := expr.New(0)
	for i := range g.Rules {
		var node rulefmt.RuleNode
		if i < len(at.Rules) {
			node = at.Rules[i]
		}
		for _, err := range g.Rules[i].Validate(node, model.UTF8Validation, parser) {
			all = append(all, &rulefmt.Error{Group: g.Name, Rule: i + 1, RuleName: g.Rules[i].Alert + g.Rules[i].Record,
				Err: err})
		}
	}
	return all
}
