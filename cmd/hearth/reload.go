package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

// reload reads all files again for which that is possible. A file that is not valid changes nothing.
func (p *process) reload(by string) error {
	var faults []error
	for _, f := range p.reloads {
		faults = append(faults, f())
	}
	err := errors.Join(faults...)
	if err != nil {
		p.log.Error("reload: files are not valid; the last good ones stay in force", "by", by, "err", err)
	} else {
		p.log.Info("reloaded", "by", by)
	}
	return err
}

// reloadAt reloads for each signal, until signals is closed.
func (p *process) reloadAt(signals <-chan os.Signal) {
	for s := range signals {
		select {
		case <-p.serving:
			_ = p.reload(s.String()) // which logs its error
		default: // the parts are still opening, and have just read their files
		}
	}
}

// reloadRoute serves POST /-/reload (and PUT, as Prometheus does).
func (p *process) reloadRoute() httpx.Route {
	return httpx.Route{Pattern: "/-/reload", Class: httpx.Operator, Handler: httpx.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		if r.Method != http.MethodPost && r.Method != http.MethodPut {
			w.Header().Set("Allow", "POST, PUT")
			httpx.WriteStatus(w, r, http.StatusMethodNotAllowed, errs.E(errs.Unsupported, "method %s: reload with POST",
				r.Method))
			return
		}
		if err := p.reload(r.Method + " /-/reload"); err != nil {
			httpx.WriteError(w, r, fmt.Errorf("not reloaded, the last good files stay in force: %w", err))
			return
		}
		w.WriteHeader(http.StatusOK)
	})}
}
