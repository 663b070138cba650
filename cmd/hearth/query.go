package main

import (
	"net/http"
	"strconv"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/version"

	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/query"
	"github.com/hearth-metrics/hearth/web"
)

// queryFlags are the querier's.
type queryFlags struct {
	opts      query.Options
	endpoints endpointFlags
	tenancy   tenancyFlags
}

// bind adds the flags; naming says whether those that name tenants are not yet bound by another part.
func (f *queryFlags) bind(c *kingpin.CmdClause, naming bool) {
	f.opts = query.DefaultOptions()
	f.endpoints.bind(c)
	c.Flag("query.tenant-certificate-field", "Field of the client's TLS certificate that names the tenant of a query, "+
		"before all headers: organization, organizationalUnit or commonName. A query without it is refused.").
		EnumVar(&f.tenancy.certificate, append(tenant.CertificateFields, "")...)
	c.Flag("query.replica-label", "Label in which the series of HA Prometheus pairs differ; they are then "+
		"deduplicated. Copies on the ring need none. May be given several times.").
		StringsVar(&f.opts.ReplicaLabels)
	c.Flag("query.partial-response", "Answer with a warning when something is missing, where a query does not say; "+
		"--no-query.partial-response fails it.").
		Default("true").BoolVar(&f.opts.PartialResponse)
	c.Flag("query.max-tenants", "Tenants that one query may name; 0 = no limit.").
		Default("100").SetValue(whole[int]{&f.opts.MaxTenants})
	c.Flag("query.max-expression-bytes", "Bytes that a PromQL expression may have, and all selectors of one request "+
		"together. Nesting and regular expressions have fixed limits.").
		Default(strconv.Itoa(expr.DefaultMaxBytes)).SetValue(whole[int]{&f.opts.MaxExpressionBytes})
	c.Flag("query.max-concurrent", "Queries that run at a time; more wait. One tenant never has all places.").
		Default("20").SetValue(whole[int]{&f.opts.MaxConcurrent})
	c.Flag("query.auto-downsampling", "Read downsampled data of a fifth of the step or finer, where a query does not "+
		"say max_source_resolution; without it raw data.").
		BoolVar(&f.opts.AutoResolution)
	durationFlag(c, "query.timeout", "Bound on one query.", &f.opts.Timeout)
	durationFlag(c, "query.patience", "How long a silent source is waited for when all others have answered and the "+
		"answer is complete without it.", &f.opts.Patience)
	durationFlag(c, "store.response-timeout", "How long a source may send nothing when the answer needs it; then the "+
		"answer is given without it, with a warning. 0s = until --query.timeout.", &f.opts.ResponseTimeout)
	durationFlag(c, "query.lookback-delta", "How old a sample may be to stand for an instant.", &f.opts.LookbackDelta)
	c.Flag("query.max-samples", "Samples that one query may hold in memory; fewer where --query.max-memory is not "+
		"enough for as many, at 64 bytes each.").Default("50000000").SetValue(whole[int]{&f.opts.MaxSamples})
	c.Flag("query.max-series", "Series that one query may select; 0 = no limit.").
		Default("0").SetValue(whole[int]{&f.opts.MaxSeries})
	c.Flag("query.max-bytes", "Bytes of chunks that one query may read; 0 = no limit.").
		Default("0").SetValue(whole[int64]{&f.opts.MaxBytes})
	if naming {
		durationFlag(c, "tsdb.retention", "How long receivers keep blocks on local disk: what they are set to. Missing "+
			"receivers matter for that long.", &f.opts.Retention)
		durationFlag(c, "tsdb.out-of-order.time-window", "How old a sample may be when receivers take it: what they are "+
			"set to.", &f.opts.Window)
		durationFlag(c, "tsdb.too-far-in-future.time-window", "How far ahead of the clock a sample may be when receivers "+
			"take it: what they are set to.", &f.opts.Future)
		tenantFlags(c, &f.tenancy.header, &f.tenancy.fallback)
		c.Flag("query.tenant-header", "Another name of --receive.tenant-header.").
			Hidden().NoEnvar().SetValue(&otherName{to: &f.tenancy.header})
		c.Flag("query.default-tenant-id", "Another name of --receive.default-tenant-id.").
			Hidden().NoEnvar().SetValue(&otherName{to: &f.tenancy.fallback})
	}
}

