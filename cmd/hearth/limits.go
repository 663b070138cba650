package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/tenant/overrides"
)

// limitFlags say what tenants may do.
type limitFlags struct {
	opts     overrides.Options
	thanos   content
	defaults []string
}

func (f *limitFlags) bind(c *kingpin.CmdClause) {
	f.bindOwn(c)
	f.thanos.bind(c, "receive.limits-config", "Thanos's limits as YAML. --runtime-config.file wins over them, key by key.")
	durationFlag(c, "receive.limits-config-reload-timer", "How long to wait, after a limits file began to change, "+
		"until it is read.", &f.opts.Settle)
}

// bindOwn adds what a process needs that only asks others for data.
func (f *limitFlags) bindOwn(c *kingpin.CmdClause) {
	f.opts = overrides.DefaultOptions()
	c.Flag("runtime-config.file", "YAML file of limits: defaults and per tenant. Read again when it changes, at SIGHUP "+
		"and at POST /-/reload.").
		PlaceHolder("FILE").StringVar(&f.opts.File)
	durationFlag(c, "runtime-config.reload-period", "How often limits files are read, besides when they change.",
		&f.opts.Interval)
	c.Flag("limits.default", "KEY=VALUE: a limit of every tenant, with the keys of --runtime-config.file, which wins. "+
		"May be given several times.").
		PlaceHolder("KEY=VALUE").StringsVar(&f.defaults)
}

// tenantLimits are the limits of tenants over the whole cluster, and what part of it this process answers for.
type tenantLimits struct {
	*overrides.Overrides
	*shares
}

// Size is on how many receivers a tenant's series are spread, 0 = all (ring.Sharding).
func (l *tenantLimits) Size(id tenant.ID) int { return l.Of(id).ShardSize }

// Version names the sizes of all tenants (ring.Sharding).
func (l *tenantLimits) Version() string { return l.Table().ShardVersion() }

// build adds the limits of tenants to the process. base has what the flags of the role say of them. Files that are not
// valid keep the process from starting.
func (f *limitFlags) build(p *process, c *cluster, base tenant.Limits, localEndpoint string) (*tenantLimits, error) {
	defaults := make([]*tenant.LimitFile, len(f.defaults))
	for i, text := range f.defaults {
		var err error
		if defaults[i], err = tenant.ParseLimit("--limits.default", text); err != nil {
			return nil, err
		}
	}
	table, err := tenant.NewLimitTable(base, defaults...)
	if err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	if _, err := f.thanos.read(); err != nil { // both flags are set, or there is no such file
		return nil, err
	}
	f.opts.Base, f.opts.ReplicationFactor, f.opts.ThanosFile = *table.Defaults, c.rf, f.thanos.file
	if text := f.thanos.text.Reveal(); text != "" {
		f.opts.ThanosContent = []byte(text)
	}
	o, err := overrides.New(p.log, p.reg, f.opts)
	if err != nil {
		return nil, err
	}
	if err := o.Reload(); err != nil {
		return nil, err
	}
	p.addPart("limits", o.Open, o.Close, nil)
	p.onReload(o.Reload)
	p.reloaded = func() (bool, time.Time) { s := o.Status(); return s.OK, s.At }
	return &tenantLimits{o, newShares(p, c, localEndpoint)}, nil
}

// base is the limits that the flags of a storing process are.
func (f *storageFlags) base(l tenant.Limits) tenant.Limits {
	l.Exemplars = f.tsdb.MaxExemplars
	l.OutOfOrderWindow, l.FutureWindow = model.Duration(f.tsdb.Window), model.Duration(f.tsdb.Future)
	l.Retention = model.Duration(f.tsdb.Retention)
	return l
}

// base is the limits that the flags of a routing process are.
func (f *routeFlags) base() tenant.Limits {
	l := tenant.DefaultLimits()
	l.PromoteAttributes = f.otlp.opts.PromoteResourceAttributes
	return l
}

// limitsAnswer is what /api/v1/status/limits says.
type limitsAnswer struct {
	Defaults *tenant.Limits               `json:"defaults"`
	Tenants  map[tenant.ID]*tenant.Limits `json:"tenants"`
	Valid    bool                         `json:"filesValid"`
	Since    time.Time                    `json:"lastValid"`
	Fault    string                       `json:"fault,omitempty"`
}

// route serves the limits in force, all of them or with ?tenant= one tenant's.
func (l *tenantLimits) route() httpx.Route {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			httpx.WriteStatus(w, r, http.StatusMethodNotAllowed, errs.E(errs.Unsupported, "method %s: limits are set in "+
				"--runtime-config.file", r.Method))
			return
		}
		if name := r.URL.Query().Get("tenant"); name != "" {
			id, err := tenant.Parse(name)
			if err != nil {
				httpx.WriteError(w, r, err)
				return
			}
			httpx.WriteData(w, l.Of(id))
			return
		}
		t, status := l.Table(), l.Status()
		answer := limitsAnswer{Defaults: t.Defaults, Tenants: t.Tenants, Valid: status.OK, Since: status.At.UTC()}
		if status.Err != nil {
			answer.Fault = status.Err.Error()
		}
		httpx.WriteData(w, answer)
	}
	return httpx.Route{Pattern: "/api/v1/status/limits", Class: httpx.Operator, Early: true,
		Handler: httpx.HandlerFunc(handler)}
}
