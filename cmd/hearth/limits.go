package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/alecthomas/kingpin/v2"

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

// bindOwn adds the flags that a process needs even if it only asks others for data.
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

// tenantLimits are the limits of tenants over the whole cluster, and the part of them that this process keeps.
type tenantLimits struct {
	*overrides.Overrides
	*shares
}

// Size is the number of receivers that a tenant's series are spread over, 0 = all (ring.Sharding).
func (l *tenantLimits) Size(id tenant.ID) int { return l.Of(id).ShardSize }

// Version names the sizes of all tenants (ring.Sharding).
func (l *tenantLimits) Version() string { return l.Table().ShardVersion() }

// build adds the limits of tenants to the process. base are the limits that the role's flags set. A file that is not
// valid keeps the process from starting.
func (f *limitFlags) build(b *builder, c *cluster, base tenant.Limits, localEndpoint string) *tenantLimits {
	defaults := make([]*tenant.LimitFile, len(f.defaults))
	for i, text := range f.defaults {
		var err error
		defaults[i], err = tenant.ParseLimit("--limits.default", text)
		b.check(err)
	}
	table, err := tenant.NewLimitTable(base, defaults...)
	if err != nil {
		b.check(fmt.Errorf("flags: %w", err))
	}
	_, err = f.thanos.read() // an error: both flags are set, or there is no such file
	b.check(err)
	f.opts.Base, f.opts.ReplicationFactor, f.opts.ThanosFile = *table.Defaults, c.rf, f.thanos.file
	if text := f.thanos.text.Reveal(); text != "" {
		f.opts.ThanosContent = []byte(text)
	}
	o, err := overrides.New(b.log, b.reg, f.opts)
	b.check(err)
	b.check(o.Reload())
	b.addPart("limits", o.Open, o.Close, nil)
	b.onReload("files of limits", o.Reload, func() error { return o.Status().Err })
	return &tenantLimits{o, newShares(b.process, c, localEndpoint)}
}

// lastRead says whether the files were valid when they were last read, and when they were last valid.
func (l *tenantLimits) lastRead() (ok bool, at time.Time) {
	s := l.Status()
	return s.OK, s.At
}

// limitsAnswer is what /api/v1/status/limits says.
type limitsAnswer struct {
	Defaults *tenant.Limits               `json:"defaults"`
	Tenants  map[tenant.ID]*tenant.Limits `json:"tenants"`
	Valid    bool                         `json:"filesValid"`
	Since    time.Time                    `json:"lastValid"`
	Fault    string                       `json:"fault,omitempty"`
}

// routes serve the limits in force, all of them or with ?tenant= one tenant's.
func (l *tenantLimits) routes() []httpx.Route {
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
	return []httpx.Route{{Pattern: "/api/v1/status/limits", Class: httpx.Operator, Early: true,
		Handler: httpx.HandlerFunc(handler)}}
}
