package main

import (
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/hearth-metrics/hearth/distributor"
)

// relabelRules reads the rules of --receive.relabel-config or its file; none is none.
func (f *routeFlags) relabelRules() ([]*relabel.Config, error) {
	text, err := f.relabel.read()
	if err != nil {
		return nil, err
	}
	return distributor.ParseRelabel(f.relabel.where(), text)
}

// reloadRelabel has d take the rules that a file has by now, at each reload.
func (f *routeFlags) reloadRelabel(b *builder, d *distributor.Distributor) {
	if f.relabel.file == "" {
		return
	}
	b.onReload(func() error {
		rules, err := f.relabelRules()
		if err != nil {
			return err
		}
		return d.SetRelabel(rules)
	})
}
