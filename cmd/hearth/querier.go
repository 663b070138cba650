package main

import (
	"strconv"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/query"
	"github.com/hearth-metrics/hearth/query/endpoints"
)

// queryFlags are the flags of a querier.
type queryFlags struct {
	opts        query.Options
	certificate string // the field of a client's certificate that names the tenant of a query
}

func (f *queryFlags) bind(c *kingpin.CmdClause) {
	f.opts = query.DefaultOptions()
	c.Flag("query.tenant-certificate-field", "Field of the client's TLS certificate that names the tenant of a query, "+
		"before all headers: organization, organizationalUnit or commonName. A query without it is refused.").
		EnumVar(&f.certificate, append(tenant.CertificateFields, "")...)
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
}

// build adds a querier over what list gives. memory is shared with the other reads of the process.
func (f *queryFlags) build(b *builder, c *cluster, list *endpoints.Endpoints, memory *memory.Budget, shared sharedFlags,
	limits *tenantLimits) *query.Querier {
	var err error
	f.opts.Tenant, err = shared.resolver(f.certificate)
	b.check(err)
	f.opts.Memory, f.opts.TenantLabel, f.opts.Future = memory, shared.tenantLabel, shared.future
	f.opts.Window, f.opts.Retention = limits.Table().Longest()
	f.opts.Flags, f.opts.Version, f.opts.Revision = b.flags, version.Version, version.GetRevision()
	f.opts.Reloaded = limits.lastRead
	f.opts.Rules = list.Rules
	if c.gossips {
		f.opts.Membership = c.membership
	}
	q, err := query.New(b.log, b.reg, list.List, f.opts)
	b.check(err)
	b.addPart("endpoints", list.Open, list.Close, list.Ready)
	b.addPart("query", q.Open, q.Close, nil)
	return q
}
