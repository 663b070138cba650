package main

import (
	"context"
	"strconv"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/receive"
	"github.com/hearth-metrics/hearth/ring"
)

// routing is the flags of a process that takes remote write.
type routing struct {
	shared sharedFlags
	http   httpFlags
	write  writeFlags
	grpc   grpcFlags
	client clientFlags
	where  clusterFlags
	route  routeFlags
	limits limitFlags
}

func (f *routing) bind(c *kingpin.CmdClause) {
	f.shared = defaultShared()
	f.http.bind(c)
	f.write.bind(c)
	f.grpc.bind(c)
	f.client.bind(c)
	f.client.bindForwarding(c)
	f.where.bind(c)
	f.where.bindWriting(c)
	f.shared.bindTenants(c)
	f.route.bind(c)
	f.limits.bind(c)
}

// routeFlags say how writes are placed and sent to members.
type routeFlags struct {
	opts          distributor.Options
	certificate   string // the field of a client's certificate that names the tenant of a write
	replicaHeader string
	localEndpoint string // by which a hashring file names this process
	otlp          otlpFlags
	relabel       content
}

func (f *routeFlags) bind(c *kingpin.CmdClause) {
	f.opts = distributor.DefaultOptions()
	c.Flag("receive.tenant-certificate-field", "Field of the client's TLS certificate that names the tenant of a "+
		"write, before all headers: organization, organizationalUnit or commonName. A write without it is refused.").
		EnumVar(&f.certificate, append(tenant.CertificateFields, "")...)
	c.Flag("receive.split-tenant-label-name", "Label that names the tenant of a series, before everything else that "+
		"does; it is taken off the series. So one request may write for several tenants.").
		StringVar(&f.opts.SplitLabel)
	haFlags(c, &f.opts.HA)
	c.Flag("receive.local-endpoint", "Address by which a hashring file names this process.").StringVar(&f.localEndpoint)
	durationFlag(c, "receive-forward-timeout", "Bound on one write to one member.", &f.opts.WriteTimeout)
	durationFlag(c, "receive-forward-max-backoff", "Longest wait between two tries to write to a member.",
		&f.opts.RetryMax)
	c.Flag("receive.forward.async-workers", "Writes of one tenant to one member that run at a time. All tenants "+
		"together have up to 8 times as many.").
		Default(strconv.Itoa(f.opts.MemberConcurrency)).SetValue(whole[int]{&f.opts.MemberConcurrency})
	c.Flag("receive.replica-header", "Header with which a request says that it is copy number n of replicated ones: it "+
		"is stored here and not routed, on a member of a hashring file.").
		Default("THANOS-REPLICA").StringVar(&f.replicaHeader)
	c.Flag("receive.thanos-rf2", "With a replication factor of 2, acknowledge after one copy, as Thanos does. What "+
		"only one member has is lost with it.").BoolVar(&f.opts.ThanosRF2)
	f.relabel.bind(c, "receive.relabel-config", "Prometheus relabelling rules that each series passes before it is "+
		"placed, as a list in YAML. A file is read again at a reload.")
	f.otlp.bind(c)
}

// limits are what the flags say of the limits of tenants.
func (f *routeFlags) limits() tenant.Limits {
	l := tenant.DefaultLimits()
	l.PromoteAttributes = f.otlp.opts.PromoteResourceAttributes
	return l
}

// build adds a distributor that keeps the tenants to their limits. local is this process's own member, nil when it owns
// no data.
func (f *routeFlags) build(b *builder, c *cluster, peers *clients, limits *tenantLimits, shared sharedFlags,
	local *receive.Receiver) *distributor.Distributor {
	f.opts.Limits, f.opts.Distributors = limits.Of, limits.distributors
	f.otlp.opts.Promote = func(id tenant.ID) []string { return limits.Of(id).PromoteAttributes }
	boundRequests(&f.opts)
	if n := limits.MaxConcurrency(); n > 0 {
		f.opts.MaxRequests = n
	}
	var err error
	f.opts.Resolver, err = shared.resolver(f.certificate)
	b.check(err)
	f.opts.Relabel, err = f.relabelRules()
	b.check(err)
	if local != nil {
		f.opts.Refusal = local.Refusal
	}
	if c.gossips {
		f.opts.HA.Elections = gossipedElections{c}
	}
	dial := func(m ring.Member) (distributor.Writer, error) {
		if local != nil && limits.self(m) {
			return distributor.Local{Writer: local}, nil
		}
		return peers.writer(m)
	}
	d, err := distributor.New(b.log, b.reg, c.placement, dial, f.opts)
	b.check(err)
	f.reloadRelabel(b, d)
	b.addPart("distributor", d.Open, d.Close, c.ready)
	return d
}

// routeThanos takes a write that a Thanos process has not placed yet.
func routeThanos(d *distributor.Distributor) func(context.Context, *wire.Batch) error {
	return func(ctx context.Context, b *wire.Batch) error {
		res, err := d.Push(ctx, b)
		if err != nil {
			return err
		}
		return res.Err()
	}
}
