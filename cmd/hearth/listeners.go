package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// httpFlags are the main HTTP port's, the same for every role.
type httpFlags struct {
	opts      httpx.Options
	config    string // file in the format of Prometheus's web.config.file
	usersFile string
}

func (f *httpFlags) bind(c *kingpin.CmdClause) {
	f.opts = httpx.DefaultOptions()
	c.Flag("http-address", "host:port of the HTTP port: API, page, metrics, probes.").
		Default(f.opts.Address).SetValue(address{&f.opts.Address})
	durationFlag(c, "http-grace-period", "How long a stop waits for HTTP requests under way.", &f.opts.GracePeriod)
	c.Flag("http.config", "File with TLS and basic auth for the HTTP port, in Prometheus's web.config.file format. "+
		"Read again when it changes.").
		PlaceHolder("FILE").StringVar(&f.config)
	c.Flag("http.max-connections", "Connections that may be open on a port that speaks HTTP, at most; 0 = no bound. "+
		"One client address never gets all of them.").
		Default(strconv.Itoa(f.opts.MaxConnections)).SetValue(whole[int]{&f.opts.MaxConnections})
	c.Flag("auth.tenants-file", "YAML file of users: the tenants that each may write and read, and who is an operator. "+
		"Users come with a password (basic_auth_users of --http.config) or a bearer token. Read again when it changes.").
		PlaceHolder("FILE").StringVar(&f.usersFile)
}

// users adds what tells users apart, and returns nil where the flags do not ask for it. It opens before all that
// listens. Files that are not valid keep the process from starting. certificates are the fields of client
// certificates that name tenants.
func (f *httpFlags) users(b *builder, certificates ...string) *httpx.Auth {
	if f.usersFile == "" && f.config == "" && strings.Join(certificates, "") == "" {
		return nil
	}
	a := httpx.NewAuth(b.log, b.reg, httpx.AuthOptions{UsersFile: f.usersFile, WebConfigFile: f.config,
		CertificateFields: certificates, Interval: 5 * time.Second})
	if err := a.Reload(); err != nil {
		b.check(fmt.Errorf("--auth.tenants-file, --http.config: %w", err))
	}
	b.addPart("users", a.Open, a.Close, nil)
	b.onReload("files of users", a.Reload, a.Fault)
	return a
}

// build adds the main HTTP server. The role adds its routes.
func (f *httpFlags) build(b *builder, users *httpx.Auth) *httpx.Server {
	f.opts.Auth, f.opts.WebConfig, f.opts.Started = users, f.config != "", b.serving
	f.opts.Observer = b.observer
	s := httpx.New(b.log, b.reg, f.opts)
	b.addHTTP("http", s, port{flag: "--http-address", encryptedBy: "--http.config", askedBy: "--auth.tenants-file"})
	return s
}

// writeFlags are the remote-write port's.
type writeFlags struct {
	opts httpx.Options
}

func (f *writeFlags) bind(c *kingpin.CmdClause) {
	f.opts = httpx.DefaultOptions()
	f.opts.Listener, f.opts.AddressFlag, f.opts.Address = "remote-write", "--remote-write.address", "0.0.0.0:19291"
	c.Flag("remote-write.address", "host:port of the port that takes remote write only. The HTTP port takes it too.").
		Default(f.opts.Address).SetValue(address{&f.opts.Address})
	tlsFlags(c, "remote-write.server-tls", "the remote-write port", &f.opts.TLS)
}

// build adds the server for writes. It has the probes as well, and nothing else. connections bounds its connections.
func (f *writeFlags) build(b *builder, users *httpx.Auth, connections int, writes []httpx.Route) {
	f.opts.Auth, f.opts.Started, f.opts.MaxConnections = users, b.serving, connections
	f.opts.Observer = b.observer
	s := httpx.New(b.log, b.reg, f.opts)
	b.addHTTP("remote-write", s, port{flag: "--remote-write.address", encryptedBy: "--remote-write.server-tls-cert",
		askedBy: "--auth.tenants-file"})
	s.Add(httpx.Probes(b.health)...)
	s.Add(writes...)
}

// writeRoutes are remote write on the paths of Thanos, Prometheus and Mimir, and OTLP metrics on theirs.
func writeRoutes(write, otlp http.Handler) (routes []httpx.Route) {
	for _, path := range []string{"/api/v1/receive", "/api/v1/write", "/api/v1/push"} {
		routes = append(routes, httpx.Route{Pattern: path, Class: httpx.Tenant, Handler: write})
	}
	for _, path := range []string{"/api/v1/otlp", "/api/v1/otlp/v1/metrics", "/otlp/v1/metrics"} {
		routes = append(routes, httpx.Route{Pattern: path, Class: httpx.Tenant, Handler: otlp})
	}
	return routes
}

// grpcFlags are the gRPC port's.
type grpcFlags struct {
	opts      rpc.ServerOptions
	advertise string
}

