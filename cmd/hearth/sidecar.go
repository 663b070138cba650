package main

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/sidecar"
	"github.com/hearth-metrics/hearth/sidecar/promclient"
	"github.com/hearth-metrics/hearth/sidecar/reloader"
)

func sidecarCommand() command {
	return command{
		name: series.RoleSidecar,
		help: "Serve one Prometheus to queriers, and ship its blocks to a bucket.",
		first: []string{"prometheus.url", "tsdb.path", "objstore.config-file", "http-address", "grpc-address",
			"reloader.config-file", "reloader.config-envsubst-file"},
		subject: subject{"Prometheus: where it is, whose it is, its configuration", []string{"prometheus.*", "tenant",
			"tsdb.path", "reloader.*", "min-time", "store.grpc.downloaded-bytes-limit"}},
		idle: idleTable{never: sidecarIdle},
		bind: bindSidecar,
	}
}

// sidecarFlags are the flags of a sidecar.
type sidecarFlags struct {
	opts       sidecar.Options
	url        *url.URL
	httpClient content
	tenant     string
	min        moment
	bytes      byteSize
	hash       string
}

func (f *sidecarFlags) bind(c *kingpin.CmdClause) {
	f.opts = sidecar.DefaultOptions()
	o := &f.opts
	c.Flag("prometheus.url", "Address of Prometheus.").Default("http://localhost:9090").URLVar(&f.url)
	durationFlag(c, "prometheus.ready_timeout", "How long Prometheus may take to start. Then a sidecar with a bucket "+
		"ends; 0s = never.", &o.ReadyTimeout)
	durationFlag(c, "prometheus.get_config_interval", "How often Prometheus is asked for its external labels.",
		&o.Interval)
	durationFlag(c, "prometheus.get_config_timeout", "How long such a question may take.", &o.Timeout)
	f.httpClient.bind(c, "prometheus.http-client", "How to reach Prometheus, as Thanos's YAML: basic_auth, bearer_token, "+
		"proxy_url, tls_config, transport_config.")
	c.Flag("prometheus.max-concurrent-reads", "Remote reads of Prometheus at a time; further requests wait. Prometheus's "+
		"own bound is --storage.remote.read-concurrent-limit.").
		Default(strconv.Itoa(o.MaxReads)).SetValue(whole[int]{&o.MaxReads})
	c.Flag("tenant", "Whose the series and blocks of this Prometheus are. Blocks then name the tenant, and so do series "+
		"that a Thanos querier gets. Default: "+string(tenant.Default)+", which is not named.").StringVar(&f.tenant)
	c.Flag("min-time", "Serve only samples from this time on: a time such as 2026-01-31T00:00:00Z, or a duration before "+
		"now such as -2w.").Default(firstTime).SetValue(&f.min)
	c.Flag("store.grpc.downloaded-bytes-limit", "Bytes that one request may read of Prometheus; more fail it. 0 = no "+
		"limit.").Default("0").SetValue(&f.bytes)

	s := &o.Ship
	c.Flag("tsdb.path", "Data directory of Prometheus, whose blocks are shipped.").Default(s.Dir).StringVar(&s.Dir)
	c.Flag("shipper.upload-compacted", "Ship blocks that Prometheus compacted, too. One that overlaps with a block of "+
		"the same labels in the bucket is refused.").BoolVar(&s.Compacted)
	c.Flag("shipper.ignore-unequal-block-size", "Ship although Prometheus compacts blocks that may not be in the bucket "+
		"yet: one that cannot be shipped for hours is lost to the bucket.").BoolVar(&s.IgnoreUnequal)
	c.Flag("shipper.meta-file-name", "File in --tsdb.path that lists the blocks in the bucket. Prometheus reads it where "+
		"it runs with --storage.tsdb.delay-compact-file.path.").Default(s.Record).StringVar(&s.Record)
	c.Flag("shipper.upload-concurrency", "Files of a block that are sent at a time; 0 = 1.").
		Default("0").SetValue(whole[int]{&s.Upload.Concurrency})
	c.Flag("hash-func", "SHA256 puts the checksums of a block's files into its meta.json.").
		Default("").EnumVar(&f.hash, "", "SHA256")
}

