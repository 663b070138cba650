package main

import (
	"sync/atomic"

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
	var last atomic.Pointer[error] // of the last reload; nil before the first one
	b.onReload("relabel rules", func() error {
		rules, err := f.relabelRules()
		if err == nil {
			err = d.SetRelabel(rules)
		}
		last.Store(&err)
		return err
	}, func() error {
		if err := last.Load(); err != nil {
			return *err
		}
		return nil
	})
}
