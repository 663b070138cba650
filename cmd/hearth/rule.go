package main

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/distributor"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/receive"
	"github.com/hearth-metrics/hearth/rule"
	"github.com/hearth-metrics/hearth/rule/remote"
	"github.com/hearth-metrics/hearth/rule/remotewrite"
	"github.com/hearth-metrics/hearth/rule/targets"
)

func ruleCommand() command {
	return command{
		name: series.RoleRule,
		help: "Evaluate recording and alerting rules over queriers. Results go to the receivers of the ring " +
			"(--gossip.join), to servers (--remote-write.config), or stay here and are shipped, as in Thanos.",
		first: []string{"rule-file", "query", "gossip.join", "alertmanagers.url", "remote-write.config-file",
			"objstore.config-file", "data-dir"},
		idle: idleTable{never: ruleIdle},
		bind: bindRule,
	}
}

// ruleRole is the flags of a ruler that is a process of its own.
type ruleRole struct {
	shared  sharedFlags
	http    httpFlags
	grpc    grpcFlags
	client  clientFlags
	where   clusterFlags
	route   routeFlags
	limits  limitFlags
	bkt     bucketFlags
	storage storageFlags
	visible storeAPIFlags
	rules   rulerFlags
	asking  queriersFlags
	remote  content
	both    bool
	dir     string
}

// thanosRuleRetention is how long Thanos's ruler keeps blocks that are shipped.
const thanosRuleRetention = 48 * time.Hour

func bindRule(c *kingpin.CmdClause) func(*builder) {
	f := ruleRole{shared: defaultShared()}
	f.shared.retention = thanosRuleRetention
	f.http.bind(c)
	f.grpc.bind(c)
	f.client.bind(c)
	f.client.bindForwarding(c)
	f.where.bind(c)
	f.where.bindWriting(c)
	f.shared.bindTenants(c)
	f.shared.bindLabels(c)
	f.shared.bindStored(c)
	f.route.bind(c)
	f.limits.bind(c)
	f.bkt.bind(c, "blocks stay on local disk until --tsdb.retention")
	f.storage.bind(c)
	f.visible.bind(c)
	f.rules.bind(c, "rules/")
	f.asking.bind(c)
	f.remote.bind(c, "remote-write.config", "Servers that get the results, as Prometheus's YAML (remote_write: [...]). "+
		"Without a ring nothing is stored here then.")
	c.Flag("rule.keep-results", "With --remote-write.config, store the results here, too, and ship them. Queriers do not "+
		"see them here, since they would count twice.").BoolVar(&f.both)
	c.Flag("data-dir", "Directory of the state of alerts, and of results.").Default("./data").StringVar(&f.dir)
	return f.build
}

// build makes the role.
func (f *ruleRole) build(b *builder) {
	servers, err := f.servers()
	b.check(err)
	ring := !f.where.alone()
	local := !ring && (servers == nil || f.both)
	shared, err := f.storage.settle(b.log, f.shared)
	b.check(err)
	if !local {
		f.warnNotStored(b, ring)
	}
	if !ring {
		f.where.goAlone(b.log)
	}
	cl := f.where.identify(b, f.dir)
	limits := f.limits.build(b, cl, f.storage.limits(f.route.limits()), f.route.localEndpoint)
	users := f.http.users(b, f.route.certificate)
	server := f.http.build(b, users)
	services := f.grpc.build(b)
	f.visible.rules = f.rules.state()
	bucket, shared := f.bkt.build(b, bucketUse{cluster: f.where.opts.ClusterLabel, clustered: cl.gossips, writes: true,
		labels: f.storage.receive.Labels}, shared)
	sources, external := map[string]series.Source{}, func(tenant.ID) labels.Labels { return f.storage.receive.Labels }
	var refusal func(tenant.ID) error
	var results []rule.Storage
	var members *clients
	switch {
	case ring:
		d, peers := f.buildRing(b, cl, limits, shared)
		results, members = append(results, rule.Pushed(pushed(d))), peers
	case local:
		d, receiver := f.buildLocal(b, cl, bucket, limits, shared)
		results, refusal = append(results, rule.Pushed(pushed(d))), receiver.Refusal
		if servers == nil {
			sources[series.RoleReceive], external = receiver, receiver.ExternalLabels
		}
	}
	f.visible.register(b, services, sources, external, shared)
	if servers != nil {
		w, err := remotewrite.New(b.log, b.reg, *servers)
		b.check(err)
		b.addPart("remote write", w.Open, w.Close, nil)
		results = append(results, w.Storage)
	}
	if len(results) > 1 {
		results[0] = rule.Both(results[0], results[1])
	}
	querier := f.asking.build(b, shared.tenantHeader)
	resolver, err := shared.resolver(f.route.certificate)
	b.check(err)
	f.rules.build(b, rulerUse{querier: querier, storage: results[0], limits: limits, external: f.storage.receive.Labels,
		dir: f.dir, shared: shared, bucket: bucket, tenants: resolver, refusal: refusal,
		cluster: cl, clients: members, services: services})
	status := b.status("", limits.lastRead)
	if bucket != nil {
		status.Features = httpx.RulerConfigAPI()
	}
	server.Add(slices.Concat(
		b.ownRoutes(),
		httpx.StatusRoutes(status),
		limits.routes(),
		cl.routes(),
		ruleRoutes(rulesOfRing{f.rules.state(), cl, members}, resolver, shared.tenantLabel),
		f.rules.config,
	)...)
}