// build makes the sidecar. The role adds it.
func (f *sidecarFlags) build(b *builder, client *promclient.Client, bkt *bucket, shared sharedFlags,
	sortBudget int64) *sidecar.Sidecar {
	o := &f.opts
	o.TenantLabel, o.ReplicaLabel = shared.tenantLabel, shared.replicaLabel
	o.MaxBytes, o.SortBudget, o.Ship.Upload.Hash = int64(f.bytes), sortBudget, f.hash != ""
	if f.tenant != "" {
		id, err := tenant.Parse(f.tenant)
		if err != nil {
			b.check(fmt.Errorf("--tenant: %w", err))
		}
		o.Tenant, o.MarkTenant = id, true
	}
	if f.min.String() != firstTime {
		o.MinTime = func(now time.Time) int64 { return f.min.millis(now) }
	}
	var ships objstore.Bucket // stays nil without a bucket
	if bkt != nil {
		ships = bkt
	}
	s, err := sidecar.New(b.log, b.reg, client, ships, *o)
	b.check(err)
	return s
}

// reloaderFlags are the flags of what keeps Prometheus's configuration up to date.
type reloaderFlags struct {
	opts        reloader.Options
	processName string
}

func (f *reloaderFlags) bind(c *kingpin.CmdClause) {
	o := &f.opts
	o.WatchInterval, o.RetryInterval = 3*time.Minute, 5*time.Second
	c.Flag("reloader.config-file", "Configuration of Prometheus to watch: Prometheus reads it again when it changes.").
		PlaceHolder("FILE").StringVar(&o.ConfigFile)
	c.Flag("reloader.config-envsubst-file", "Where to write the configuration for Prometheus to read, with $(VARIABLE) "+
		"replaced by the value in this process's environment, and unpacked if it is gzip. Only its owner may read it.").
		PlaceHolder("FILE").StringVar(&o.OutputFile)
	c.Flag("reloader.rule-dir", "Directory with rules: Prometheus reads them again when a file changes. May be given "+
		"several times.").StringsVar(&o.RuleDirs)
	durationFlag(c, "reloader.watch-interval", "How often all these files are read, besides when they change; 0s = once.",
		&o.WatchInterval)
	durationFlag(c, "reloader.retry-interval", "Wait after a reload that failed.", &o.RetryInterval)
	c.Flag("reloader.method", "How Prometheus is told: http = POST /-/reload, which needs its --web.enable-lifecycle; "+
		"signal = SIGHUP, which needs a shared process namespace and the same user.").
		Default("http").EnumVar(&o.Method, "http", "signal")
	c.Flag("reloader.process-name", "Executable of the process that gets the signal.").
		Default("prometheus").StringVar(&f.processName)
}

// build adds the reloader. It opens first, since Prometheus may wait for what it writes.
func (f *reloaderFlags) build(b *builder, client *promclient.Client) {
	o := &f.opts
	o.Variable, o.Trigger = os.LookupEnv, client.ReloadConfig
	if o.Method == "signal" {
		o.Trigger = reloader.BySignal(f.processName, client.LastReload)
	}
	r, err := reloader.New(b.log, b.reg, *o)
	b.check(err)
	b.add("reloader", r.Open, r.Close)
}

func bindSidecar(c *kingpin.CmdClause) func(*builder) {
	var (
		shared  = defaultShared()
		http    httpFlags
		grpc    grpcFlags
		bkt     bucketFlags
		source  sidecarFlags
		reload  reloaderFlags
		visible = storeAPIFlags{tenants: "*"} // there is one, and who may ask a sidecar may see it
	)
	http.bind(c)
	grpc.bind(c)
	bkt.bind(c, "nothing is shipped")
	source.bind(c)
	reload.bind(c)
	visible.bindBounds(c)
	shared.bindLabels(c)
	return func(b *builder) {
		settings, err := source.httpClient.read()
		b.check(err)
		client, err := promclient.New(source.url, source.httpClient.where(), settings)
		b.check(err)
		users := http.users(b)
		server := http.build(b, users)
		reload.build(b, client)
		bucket, shared := bkt.build(b, bucketUse{guest: true}, shared)
		prometheus := source.build(b, client, bucket, shared, visible.sortBudget)
		b.addPart("sidecar", prometheus.Open, prometheus.Close, prometheus.Ready)
		services := grpc.build(b)
		visible.rules, visible.scraper = prometheus, prometheus
		visible.register(b, services, map[string]series.Source{series.RoleSidecar: prometheus},
			prometheus.ExternalLabels, shared)

		server.Add(slices.Concat(
			b.ownRoutes(),
			httpx.StatusRoutes(b.status("", nil)),
		)...)
	}
}
