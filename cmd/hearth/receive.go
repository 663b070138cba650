package main

import (
	"net/http"
	"slices"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/receive"
)

func receiveCommand() command {
	return command{
		name: series.RoleReceive,
		help: "Store what is remote-written, per tenant; serve it; ship blocks. Routes what senders give it when there is " +
			"a ring.",
		first: []string{"tsdb.path", "objstore.config-file", "gossip.join", "receive.replication-factor", "tsdb.retention"},
		idle:  idleTable{never: receiveIdle},
		bind:  bindReceive,
	}
}

func bindReceive(c *kingpin.CmdClause) func(*builder) {
	var (
		f       routing
		bkt     bucketFlags
		storage storageFlags
		visible storeAPIFlags
		dir     string
	)
	f.bind(c)
	f.shared.bindLabels(c)
	f.shared.bindStored(c)
	bkt.bind(c, "blocks stay on local disk until --tsdb.retention")
	c.Flag("tsdb.path", "Directory of the tenants' TSDBs.").Default("./data").StringVar(&dir)
	storage.bind(c)
	visible.bind(c)
	return func(b *builder) {
		if f.routesOnly() {
			b.log.Info("routing only: a hashring and no --receive.local-endpoint are given, so nothing is stored here")
			f.distribute(b)
			return
		}
		f.where.goAlone(b.log)
		shared, err := storage.settle(b.log, f.shared)
		b.check(err)
		cl := f.where.identify(b, dir)
		limits := f.limits.build(b, cl, storage.limits(f.route.limits()), f.route.localEndpoint)
		users := f.http.users(b, f.route.certificate)
		server := f.http.build(b, users)
		bucket, shared := bkt.build(b, bucketUse{cluster: f.where.opts.ClusterLabel, clustered: cl.gossips, writes: true,
			labels: storage.receive.Labels}, shared)
		client, err := f.client.options(shared)
		b.check(err)
		local := storage.build(b, cl, bucket, limits, shared, dir)
		peers := newClients(b, client, cl)
		grpc := f.grpc.build(b)
		_, retention := limits.Table().Longest()
		f.where.join(b, cl, registration{rings: []string{series.RoleReceive}, localEndpoint: f.route.localEndpoint,
			grpc: f.grpc.address(), http: f.http.opts.Address, bucket: bucket, quarantined: local.quarantined,
			retention: retention, sharding: limits})
		d := f.route.build(b, cl, peers, limits, shared, local.receiver)
		rpc.RegisterWrite(grpc, local.receiver, routeThanos(d))
		visible.register(b, grpc, map[string]series.Source{series.RoleReceive: local.receiver},
			local.receiver.ExternalLabels, shared)

		write := f.route.replicas(cl, d)
		writes := writeRoutes(write, f.route.otlp.handler(b, d))
		f.write.build(b, users, f.http.opts.MaxConnections, writes)
		drain := storage.drain.build(b, draining{cl, peers, bucket, local.receiver}, f.where.refuseAdmin())
		server.Add(slices.Concat(
			b.ownRoutes(),
			httpx.StatusRoutes(b.status(shared.retention.String(), limits.lastRead)),
			limits.routes(),
			cl.routes(),
			drain,
			f.where.adminRoutes(local.receiver),
			writes,
		)...)
	}
}

// routesOnly reports whether Thanos would take this receiver for a router: a hashring names all members, and this
// process is none of them.
func (f *routing) routesOnly() bool { return f.where.hashrings.given() && f.route.localEndpoint == "" }

// adminRoutes are what operators ask of a member.
func (f *clusterFlags) adminRoutes(r *receive.Receiver) []httpx.Route {
	if f.refuseAdmin() {
		return nil
	}
	return []httpx.Route{{Pattern: "/api/v1/admin/flush", Class: httpx.Operator, Handler: http.HandlerFunc(r.HandleFlush)}}
}
