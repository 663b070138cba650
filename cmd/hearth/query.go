package main

import (
	"slices"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

func queryCommand() command {
	return command{
		name:  series.RoleQuery,
		help:  "Answer PromQL over receivers, store gateways and other StoreAPIs.",
		first: []string{"gossip.join", "endpoint", "http-address", "query.replica-label", "query.timeout"},
		idle:  idleTable{never: queryIdle, later: queryLater, elsewhere: bucketIdle},
		bind:  bindQuery,
	}
}

func bindQuery(c *kingpin.CmdClause) func(*builder) {
	var (
		shared   = defaultShared()
		http     httpFlags
		grpc     grpcFlags
		client   clientFlags
		where    clusterFlags
		tenants  limitFlags
		endpoint endpointFlags
		asking   queryFlags
		visible  storeAPIFlags
		reads    memoryFlags
	)
	http.bind(c)
	reads.bind(c, partOfReader)
	grpc.bind(c)
	client.bind(c)
	where.bind(c)
	endpoint.bind(c)
	asking.bind(c)
	shared.bindAsked(c)
	shared.bindTenants(c)
	shared.bindLabels(c)
	otherFlag(c, "query.tenant-header", "receive.tenant-header", &shared.tenantHeader)
	otherFlag(c, "query.default-tenant-id", "receive.default-tenant-id", &shared.defaultTenant)
	otherFlag(c, "query.tenant-label-name", "receive.tenant-label-name", &shared.tenantLabel)
	tenants.bindOwn(c)
	visible.bind(c)
	return func(b *builder) {
		options, err := client.options(shared)
		b.check(err)
		cl := where.identify(b, "")
		users := http.users(b, asking.certificate)
		base := tenant.DefaultLimits()
		base.OutOfOrderWindow, base.Retention = model.Duration(shared.window), model.Duration(shared.retention)
		limits := tenants.build(b, cl, base, "")
		server := http.build(b, users)
		services := grpc.build(b)
		where.join(b, cl, registration{grpc: grpc.address(), http: http.opts.Address, sharding: limits})
		peers := newClients(b, options, cl)
		list := endpoint.build(b, cl, peers)
		querier := asking.build(b, cl, list, reads.build(b, partOfReader), shared, limits)
		visible.rules = querier
		visible.register(b, services, map[string]series.Source{series.RoleQuery: querier}, nil, shared)

		server.Add(slices.Concat(
			b.ownRoutes(),
			limits.routes(),
			cl.routes(),
			querier.Routes(),
			b.pageRoutes(nil),
		)...)
	}
}
