package main

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/block/viewer"
	"github.com/hearth-metrics/hearth/compact"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/selfscrape"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/query"
	"github.com/hearth-metrics/hearth/rule"
)

func allCommand() command {
	return command{
		name:  defaultCommand,
		help:  "Everything in one process, on local disk unless told otherwise. The default.",
		first: []string{"data-dir", "http-address", "objstore.config-file", "gossip.join", "receive.replication-factor"},
		idle:  idleTable{never: receiveIdle},
		bind:  bindAll,
	}
}

func bindAll(c *kingpin.CmdClause) func(*builder) {
	var (
		f         routing
		bkt       bucketFlags
		page      blocksPageFlags
		storage   storageFlags
		gateway   gatewayFlags
		endpoint  endpointFlags
		asking    queryFlags
		visible   storeAPIFlags
		reads     memoryFlags
		compactor compactorFlags
		rules     rulerFlags
		front     frontendFlags
		compacts  string
		selfWrite = selfscrape.DefaultOptions()
		dir       string
	)
	f.bind(c)
	f.shared.bindLabels(c)
	f.shared.bindStored(c)
	reads.bind(c, partOfAll)
	bkt.bind(c, "blocks go to the directory bucket below --data-dir")
	page.bind(c)
	c.Flag("data-dir", "Directory of everything: tsdb/, bucket/, cache/.").Default("./data").StringVar(&dir)
	storage.bind(c)
	gateway.bind(c)
	endpoint.bind(c)
	asking.bind(c)
	visible.bind(c)
	compactor.bind(c)
	rules.bind(c)
	front.bind(c)
	c.Flag("compact.run", "Whether this process compacts the bucket: auto = only where the bucket is the directory below "+
		"--data-dir, on, or off.").Default("auto").EnumVar(&compacts, "auto", "on", "off")
	durationFlag(c, "self-scrape.interval", "How often hearth's own metrics are stored, as job hearth of the default "+
		"tenant; 0s = never.", &selfWrite.Interval)
	return func(b *builder) {
		shared, err := storage.settle(b.log, f.shared)
		b.check(err)
		cl := f.where.identify(b, dir)
		limits := f.limits.build(b, cl, storage.limits(f.route.limits()), f.route.localEndpoint)
		users := f.http.users(b, f.route.certificate, asking.certificate)
		server := f.http.build(b, users)
		use := bucketUse{fallback: filepath.Join(dir, "bucket"), cluster: f.where.opts.ClusterLabel, clustered: cl.gossips,
			writes: true, labels: storage.receive.Labels}
		rings := []string{series.RoleReceive, series.RoleStore, series.RoleRule}
		compacting := compacts == "on" || compacts == "auto" && !bkt.config.given()
		if compacting {
			use.refuse, rings = compact.CheckLayout, append(rings, series.RoleCompact)
		}
		bucket, shared := bkt.build(b, use, shared)
		client, err := f.client.options(shared)
		b.check(err)
		local := storage.build(b, cl, bucket, limits, shared, filepath.Join(dir, "tsdb"))
		memory := reads.build(b, partOfAll)
		peers := newClients(b, client, cl)
		blocks := gateway.build(b, gatewayUse{cl, peers, bucket, filepath.Join(dir, "cache", "store"), memory}, shared)
		b.addPart("store", blocks.Open, blocks.Close, blocks.Settled)
		b.health.AddAdvice("blocks", blocks.Ready) // the process has other work while the bucket does not answer
		grpc := f.grpc.build(b)
		sources := map[string]series.Source{series.RoleReceive: local.receiver, series.RoleStore: blocks}
		_, retention := limits.Table().Longest()
		f.where.join(b, cl, registration{rings: rings,
			localEndpoint: f.route.localEndpoint, grpc: f.grpc.address(), http: f.http.opts.Address, bucket: bucket,
			contents: blocks.Contents, quarantined: local.quarantined, retention: retention, sharding: limits})
		addSharing(b, cl, blocks)
		compactor.opts.SharedNames, compactor.opts.Refuse = true, f.where.refuseAdmin()
		work := compactor.beside(b, compacting, compactorUse{cl, bucket, filepath.Join(dir, "cache", "compact"), limits},
			shared)
		d := f.route.build(b, cl, peers, limits, shared, local.receiver)
		rpc.RegisterWrite(grpc, local.receiver, routeThanos(d))
		rpc.RegisterServed(grpc, blocks)
		visible.rules, endpoint.localRules = rules.state(), []query.RulePeer{{Name: series.RoleRule, Source: rules.state()}}
		visible.register(b, grpc, sources, local.receiver.ExternalLabels, shared)
		list := endpoint.build(b, cl, peers,
			query.Endpoint{Name: series.RoleReceive, Source: local.receiver, Local: true},
			query.Endpoint{Name: series.RoleStore, Source: blocks, Local: true})
		asking.opts.Features = httpx.RulerConfigAPI()
		querier := asking.build(b, cl, list, memory, shared, limits)
		fe := front.before(b, querier, memory, asking.opts)
		rules.build(b, rulerUse{querier: localQuerier{querier}, storage: rule.Pushed(pushed(d)), limits: limits,
			external: storage.receive.Labels, dir: dir, shared: shared, bucket: bucket, tenants: asking.opts.Tenant,
			refusal: local.receiver.Refusal, cluster: cl, clients: peers, services: grpc})
		scrapeSelf(b, cl, selfWrite, routeThanos(d), local.db.Ready)

		writes := writeRoutes(d.Handler(), f.route.otlp.handler(b, d))
		f.write.build(b, users, f.http.opts.MaxConnections, writes)
		drain := storage.drain.build(b, draining{cl, peers, bucket, local.receiver}, f.where.refuseAdmin())
		server.Add(slices.Concat(
			b.ownRoutes(), limits.routes(), cl.routes(), drain,
			f.where.adminRoutes(local.receiver),
			work, writes, fe.Wrap(querier.Routes()), rules.config,
			page.routes(viewer.Options{Source: gatewayState(blocks), Bucket: bucket, Marks: bucket,
				Refuse: f.where.refuseAdmin()}),
			b.pageRoutes(writeURL),
		)...)
		b.onReady(func() { b.welcome(server.Guard(), f.http.opts.Address, dir) })
	}
}

