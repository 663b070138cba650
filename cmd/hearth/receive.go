package main

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/alecthomas/kingpin/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/receive"
	"github.com/hearth-metrics/hearth/ring"
	"github.com/hearth-metrics/hearth/ring/gossip"
	"github.com/hearth-metrics/hearth/tsdb"
)

// storageFlags are what a process that owns data needs.
type storageFlags struct {
	tsdb    tsdb.Options
	receive receive.Options
	tuning  tuningFlags
	drain   drainFlags
	opened  func() error // what keeps writes of tenants that were here before from being stored; set by build
}

func (f *storageFlags) bind(c *kingpin.CmdClause) {
	f.tsdb, f.receive = tsdb.DefaultOptions(), receive.DefaultOptions()
	f.tuning.bind(c, &f.tsdb, &f.receive)
	durationFlag(c, "tsdb.block-duration", "Time range of a block.", &f.tsdb.BlockDuration)
	durationFlag(c, "tsdb.retention", "How long blocks stay on local disk after they are shipped. Without a bucket: "+
		"how long data is kept. 0s = for ever.", &f.tsdb.Retention)
	durationFlag(c, "tsdb.out-of-order.time-window", "How old a sample may be, by this machine's clock. Within it the "+
		"order of samples does not matter.", &f.tsdb.Window)
	durationFlag(c, "tsdb.too-far-in-future.time-window", "How far ahead of this machine's clock a sample may be.",
		&f.tsdb.Future)
	c.Flag("tsdb.max-exemplars", "Exemplars kept per tenant; 0 = none.").
		Default("100").SetValue(whole[int64]{&f.tsdb.MaxExemplars})
	c.Flag("receive.max-tenants", "Tenants that may have data on this receiver; writes of one more are refused. 0 = no "+
		"bound.").Default("50000").SetValue(whole[int]{&f.tsdb.MaxTenants})
	durationFlag(c, "tsdb.idle-timeout", "A tenant without writes for this long is cut, shipped and closed; it is "+
		"opened again when needed. 0s = never.", &f.tsdb.IdleTimeout)
	c.Flag("tsdb.adopt", "Take over directories of tenants that Hearth did not make, if they have thanos.shipper.json "+
		"or wal/, as a Thanos receiver's do. Without it they are left alone, and writes of their tenants are refused.").
		BoolVar(&f.tsdb.Adopt)
	c.Flag("label", "External label name=\"value\" of this receiver. The replica label (--receive.replica-label-name) "+
		"defaults to the instance id. May be given several times.").
		SetValue(labelSet{&f.receive.Labels})
	f.drain.bind(c)
}

// build adds the TSDBs below dir, kept to the tenants' limits, and the receiver over them.
func (f *storageFlags) build(p *process, c *cluster, bkt *bucket, limits *tenantLimits, dir string) (*receive.Receiver,
	error) {
	f.tsdb.Limits, f.tsdb.Share = limits.Of, limits.ofSeries
	f.tsdb.Dir, f.tsdb.Instance, f.tsdb.Since, f.tsdb.Role = dir, c.instance.ID, c.instance.Since, gossip.RoleReceive
	f.receive.Instance, f.receive.Since = c.instance.ID, c.instance.Since
	db, err := tsdb.New(p.log, p.reg, f.tsdb)
	if err != nil {
		return nil, err
	}
	c.broken = func() []gossip.Quarantine {
		var all []gossip.Quarantine
		for _, t := range db.Broken() {
			all = append(all, gossip.Quarantine{Tenant: t.Tenant, Reason: t.Error})
		}
		return all
	}
	var ships objstore.Bucket // stays nil without a bucket
	if bkt != nil {
		ships = bkt
	}
	r, err := receive.New(p.log, p.reg, db, ships, f.receive)
	if err != nil {
		return nil, err
	}
	f.opened = db.Ready
	gc := &gcPace{log: p.log, still: db.Overhead}
	p.addPart("garbage collector", gc.Open, gc.Close, nil)
	p.addPart("tsdb", db.Open, db.Close, db.Ready)
	p.health.AddAdvice("tenants", db.Whole)
	p.addPart("receive", r.Open, r.Close, nil)
	return r, nil
}