// build adds a querier over what list gives, which shares mem.
func (f *queryFlags) build(p *process, c *cluster, list *endpoints, mem *memory.Budget) (*query.Querier, error) {
	f.opts.Memory = mem
	f.endpoints.warnNames(p)
	res, err := f.tenancy.resolver()
	if err != nil {
		return nil, err
	}
	f.opts.Tenant, f.opts.Flags, f.opts.Version, f.opts.Revision = res, p.flags, version.Version, version.GetRevision()
	f.opts.Reloaded = p.lastReload
	if c.gossips {
		f.opts.Membership = c.membership
	}
	q, err := query.New(p.log, p.reg, list.list, f.opts)
	if err != nil {
		return nil, err
	}
	p.addPart("endpoints", list.open, list.close, list.ready)
	p.addPart("query", q.Open, q.Close, nil)
	return q, nil
}

// page is the page that people look at. writeURL is where to send samples, nil where none are taken. All of it is open:
// it holds nothing of tenants, and what it shows it asks of routes that have their own class.
func (p *process) page(writeURL func(*http.Request) string) httpx.Route {
	page := web.New(web.Options{Version: version.Version, RemoteWriteURL: writeURL, Parts: p.parts})
	return httpx.Route{Pattern: "/", Class: httpx.Open, Early: true, Handler: page.Handler()}
}

// writeURL is where the sender of r reaches this process's remote write.
func writeURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + "/api/v1/receive"
}

// parts are the process's parts as the page shows them to the sender of r.
func (p *process) parts(r *http.Request) []web.Part {
	var parts []web.Part
	for _, s := range p.health.StatesFor(r) {
		part := web.Part{Name: s.Name, State: "ready"}
		if s.Err != nil {
			part.State, part.Detail = "not ready", s.Err.Error()
		}
		if s.Err != nil && s.Advisory {
			part.State = "impaired"
		}
		parts = append(parts, part)
	}
	return parts
}

func queryCommand(app *kingpin.Application) setup {
	c := app.Command("query", "Answer PromQL over receivers, store gateways and other StoreAPIs.")
	var (
		h       httpFlags
		grpc    grpcFlags
		client  clientFlags
		where   clusterFlags
		f       queryFlags
		visible storeAPIFlags
		names   attributeFlags
		tenants limitFlags
		reads   memoryFlags
	)
	h.bind(c)
	reads.bind(c, partOfReader)
	grpc.bind(c)
	client.bind(c)
	where.bind(c)
	f.bind(c, true)
	tenants.bindOwn(c)
	visible.bind(c)
	names.bind(c)
	acceptIdle(c, "query")
	c.Flag("query.tenant-label-name", "Another name of --receive.tenant-label-name.").
		Hidden().NoEnvar().SetValue(&otherName{to: &names.tenant})
	return func(p *process) error {
		client.opts.TenantLabel, client.opts.ReplicaLabel = names.tenant, names.replica
		f.opts.TenantLabel = names.tenant
		cl, err := where.identify(p, "")
		if err != nil {
			return err
		}
		if err := h.buildAuth(p, f.tenancy.certificate); err != nil {
			return err
		}
		base := tenant.DefaultLimits()
		base.OutOfOrderWindow, base.Retention = model.Duration(f.opts.Window), model.Duration(f.opts.Retention)
		limits, err := tenants.build(p, cl, base, "")
		if err != nil {
			return err
		}
		f.opts.Window, f.opts.Retention = limits.Table().Longest()
		server := h.buildBare(p)
		server.Add(limits.route())
		s, err := grpc.build(p)
		if err != nil {
			return err
		}
		if err := where.join(p, cl, place{grpc: grpc.address(), http: h.opts.Address, sharding: limits}); err != nil {
			return err
		}
		q, err := f.build(p, cl, newEndpoints(p, cl, newClients(p, client.opts, cl), &f.endpoints), reads.build(p,
			partOfReader))
		if err != nil {
			return err
		}
		server.Add(q.Routes()...)
		server.Add(p.page(nil))
		server.Add(cl.routes()...)
		return visible.register(s, map[string]series.Source{series.RoleQuery: q}, nil, f.opts.TenantLabel)
	}
}