// warnNotStored names the flags about results that are stored here, when none are.
func (f *ruleRole) warnNotStored(b *builder, ring bool) {
	reason := "results go to the servers of --remote-write.config: nothing is stored here without --rule.keep-results"
	if ring {
		reason = "results go to the receivers of the ring: nothing is stored here"
	}
	var names []string
	for _, arg := range b.commandLine {
		name, value, _ := strings.Cut(arg, "=")
		if value == "false" || value == "0s" { // a flag that is not given
			continue
		}
		if strings.HasPrefix(name, "--tsdb.") || name == "--rule.keep-results" {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		b.log.Warn("flags have no effect", "flags", strings.Join(names, ", "), "reason", reason)
	}
}

// servers are those of remote write; nil = none.
func (f *ruleRole) servers() (*remotewrite.Options, error) {
	text, err := f.remote.read()
	if err != nil || len(text) == 0 {
		return nil, err
	}
	servers, err := remotewrite.Parse(f.remote.where(), text)
	if err != nil || len(servers) == 0 {
		return nil, err
	}
	return &remotewrite.Options{Dir: filepath.Join(f.dir, "remote-write"), Servers: servers,
		External: f.storage.receive.Labels, TenantHeader: f.shared.tenantHeader, FlushDeadline: flushDeadline}, nil
}

// flushDeadline bounds how long a stop waits for requests to servers.
const flushDeadline = 10 * time.Second

// buildRing adds what writes to the receivers of the ring.
func (f *ruleRole) buildRing(b *builder, cl *cluster, limits *tenantLimits,
	shared sharedFlags) (*distributor.Distributor, *clients) {
	client, err := f.client.options(shared)
	b.check(err)
	peers := newClients(b, client, cl)
	f.where.join(b, cl, registration{rings: []string{series.RoleDistributor, series.RoleRule}, grpc: f.grpc.address(),
		http: f.http.opts.Address, sharding: limits})
	return f.route.build(b, cl, peers, limits, shared, nil), peers
}

// buildLocal adds a TSDB of this process's own, which ships its blocks.
func (f *ruleRole) buildLocal(b *builder, cl *cluster, bucket *bucket, limits *tenantLimits,
	shared sharedFlags) (*distributor.Distributor, *receive.Receiver) {
	f.storage.receive.Source = block.SourceRuler
	local := f.storage.build(b, cl, bucket, limits, shared, filepath.Join(f.dir, "tsdb"))
	return f.route.build(b, cl, nil, limits, shared, local.receiver), local.receiver
}

// queriersFlags name the queriers that a ruler asks.
type queriersFlags struct {
	opts   remote.Options
	urls   []string
	files  []string
	sd     time.Duration
	config content
}

func (f *queriersFlags) bind(c *kingpin.CmdClause) {
	f.opts, f.sd = remote.DefaultOptions(), 5*time.Minute
	c.Flag("query", "URL of a querier, host:port or http://host:port/prefix, with dns+ or dnssrv+ before a name that "+
		"stands for several. May be given several times; one that answers is enough.").
		PlaceHolder("URL").SetValue(addressList{&f.urls, anyURL})
	c.Flag("query.sd-files", "File with addresses of queriers, in Prometheus's format, with * in its name. May be given "+
		"several times.").PlaceHolder("FILE").StringsVar(&f.files)
	durationFlag(c, "query.sd-interval", "How often these files are read, unless --query.sd-dns-interval is shorter.",
		&f.sd)
	durationFlag(c, "query.sd-dns-interval", "How often names and files of queriers are looked up.", &f.opts.Interval)
	f.config.bind(c, "query.config", "Queriers as Thanos's YAML ([{http_config, static_configs, file_sd_configs, scheme, "+
		"path_prefix}]), instead of --query and --query.sd-files.")
	c.Flag("query.http-method", "Method of queries: POST or GET.").Default(http.MethodPost).
		EnumVar(&f.opts.Method, http.MethodPost, http.MethodGet)
	c.Flag("query.only-prometheus-params", "Send only the parameters that Prometheus knows.").Hidden().
		BoolVar(&f.opts.PlainParams)
	durationFlag(c, "query.timeout", "Bound on one query.", &f.opts.Timeout)
}

// build adds the queriers.
func (f *queriersFlags) build(b *builder, tenantHeader string) *remote.Querier {
	text, err := f.config.read()
	b.check(err)
	switch {
	case len(text) > 0 && len(f.urls)+len(f.files) > 0:
		b.check(errors.New("--query.config excludes --query and --query.sd-files: use one"))
	case len(text) == 0 && len(f.urls)+len(f.files) == 0:
		b.check(errors.New("--query, --query.sd-files or --query.config is needed: rules are evaluated by a querier"))
	}
	f.opts.Queriers, err = targets.Parse(f.config.where(), "", text)
	b.check(err)
	warnUnused(b, f.config.where(), f.opts.Queriers, true)
	seen := map[string]bool{}
	for _, u := range f.urls {
		if seen[u] {
			b.check(fmt.Errorf("--query: %s is given twice", u))
		}
		seen[u] = true
		c, err := targets.OfURL(u, 0, f.opts.Timeout)
		if err != nil {
			b.check(fmt.Errorf("--query: %w", err))
		}
		f.opts.Queriers = append(f.opts.Queriers, c)
	}
	if len(f.files) > 0 {
		f.opts.Queriers = append(f.opts.Queriers, targets.Config{Scheme: "http",
			Files: []targets.FileConfig{{Files: f.files}}})
		f.opts.Interval = min(f.opts.Interval, f.sd)
	}
	f.opts.TenantHeader = tenantHeader
	q, err := remote.New(b.log, b.reg, f.opts)
	b.check(err)
	b.addPart("queriers", q.Open, q.Close, nil)
	b.health.AddAdvice("addresses of queriers", q.Ready)
	return q
}
