package definition

import (
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// MarshalYAML is the group as a client sends it and gets it: without tenant and namespace.
func (g Group) MarshalYAML() (any, error) {
	t := groupText{RuleGroup: g.RuleGroup}
	if g.PartialResponse != Abort {
		t.Strategy = g.PartialResponse.String()
	}
	for _, id := range g.SourceTenants {
		t.SourceTenants = append(t.SourceTenants, string(id))
	}
	return t, nil
}

// Text is the group as YAML that ParseGroup reads.
func (g Group) Text() ([]byte, error) {
	text, err := yaml.Marshal(g)
	return text, errs.Wrap(errs.Internal, err)
}