// address is where other processes reach the port; gossip passes it on to them.
func (f *grpcFlags) address() string {
	if f.advertise != "" {
		return f.advertise
	}
	return f.opts.Address
}

func (f *grpcFlags) bind(c *kingpin.CmdClause) {
	f.opts = rpc.DefaultServerOptions()
	c.Flag("grpc-address", "host:port of the gRPC port: Thanos StoreAPI, and writes and reads between Hearth processes.").
		Default(f.opts.Address).SetValue(address{&f.opts.Address})
	c.Flag("grpc-advertise-address", "host:port at which other processes reach --grpc-address, where it is mapped or "+
		"behind a proxy. Default: the host that gossip advertises, and its port.").
		SetValue(address{&f.advertise})
	durationFlag(c, "grpc-grace-period", "How long a stop waits for gRPC calls under way.", &f.opts.GracePeriod)
	durationFlag(c, "grpc-server-max-connection-age", "Age at which a gRPC connection is asked to end, so that clients "+
		"find new addresses; 0s = never.", &f.opts.MaxConnectionAge)
	durationFlag(c, "grpc-server-send-timeout", "How long a gRPC caller may take nothing of its answer, and how far "+
		"it may be behind a rate of 512 KiB in as long, before its call is ended: until then the call keeps a receiver "+
		"from cutting the head that it reads.", &f.opts.SendTimeout)
	tlsFlags(c, "grpc-server-tls", "the gRPC port", &f.opts.TLS)
}

// build adds the gRPC server. Services are registered with it until it opens.
func (f *grpcFlags) build(b *builder) *rpc.Server {
	b.addPort(port{flag: "--grpc-address", guard: f.opts.TLS.Guard(), encryptedBy: "--grpc-server-tls-cert",
		askedBy: "--grpc-server-tls-client-ca"})
	boundWrites(&f.opts)
	f.opts.Observer = b.observer
	s, err := rpc.NewServer(b.log, b.reg, f.opts)
	b.check(err)
	b.addPart("grpc", func(ctx context.Context, fail func(error)) error {
		if err := s.Open(ctx, fail); err != nil {
			return fmt.Errorf("--grpc-address %s: %w", f.opts.Address, err)
		}
		return nil
	}, s.Close, nil)
	return s
}

// storeAPIFlags say whose series StoreAPI callers see.
type storeAPIFlags struct {
	tenants               string
	sortBudget            int64
	maxSeries, maxSamples int64
	rules                 rulestate.Source // of this process; the role sets them
	scraper               rpc.Scraper      // nil in all roles but the sidecar, which sets it
}

func (f *storeAPIFlags) bind(c *kingpin.CmdClause) {
	c.Flag("store-api.tenants", "Tenants whose series StoreAPI callers see that are not Hearth: names separated by |, "+
		"* = all, header = the one that THANOS-TENANT names.").
		Default(string(tenant.Default)).StringVar(&f.tenants)
	f.bindBounds(c)
}

// bindBounds adds the flags that bound what one call takes.
func (f *storeAPIFlags) bindBounds(c *kingpin.CmdClause) {
	c.Flag("store-api.sort-budget", "Bytes of memory for sorting one stream by the labels that a StoreAPI caller sees.").
		Default("268435456").SetValue(whole[int64]{&f.sortBudget})
	c.Flag("store.limits.request-series", "Series that one StoreAPI call may select; more fail it. 0 = no limit.").
		Default("0").SetValue(whole[int64]{&f.maxSeries})
	c.Flag("store.limits.request-samples", "Samples that one StoreAPI call may select, counted as 120 for each chunk; "+
		"more fail it. 0 = no limit.").Default("0").SetValue(whole[int64]{&f.maxSamples})
}

// register serves sources over StoreAPI. external are the labels of a source that is one stream, nil where none is.
func (f *storeAPIFlags) register(b *builder, s *rpc.Server, sources map[string]series.Source,
	external func(tenant.ID) labels.Labels, shared sharedFlags) {
	tenants, err := rpc.ParseTenants(f.tenants)
	if err != nil {
		b.check(fmt.Errorf("--store-api.tenants: %w", err))
	}
	rpc.RegisterStore(s, rpc.Store{Sources: sources, Rules: f.rules, Scraper: f.scraper, External: external,
		Tenants: tenants, TenantLabel: shared.tenantLabel, SortBudget: f.sortBudget, MaxSeries: f.maxSeries,
		MaxSamples: f.maxSamples,
		Readers:    map[string]int{series.RoleReceive: max(1, runtime.GOMAXPROCS(0)/2)}})
}