// scrapeSelf adds what stores the process's own metrics in it.
func scrapeSelf(b *builder, cl *cluster, opts selfscrape.Options, push selfscrape.Push, ready func() error) {
	if opts.Interval == 0 {
		return
	}
	opts.Instance, opts.Ready = cl.instance.ID, ready
	s, err := selfscrape.New(b.log, b.reg, push, opts)
	b.check(err)
	b.addPart("self-scrape", s.Open, s.Close, nil)
}

// welcome tells a person what to open and what to paste. guard is the HTTP port's.
func (p *process) welcome(guard httpx.Guard, address, dir string) {
	url, more := "http://"+reachable(address), ""
	if guard.Encrypts {
		url = "https://" + reachable(address)
		more += "    # tls_config: {ca_file: ...} where the certificate's authority is not one of the system's\n"
	}
	if guard.Asks {
		more += "    # basic_auth, authorization or a certificate in tls_config: this port asks who sends\n"
	}
	fmt.Fprintf(p.stdout, `
Hearth is up. Data is in %s. Blocks in the bucket stay for ever unless --retention.resolution-raw,
-5m and -1h say how long.

  Page and Grafana data source:  %s
  Readiness, metrics:            %s/-/ready?verbose  %s/metrics

Paste into prometheus.yml:

remote_write:
  - url: %s/api/v1/receive
    # prometheus --enable-feature=metadata-wal-records makes it send types and help
    protobuf_message: io.prometheus.write.v2.Request
    send_exemplars: true
    send_native_histograms: true
%s
`, dir, url, url, url, url, more)
}

// reachable is an address to open on this machine.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
