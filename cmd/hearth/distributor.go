package main

import (
	"context"
	"slices"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/wire"
)

func distributorCommand() command {
	return command{
		name: series.RoleDistributor,
		help: "Take remote write and route it to receivers; store nothing.",
		first: []string{"gossip.join", "receive.replication-factor", "receive.hashrings-file", "http-address",
			"runtime-config.file"},
		idle: idleTable{never: receiveIdle, elsewhere: bucketIdle},
		bind: func(c *kingpin.CmdClause) func(*builder) {
			var f routing
			f.bind(c)
			return f.distribute
		},
	}
}

// distribute builds a process that routes writes and stores nothing.
func (f *routing) distribute(b *builder) {
	client, err := f.client.options(f.shared)
	b.check(err)
	cl := f.where.identify(b, "")
	limits := f.limits.build(b, cl, f.route.limits(), f.route.localEndpoint)
	users := f.http.users(b, f.route.certificate)
	server := f.http.build(b, users)
	peers := newClients(b, client, cl)
	grpc := f.grpc.build(b)
	f.where.join(b, cl, registration{rings: []string{series.RoleDistributor}, grpc: f.grpc.address(),
		http: f.http.opts.Address, sharding: limits})
	d := f.route.build(b, cl, peers, limits, f.shared, nil)
	rpc.RegisterWrite(grpc, refuseWriter{}, routeThanos(d))

	writes := writeRoutes(d.Handler(), f.route.otlp.handler(b, d))
	f.write.build(b, users, f.http.opts.MaxConnections, writes)
	server.Add(slices.Concat(
		b.ownRoutes(),
		httpx.StatusRoutes(b.status("", limits.lastRead)),
		limits.routes(),
		cl.routes(),
		writes,
	)...)
}

// refuseWriter is the member that a distributor is not.
type refuseWriter struct{}

// Write refuses: another process took this one for a receiver.
func (refuseWriter) Write(context.Context, wire.Shard) ([]wire.Failure, error) {
	return nil, errs.E(errs.Unsupported, "this process is a distributor and stores nothing")
}