// tlsFlags bind the files of a listener's TLS under prefix.
func tlsFlags(c *kingpin.CmdClause, prefix, what string, to *httpx.TLSOptions) {
	c.Flag(prefix+"-cert", "PEM certificate for TLS on "+what+". Read again for each connection.").PlaceHolder("FILE").
		StringVar(&to.CertFile)
	c.Flag(prefix+"-key", "PEM key of that certificate.").PlaceHolder("FILE").StringVar(&to.KeyFile)
	c.Flag(prefix+"-client-ca", "PEM authorities; with it clients of "+what+" must show a certificate signed by one of "+
		"them.").
		PlaceHolder("FILE").StringVar(&to.ClientCAFile)
	c.Flag(prefix+"-min-version", "Lowest TLS version on "+what+": 1.0, 1.1, 1.2 or 1.3.").Default("1.3").
		EnumVar(&to.MinVersion, tlsVersions...)
	c.Flag(prefix+"-ciphers", "Cipher suite allowed on "+what+" up to TLS 1.2, by its name in Go; default Go's choice. "+
		"May be given several times.").
		StringsVar(&to.Ciphers)
	c.Flag(prefix+"-curves", "Key exchange allowed on "+what+": X25519, CurveP256, ...; default Go's choice. May be "+
		"given several times.").
		StringsVar(&to.Curves)
}

var tlsVersions = []string{"1.0", "1.1", "1.2", "1.3"}

// clientFlags are for gRPC connections to other processes.
type clientFlags struct {
	opts                       rpc.ClientOptions
	compression, serviceConfig string
}

func (f *clientFlags) bind(c *kingpin.CmdClause) {
	f.opts = rpc.DefaultClientOptions()
	tls := &f.opts.TLS
	c.Flag("grpc-client-tls-secure", "Use TLS for gRPC connections to other processes.").BoolVar(&tls.Enabled)
	c.Flag("grpc-client-tls-skip-verify", "Accept any certificate of other processes.").BoolVar(&tls.SkipVerify)
	c.Flag("grpc-client-tls-cert", "PEM certificate to show to other processes.").
		PlaceHolder("FILE").StringVar(&tls.CertFile)
	c.Flag("grpc-client-tls-key", "PEM key of that certificate.").PlaceHolder("FILE").StringVar(&tls.KeyFile)
	c.Flag("grpc-client-tls-ca", "PEM authorities that must have signed other processes' certificates; default the "+
		"system's.").
		PlaceHolder("FILE").StringVar(&tls.CAFile)
	c.Flag("grpc-client-server-name", "Name that other processes' certificates must carry, when it is not the address.").
		StringVar(&tls.ServerName)
	c.Flag("grpc-client-tls-min-version", "Lowest TLS version of connections to other processes: 1.0, 1.1, 1.2 or 1.3.").
		Default("1.3").EnumVar(&tls.MinVersion, tlsVersions...)
}

// bindForwarding adds the flags of a process that writes to others, with Thanos's names. The TLS flags among them are
// other names of the --grpc-client flags, and so are for all gRPC connections of the process.
func (f *clientFlags) bindForwarding(c *kingpin.CmdClause) {
	tls := &f.opts.TLS
	const same = "The same as --grpc-client-"
	c.Flag("remote-write.client-tls-secure", same+"tls-secure.").BoolVar(&tls.Enabled)
	c.Flag("remote-write.client-tls-skip-verify", same+"tls-skip-verify.").BoolVar(&tls.SkipVerify)
	c.Flag("remote-write.client-tls-cert", same+"tls-cert.").PlaceHolder("FILE").StringVar(&tls.CertFile)
	c.Flag("remote-write.client-tls-key", same+"tls-key.").PlaceHolder("FILE").StringVar(&tls.KeyFile)
	c.Flag("remote-write.client-tls-ca", same+"tls-ca.").PlaceHolder("FILE").StringVar(&tls.CAFile)
	c.Flag("remote-write.client-server-name", same+"server-name.").StringVar(&tls.ServerName)
	c.Flag("remote-write.client-tls-min-version", same+"tls-min-version.").
		PlaceHolder("1.3").EnumVar(&tls.MinVersion, tlsVersions...)
	c.Flag("receive.grpc-compression", "Compression of what is sent to other processes: none, or snappy, which halves "+
		"the traffic for more CPU on both sides.").
		Default("none").EnumVar(&f.compression, "none", "snappy")
	c.Flag("receive.grpc-service-config", "gRPC service config of connections to other processes: JSON, or a file with "+
		"it.").PlaceHolder("JSON").StringVar(&f.serviceConfig)
}

// options are what the flags say of connections to other processes.
func (f *clientFlags) options(shared sharedFlags) (rpc.ClientOptions, error) {
	opts := f.opts
	opts.TenantLabel, opts.ReplicaLabel = shared.tenantLabel, shared.replicaLabel
	if f.compression != "none" { // "" in a process that writes to nobody
		opts.Compression = f.compression
	}
	opts.ServiceConfig = strings.TrimSpace(f.serviceConfig)
	if opts.ServiceConfig != "" && !strings.HasPrefix(opts.ServiceConfig, "{") {
		raw, err := os.ReadFile(opts.ServiceConfig)
		if err != nil {
			return opts, fmt.Errorf("--receive.grpc-service-config: %w", err)
		}
		opts.ServiceConfig = string(raw)
	}
	return opts, nil
}
