package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/query"
	"github.com/hearth-metrics/hearth/query/frontend"
)

// roleQueryFrontend is the role of a query frontend that is a process of its own.
const roleQueryFrontend = "query-frontend"

func queryFrontendCommand() command {
	return command{
		name: roleQueryFrontend,
		help: "Answer range queries in pieces, from a cache where nothing has changed, before queriers of Hearth or " +
			"Thanos; pass all other requests on.",
		first: []string{"query-frontend.downstream-url", "http-address", "query-range.split-interval",
			"query-range.response-cache-config-file"},
		idle: idleTable{never: frontendIdle, later: frontendLater},
		bind: bindQueryFrontend,
	}
}

// frontendFlags are the flags of a query frontend, as the all-in-one has them, too.
type frontendFlags struct {
	opts  frontend.Options
	size  byteSize
	cache content
}

func (f *frontendFlags) bind(c *kingpin.CmdClause) {
	f.opts = frontend.DefaultOptions()
	durationFlag(c, "query-range.split-interval", "Range queries are cut at multiples of this time, and their pieces "+
		"evaluated side by side and kept. 0s = they are not cut, and nothing is kept.", &f.opts.SplitInterval)
	durationFlag(c, "query-range.max-query-length", "The longest range of a query; 0s = any.", &f.opts.MaxLength)
	c.Flag("query-range.max-query-parallelism", "Pieces of one query that are evaluated at a time; where they are "+
		"evaluated in this process, at most one for each processor.").
		Default(fmt.Sprint(f.opts.Parallel)).SetValue(whole[int]{&f.opts.Parallel})
	f.size = frontend.DefaultCacheBytes
	c.Flag("query-frontend.cache-size", "Bytes of memory for answers of range queries, where "+
		"--query-range.response-cache-config says nothing. 0 = none are kept.").Default(f.size.String()).SetValue(&f.size)
	f.cache.bind(c, "query-range.response-cache-config", "Cache of answers of range queries, as Thanos's YAML: type "+
		"IN-MEMORY with max_size and validity.")
}

// build makes a frontend before next. changes says when answers do not hold any more.
func (f *frontendFlags) build(b *builder, next http.Handler, changes series.ArrivalSource, budget *memory.Budget,
	tenants tenant.Resolver) *frontend.Frontend {
	config := frontend.CacheConfig{MaxBytes: int64(f.size)}
	yaml, err := f.cache.read()
	b.check(err)
	if yaml != nil {
		config, err = frontend.ReadCacheConfig(f.cache.where(), yaml)
		b.check(err)
	}
	if config.MaxBytes > 0 && f.opts.SplitInterval > 0 {
		f.opts.Cache, f.opts.Changes = frontend.NewMemory(config.MaxBytes, config.MaxItems, config.Validity), changes
	}
	f.opts.Memory, f.opts.Tenant = budget, tenants
	fe, err := frontend.New(b.log, b.reg, next, f.opts)
	b.check(err)
	return fe
}

// before makes a frontend before the querier of this process. More pieces at a time than there are processors would
// take memory and save no time. The frontend holds memory while it waits for pieces, which wait for memory of the
// querier: with one budget for both, two queries could wait for each other.
func (f *frontendFlags) before(b *builder, q *query.Querier, budget *memory.Budget,
	o query.Options) *frontend.Frontend {
	f.opts.MaxExpressionBytes, f.opts.Retries = o.MaxExpressionBytes, 0
	f.opts.Parallel = min(f.opts.Parallel, runtime.GOMAXPROCS(0))
	return f.build(b, q.Handler(), q, memory.NewBudget(nil, maxMemoryFlag, budget.Total()/4), o.Tenant)
}

// downstreamFlags name the queriers behind a frontend.
type downstreamFlags struct {
	urls    []string
	forward []string
}

func (f *downstreamFlags) bind(c *kingpin.CmdClause) {
	c.Flag("query-frontend.downstream-url", "URL of a querier of Hearth or Thanos, or of another server with "+
		"Prometheus's API. May be given several times: they get requests in turn.").
		Default("http://localhost:9090").StringsVar(&f.urls)
	c.Flag("query-frontend.forward-header", "Header that is passed on to queriers although it is meant for this process: "+
		"Authorization, Cookie. Tenants are always passed on. May be given several times.").StringsVar(&f.forward)
}

func (f *downstreamFlags) build(b *builder, tenants tenant.Resolver, header string) *frontend.Downstream {
	opts := frontend.DownstreamOptions{Forward: f.forward, Tenant: tenants, TenantHeader: header}
	for _, text := range f.urls {
		if !strings.Contains(text, "://") {
			text = "http://" + text
		}
		u, err := url.Parse(text)
		if err != nil {
			b.check(errors.New("--query-frontend.downstream-url: it is no URL")) // the text may hold a password
			continue
		}
		opts.URLs = append(opts.URLs, u)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.IdleConnTimeout = 100, 90*time.Second
	opts.Transport = transport
	d, err := frontend.NewDownstream(opts)
	b.check(err)
	b.addPart("downstream", d.Open, d.Close, d.Ready)
	return d
}

func bindQueryFrontend(c *kingpin.CmdClause) func(*builder) {
	var (
		shared = defaultShared()
		http   httpFlags
		reads  memoryFlags
		asked  frontendFlags
		behind downstreamFlags
		cert   string
	)
	http.bind(c)
	reads.bind(c, partOfReader)
	asked.bind(c)
	behind.bind(c)
	shared.bindTenants(c)
	otherFlag(c, "query-frontend.tenant-header", "receive.tenant-header", &shared.tenantHeader)
	otherFlag(c, "query-frontend.default-tenant-id", "receive.default-tenant-id", &shared.defaultTenant)
	c.Flag("query-frontend.tenant-certificate-field", "Field of the client's TLS certificate that names the tenant of a "+
		"query, before all headers: organization, organizationalUnit or commonName.").
		EnumVar(&cert, append(tenant.CertificateFields, "")...)
	c.Flag("query-range.max-retries-per-request", "How often a piece is tried again that a querier failed with a status "+
		"of 500 or more.").Default(fmt.Sprint(frontend.DefaultOptions().Retries)).SetValue(whole[int]{&asked.opts.Retries})
	return func(b *builder) {
		server := http.build(b, http.users(b, cert))
		tenants, err := shared.resolver(cert)
		b.check(err)
		d := behind.build(b, tenants, shared.tenantHeader)
		fe := asked.build(b, d, d, reads.build(b, partOfReader), tenants)
		// What is about a querier, and not about samples, operators ask the querier.
		routes := slices.DeleteFunc(query.RoutesTo(d), func(r httpx.Route) bool { return r.Class == httpx.Operator })
		server.Add(slices.Concat(b.ownRoutes(), fe.Wrap(routes))...)
	}
}
