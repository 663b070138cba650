package main

import (
	"fmt"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// relabelRules reads the rules of --receive.relabel-config or its file. Without the flag there are none.
func (f *routeFlags) relabelRules() ([]*relabel.Config, error) {
	text, err := f.relabel.read()
	if err != nil {
		return nil, err
	}
	return parseRelabel(f.relabel.where(), text)
}

// parseRelabel reads relabelling rules, a list in YAML. name is what errors call it. The error names all faults as
// name:line: rule n: key: what is wrong. An empty text has no rules.
func parseRelabel(name string, text []byte) ([]*relabel.Config, error) {
	p := conf.Parser{Name: name}
	root := p.Document(text)
	if root == nil {
		return nil, p.Err()
	}
	if root.Kind != yaml.SequenceNode {
		p.Fault(root, "a list of rules is expected, each of which begins with -")
		return nil, p.Err()
	}
	var rules []*relabel.Config
	for i, n := range root.Content {
		where := fmt.Sprintf("rule %d: ", i+1)
		if conf.IsNull(n) {
			p.Fault(n, "%sis empty", where)
			continue
		}
		if !p.Check(n, where, relabel.Config{}) {
			continue
		}
		c := new(relabel.Config)
		err := n.Decode(c)
		if err == nil {
			err = c.Validate(model.UTF8Validation)
		}
		if err != nil {
			p.Fault(n, "%s%s", where, conf.Plain(err))
			continue
		}
		rules = append(rules, c)
	}
	return rules, p.Err()
}

// reloadRelabel has d take the rules that a file has by now, at each reload.
func (f *routeFlags) reloadRelabel(b *builder, d *distributor.Distributor) {
	if f.relabel.file == "" {
		return
	}
	var last errs.Last // of the last reload
	b.onReload("relabel rules", func() error {
		rules, err := f.relabelRules()
		if err == nil {
			err = d.SetRelabel(rules)
		}
		last.Set(err)
		return err
	}, last.Get)
}