// adminRoutes are what operators ask of a member.
func (f *clusterFlags) adminRoutes(r *receive.Receiver) []httpx.Route {
	if f.refuseAdmin() {
		return nil
	}
	return []httpx.Route{{Pattern: "/api/v1/admin/flush", Class: httpx.Operator, Handler: http.HandlerFunc(r.HandleFlush)}}
}

// routeFlags are what a process that takes remote write needs.
type routeFlags struct {
	opts          distributor.Options
	tenancy       tenancyFlags
	replicaHeader string
	localEndpoint string
	otlp          otlpFlags
	relabel       content
}

func (f *routeFlags) bind(c *kingpin.CmdClause) {
	f.opts = distributor.DefaultOptions()
	f.tenancy.bind(c)
	c.Flag("receive.split-tenant-label-name", "Label that names the tenant of a series, before everything else that "+
		"does; it is taken off the series. A request may so be for several tenants.").
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

// build adds a distributor that keeps the tenants to their limits. local is this process's own member, nil when it owns
// no data.
func (f *routeFlags) build(p *process, c *cluster, peers *clients, limits *tenantLimits,
	local *receive.Receiver) (*distributor.Distributor, error) {
	f.opts.Limits, f.opts.Distributors = limits.Of, limits.distributors
	f.otlp.opts.Promote = func(id tenant.ID) []string { return limits.Of(id).PromoteAttributes }
	boundRequests(&f.opts)
	if n := limits.MaxConcurrency(); n > 0 {
		f.opts.MaxRequests = n
	}
	res, err := f.tenancy.resolver()
	if err != nil {
		return nil, err
	}
	f.opts.Resolver = res
	if f.opts.Relabel, err = f.relabelRules(); err != nil {
		return nil, err
	}
	if c.gossips {
		f.opts.HA.Elections = gossipedElections{c}
	}
	dial := func(m ring.Member) (distributor.Writer, error) {
		if local != nil && (m.ID == c.self.ID || m.Addr != "" && m.Addr == f.localEndpoint) {
			return distributor.Local{Writer: local}, nil
		}
		return peers.writer(m)
	}
	d, err := distributor.New(p.log, p.reg, c.placement, dial, f.opts)
	if err != nil {
		return nil, err
	}
	f.reloadRelabel(p, d)
	p.addPart("distributor", d.Open, d.Close, c.ready)
	return d, nil
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

// routing is the flags of a process that takes remote write.
type routing struct {
	http   httpFlags
	write  writeFlags
	client clientFlags
	where  clusterFlags
	route  routeFlags
	limits limitFlags
}

func (f *routing) bind(c *kingpin.CmdClause) {
	f.http.bind(c)
	f.write.bind(c)
	f.client.bind(c)
	f.client.bindForwarding(c)
	f.where.bind(c)
	f.where.bindWriting(c)
	f.route.bind(c)
	f.limits.bind(c)
	acceptIdle(c, c.Model().Name)
}

// join adds the source of the ring for a process that stores what the ring gives it.
func (f *routing) join(p *process, c *cluster, r place) error {
	f.where.static.Local = f.route.localEndpoint
	return f.where.join(p, c, r)
}

// mount serves remote write (by write) and OTLP on the HTTP port and on a port of its own.
func (f *routing) mount(p *process, server *httpx.Server, write http.Handler, d *distributor.Distributor) error {
	otlp, err := f.route.otlp.handler(d)
	if err != nil {
		return err
	}
	own := f.write.build(p, f.http.opts.MaxConnections)
	for _, s := range []*httpx.Server{server, own} {
		s.Add(writeRoutes(write, otlp)...)
	}
	return nil
}

func receiveCommand(app *kingpin.Application) setup {
	c := app.Command("receive", "Store what is remote-written, per tenant; serve it; ship blocks. Routes what senders "+
		"give it when there is a ring.")
	var (
		f       routing
		grpc    grpcFlags
		bkt     bucketFlags
		storage storageFlags
		visible storeAPIFlags
		names   attributeFlags
		dir     string
	)
	f.bind(c)
	grpc.bind(c)
	names.bind(c)
	bkt.bind(c, "blocks stay on local disk until --tsdb.retention")
	c.Flag("tsdb.path", "Directory of the tenants' TSDBs.").Default("./data").StringVar(&dir)
	storage.bind(c)
	visible.bind(c)
	return func(p *process) error {
		if f.routesOnly() {
			p.log.Info("routing only: a hashring and no --receive.local-endpoint are given, so nothing is stored here")
			return f.distribute(p, &grpc)
		}
		f.where.goAlone(p)
		if err := errors.Join(f.client.settle(), storage.tuning.settle(p.log, &storage.tsdb, &storage.receive)); err != nil {
			return err
		}
		storage.receive.TenantLabel, storage.receive.ReplicaLabel = names.tenant, names.replica
		cl, err := f.where.identify(p, dir)
		if err != nil {
			return err
		}
		limits, err := f.limits.build(p, cl, storage.base(f.route.base()), f.route.localEndpoint)
		if err != nil {
			return err
		}
		if err := f.http.buildAuth(p, f.route.tenancy.certificate); err != nil {
			return err
		}
		server := f.http.build(p, storage.tsdb.Retention.String())
		server.Add(limits.route())
		b, err := bkt.build(p, "", f.where.gossips())
		if err != nil {
			return err
		}
		r, err := storage.build(p, cl, b, limits, dir)
		if err != nil {
			return err
		}
		peers := newClients(p, f.client.opts, cl)
		s, err := grpc.build(p)
		if err != nil {
			return err
		}
		_, longest := limits.Table().Longest()
		if err := f.join(p, cl, place{rings: []string{gossip.RoleReceive}, grpc: grpc.address(), http: f.http.opts.Address,
			bucket:    b,
			retention: longest, sharding: limits}); err != nil {
			return err
		}
		d, err := f.route.build(p, cl, peers, limits, r)
		if err != nil {
			return err
		}
		rpc.RegisterWrite(s, r, routeThanos(d))
		if err := f.mount(p, server, f.route.replicas(cl, d), d); err != nil {
			return err
		}
		server.Add(f.where.adminRoutes(r)...)
		server.Add(cl.routes()...)
		if err := storage.drain.add(p, draining{cl, peers, b, r, server}, f.where.refuseAdmin()); err != nil {
			return err
		}
		return visible.register(s, map[string]series.Source{gossip.RoleReceive: r}, r.ExternalLabels,
			storage.receive.TenantLabel)
	}
}

func distributorCommand(app *kingpin.Application) setup {
	c := app.Command("distributor", "Take remote write and route it to receivers; store nothing.")
	var (
		f    routing
		grpc grpcFlags
	)
	f.bind(c)
	grpc.bind(c)
	return func(p *process) error { return f.distribute(p, &grpc) }
}

// distribute builds a process that routes writes and stores nothing.
func (f *routing) distribute(p *process, grpc *grpcFlags) error {
	if err := f.client.settle(); err != nil {
		return err
	}
	cl, err := f.where.identify(p, "")
	if err != nil {
		return err
	}
	limits, err := f.limits.build(p, cl, f.route.base(), f.route.localEndpoint)
	if err != nil {
		return err
	}
	if err := f.http.buildAuth(p, f.route.tenancy.certificate); err != nil {
		return err
	}
	server := f.http.build(p, "")
	server.Add(limits.route())
	peers := newClients(p, f.client.opts, cl)
	s, err := grpc.build(p)
	if err != nil {
		return err
	}
	if err := f.where.join(p, cl, place{rings: []string{gossip.RoleDistributor}, grpc: grpc.address(),
		http: f.http.opts.Address, sharding: limits}); err != nil {
		return err
	}
	d, err := f.route.build(p, cl, peers, limits, nil)
	if err != nil {
		return err
	}
	rpc.RegisterWrite(s, refuseWriter{}, routeThanos(d))
	if err := f.mount(p, server, d.Handler(), d); err != nil {
		return err
	}
	server.Add(cl.routes()...)
	return nil
}

// refuseWriter is the member that a distributor is not.
type refuseWriter struct{}

// Write refuses: another process took this one for a receiver.
func (refuseWriter) Write(context.Context, wire.Shard) ([]wire.Failure, error) {
	return nil, errs.E(errs.Unsupported, "this process is a distributor and stores nothing")
}
