package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/selfscrape"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/ring/gossip"
)

// allCommand is everything in one process: the default.
func allCommand(app *kingpin.Application) setup {
	c := app.Command("all", "Everything in one process, on local disk unless told otherwise. The default.").Default()
	var (
		f       routing
		grpc    grpcFlags
		bkt     bucketFlags
		storage storageFlags
		gateway gatewayFlags
		asking  queryFlags
		visible storeAPIFlags
		names   attributeFlags
		scrape  = selfscrape.DefaultOptions()
		dir     string
		reads   memoryFlags
	)
	f.bind(c)
	reads.bind(c, partOfAll)
	grpc.bind(c)
	bkt.bind(c, "blocks go to the directory bucket below --data-dir")
	c.Flag("data-dir", "Directory of everything: tsdb/, bucket/, cache/.").Default("./data").StringVar(&dir)
	storage.bind(c)
	gateway.bind(c)
	asking.bind(c, false)
	visible.bind(c)
	names.bind(c)
	durationFlag(c, "self-scrape.interval", "How often hearth's own metrics are stored, as job hearth of the default "+
		"tenant; 0s = never.", &scrape.Interval)
	return func(p *process) error {
		if err := errors.Join(f.client.settle(), storage.tuning.settle(p.log, &storage.tsdb, &storage.receive)); err != nil {
			return err
		}
		storage.receive.TenantLabel, storage.receive.ReplicaLabel = names.tenant, names.replica
		gateway.opts.TenantLabel, gateway.opts.ReplicaLabel = names.tenant, names.replica
		f.client.opts.TenantLabel, f.client.opts.ReplicaLabel = names.tenant, names.replica
		asking.opts.TenantLabel = names.tenant
		cl, err := f.where.identify(p, dir)
		if err != nil {
			return err
		}
		limits, err := f.limits.build(p, cl, storage.base(f.route.base()), f.route.localEndpoint)
		if err != nil {
			return err
		}
		if err := f.http.buildAuth(p, f.route.tenancy.certificate, asking.tenancy.certificate); err != nil {
			return err
		}
		server := f.http.buildBare(p)
		server.Add(limits.route())
		b, err := bkt.build(p, filepath.Join(dir, "bucket"), f.where.gossips())
		if err != nil {
			return err
		}
		r, err := storage.build(p, cl, b, limits, filepath.Join(dir, "tsdb"))
		if err != nil {
			return err
		}
		mem := reads.build(p, partOfAll)
		gateway.side = true
		g, err := gateway.build(p, cl, b, filepath.Join(dir, "cache", "store"), mem)
		if err != nil {
			return err
		}
		peers := newClients(p, f.client.opts, cl)
		s, err := grpc.build(p)
		if err != nil {
			return err
		}
		window, retention := limits.Table().Longest()
		if err := f.join(p, cl, place{rings: []string{gossip.RoleReceive, gossip.RoleStore}, grpc: grpc.address(),
			http: f.http.opts.Address, bucket: b, retention: retention, sharding: limits}); err != nil {
			return err
		}
		d, err := f.route.build(p, cl, peers, limits, r)
		if err != nil {
			return err
		}
		rpc.RegisterWrite(s, r, routeThanos(d))
		rpc.RegisterServed(s, g)
		if err := visible.register(s, map[string]series.Source{gossip.RoleReceive: r, gossip.RoleStore: g}, r.ExternalLabels,
			storage.receive.TenantLabel); err != nil {
			return err
		}
		list := newEndpoints(p, cl, peers, &asking.endpoints)
		list.addLocal(gossip.RoleReceive, r)
		list.addLocal(gossip.RoleStore, g)
		asking.tenancy.header, asking.tenancy.fallback = f.route.tenancy.header, f.route.tenancy.fallback
		asking.opts.Retention, asking.opts.Window, asking.opts.Future = retention, window, storage.tsdb.Future
		q, err := asking.build(p, cl, list, mem)
		if err != nil {
			return err
		}
		scrape.Ready = storage.opened
		if err := scrapeSelf(p, cl, scrape, routeThanos(d)); err != nil {
			return err
		}
		if err := f.mount(p, server, d.Handler(), d); err != nil {
			return err
		}
		server.Add(q.Routes()...)
		server.Add(p.page(writeURL))
		server.Add(f.where.adminRoutes(r)...)
		server.Add(cl.routes()...)
		if err := storage.drain.add(p, draining{cl, peers, b, r, server}, f.where.refuseAdmin()); err != nil {
			return err
		}
		p.onReady(func() { p.welcome(server.Guard(), f.http.opts.Address, dir) })
		return nil
	}
}

// scrapeSelf stores the process's own metrics in it.
func scrapeSelf(p *process, cl *cluster, opts selfscrape.Options, push selfscrape.Push) error {
	if opts.Interval == 0 {
		return nil
	}
	opts.Instance = cl.instance.ID
	s, err := selfscrape.New(p.log, p.reg, push, opts)
	if err != nil {
		return err
	}
	p.addPart("self-scrape", s.Open, s.Close, nil)
	return nil
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
Hearth is up. Data is in %s. Nothing is deleted from the bucket yet: it grows for ever.

  Page and Grafana data source:  %s
  Readiness, metrics:            %s/-/ready?verbose  %s/metrics

Paste into prometheus.yml:

remote_write:
  - url: %s/api/v1/receive
    protobuf_message: io.prometheus.write.v2.Request   # sends types and help with prometheus --enable-feature=metadata-wal-records
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
