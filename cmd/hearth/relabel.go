package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/distributor"
)

// relabelRules reads the rules of --receive.relabel-config or its file; none is none.
func (f *routeFlags) relabelRules() ([]*relabel.Config, error) {
	text, err := f.relabel.read()
	if err != nil {
		return nil, err
	}
	var rules []*relabel.Config
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err = decoder.Decode(&rules); errors.Is(err, io.EOF) { // nothing but comments
		err = nil
	}
	if err == nil {
		err = distributor.ValidateRelabel(rules)
	}
	if err != nil {
		return nil, fmt.Errorf("--receive.relabel-config: %w", err)
	}
	return rules, nil
}

// reloadRelabel has d take the rules that a file has by now, at each reload.
func (f *routeFlags) reloadRelabel(p *process, d *distributor.Distributor) {
	if f.relabel.file == "" {
		return
	}
	p.onReload(func() error {
		rules, err := f.relabelRules()
		if err != nil {
			return err
		}
		return d.SetRelabel(rules)
	})
}
