package main

import (
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/secret"
)

// idleFlag is a flag of Thanos, or of another role, that is accepted and does nothing here.
type idleFlag struct {
	name   string
	kind   idleKind
	reason string // why it does nothing, and what to use instead
}

// idleKind is what a flag's value looks like.
type idleKind uint8

const (
	idleText   idleKind = iota // any value
	idleBool                   // none: --name and --no-name
	idleSecret                 // text that may hold a secret
)

// idleTable is the flags that a command accepts without using them, by what the start says of one that is given.
type idleTable struct {
	never     []idleFlag // flags that will never have an effect: one warning for each, with the reason
	later     []idleFlag // flags that a later version uses: one warning for all of them
	elsewhere []idleFlag // flags of other roles, since one set of flags may serve all roles: no warning
}

const (
	noCache   = "there is no such cache"
	shipsOn   = "a block that cannot be shipped never holds up the others"
	capnproto = "Cap'n Proto is not spoken: Hearth processes write to each other in a protocol of their own, and to " +
		"and from Thanos by gRPC (Thanos routers in the same ring need --receive.replication-protocol=protobuf)"
	matcherCache  = "matchers are a small part of a call here, and not cached"
	features      = "what it turns on in Thanos is always on or not needed here"
	oneSwitch     = "--query.partial-response decides for all kinds of queries"
	oneEngine     = "there is one engine, which evaluates all of PromQL in this process"
	ownMetrics    = "queries are counted by hearth_query_* metrics, whose buckets are fixed"
	ownBuffers    = "buffers have the size of what is read, within --query.max-memory"
	ownHeaders    = "the part of an index that is kept is fetched when a block is first read, and kept on disk"
	ownPostings   = "lists of postings are always read only where they save more bytes than they have"
	ownParquet    = "blocks that were converted to Parquet are served like all others, from the block itself"
	oneJob        = "a faulty block stops one job: it is left out and named, and all other work goes on"
	relativeLinks = "links and redirects are relative, so they are right behind any prefix that a proxy takes off"
	lastLook      = "pages show what the compactor saw when it last looked at the bucket"
	byListing     = "blocks are found by one listing of the bucket, and read side by side"
)

// bucketIdle are the idle flags of roles that use no bucket.
var bucketIdle = []idleFlag{
	{"objstore.config", idleSecret, "this role uses no object store"},
	{"objstore.config-file", idleText, "this role uses no object store"},
}

// receiveIdle are the flags of thanos receive that are idle here.
var receiveIdle = []idleFlag{
	{"receive.replication-protocol", idleText, capnproto},
	{"receive.capnproto-address", idleText, capnproto},
	{"receive.artificial-max-delay", idleText, "it is an aid for testing Thanos"},
	{"receive.lazy-retrieval-max-buffered-responses", idleText, "series are merged while they are read, a bounded " +
		"number at a time"},
	{"tsdb.allow-overlapping-blocks", idleBool, "overlapping blocks are always allowed"},
	{"tsdb.enable-native-histograms", idleBool, "native histograms are always taken"},
	{"tsdb.memory-snapshot-on-shutdown", idleBool, "a snapshot is always written on a stop"},
	{"tsdb.write-queue-size", idleText, "full chunks are written by a scheduler, without a queue"},
	{"tsdb.head.expanded-postings-cache-size", idleText, noCache},
	{"tsdb.block.expanded-postings-cache-size", idleText, noCache},
	{"shipper.allow-out-of-order-uploads", idleBool, shipsOn},
	{"shipper.skip-corrupted-blocks", idleBool, shipsOn},
	{"matcher-cache-size", idleText, matcherCache},
	{"enable-feature", idleText, features},
}

// webLater are flags of the pages of query and store.
var webLater = []idleFlag{
	{"web.route-prefix", idleText, "the API and the page are at /"},
	{"web.external-prefix", idleText, "links are relative"},
	{"web.prefix-header", idleText, "links are relative"},
	{"web.disable-cors", idleBool, "queries may come from pages of any origin"},
}

// queryIdle and queryLater are the flags of thanos query that are idle here.
var queryIdle = []idleFlag{
	{"query.promql-engine", idleText, oneEngine},
	{"query.mode", idleText, oneEngine},
	{"query.disable-fallback", idleBool, oneEngine},
	{"query.enable-x-functions", idleBool, oneEngine},
	{"query.partition-label", idleText, oneEngine},
	{"query.distributed-with-overlapping-interval", idleBool, oneEngine},
	{"deduplication.func", idleText, "there is one way to merge the series of HA pairs"},
	{"grpc.proxy-strategy", idleText, "series are merged while they come"},
	{"query.lazy-retrieval-max-buffered-responses", idleText, "series are merged while they come"},
	{"query.max-concurrent-select", idleText, "--query.max-concurrent and --query.max-memory bound what queries take"},
	{"query.conn-metric.label", idleText, ownMetrics},
	{"query.telemetry.request-duration-seconds-quantiles", idleText, ownMetrics},
	{"query.telemetry.request-samples-quantiles", idleText, ownMetrics},
	{"query.telemetry.request-series-seconds-quantiles", idleText, ownMetrics},
	{"query.active-query-path", idleText, "queries that run are not written to a file"},
	{"query.enforce-tenancy", idleBool, "tenants are always kept apart"},
	{"rule.partial-response", idleBool, oneSwitch},
	{"target.partial-response", idleBool, oneSwitch},
	{"metric-metadata.partial-response", idleBool, oneSwitch},
	{"exemplar.partial-response", idleBool, oneSwitch},
	{"status.partial-response", idleBool, oneSwitch},
	{"store.sd-dns-resolver", idleText, "names are resolved by Go's resolver"},
	{"store.unhealthy-timeout", idleText, "an endpoint that does not answer is listed for as long as it is named"},
	{"endpoint.info-timeout", idleText, "endpoints are polled with a timeout of 3s"},
	{"inject-test-addresses", idleText, "it is an aid for testing Thanos"},
	{"matcher-cache-size", idleText, matcherCache},
	{"enable-feature", idleText, features},
}

var queryLater = append([]idleFlag{
	{"store.sd-files", idleText, "name endpoints with --endpoint"},
	{"grpc-compression", idleText, "calls to endpoints are not compressed"},
	{"store.sd-interval", idleText, "files of endpoints are not read"},
	{"endpoint.sd-config", idleText, "name endpoints with --endpoint"},
	{"endpoint.sd-config-file", idleText, "name endpoints with --endpoint"},
	{"endpoint.sd-config-reload-interval", idleText, "files of endpoints are not read"},
	{"selector.relabel-config", idleText, "endpoints are not chosen by their labels"},
	{"selector.relabel-config-file", idleText, "endpoints are not chosen by their labels"},
	{"selector-label", idleText, "a querier adds no labels of its own"},
	{"alert.query-url", idleText, "there are no alerts yet"},
	{"query.default-evaluation-interval", idleText, "subqueries without a step have one of 1m"},
	{"query.default-step", idleText, "a range query names its step"},
	{"query.dynamic-lookback-delta", idleBool, "--query.lookback-delta is for all resolutions"},
	{"query.instant.default.max_source_resolution", idleText, "instant queries read raw samples unless they say " +
		"otherwise"},
	{"query.metadata.default-time-range", idleText, "series and labels of all time are looked up unless a request says " +
		"otherwise"},
}, webLater...)

// storeIdle are the flags of thanos store that are idle here.
var storeIdle = []idleFlag{
	{"cache-index-header", idleBool, ownHeaders},
	{"store.index-header-posting-offsets-in-mem-sampling", idleText, ownHeaders},
	{"store.enable-index-header-lazy-reader", idleBool, ownHeaders},
	{"store.index-header-lazy-download-strategy", idleText, ownHeaders},
	{"store.enable-lazy-expanded-postings", idleBool, ownPostings},
	{"store.posting-group-max-key-series-ratio", idleText, ownPostings},
	{"chunk-pool-size", idleText, ownBuffers},
	{"debug.series-batch-size", idleText, ownBuffers},
	{"debug.estimated-max-series-size", idleText, ownBuffers},
	{"debug.estimated-max-chunk-size", idleText, ownBuffers},
	{"objstore-parquet.config", idleSecret, ownParquet},
	{"objstore-parquet.config-file", idleText, ownParquet},
	{"block-discovery-strategy", idleText, byListing},
	{"block-meta-fetch-concurrency", idleText, byListing},
	{"matcher-cache-size", idleText, matcherCache},
	{"enable-feature", idleText, features},
}

// compactIdle are the flags of thanos compact that are idle here.
var compactIdle = []idleFlag{
	{"block-discovery-strategy", idleText, byListing},
	{"block-meta-fetch-concurrency", idleText, byListing},
	{"compact.blocks-fetch-concurrency", idleText, "blocks are read while they are merged, and not fetched before"},
	{"downsample.concurrency", idleText, "a block is downsampled by the job that makes it, and --compact.concurrency " +
		"says how many jobs run"},
	{"block-viewer.global.sync-block-interval", idleText, lastLook},
	{"block-viewer.global.sync-block-timeout", idleText, lastLook},
	{"debug.halt-on-error", idleBool, oneJob},
	{"debug.accept-malformed-index", idleBool, oneJob},
	{"compact.skip-block-with-out-of-order-chunks", idleBool, oneJob},
	{"compact.enable-vertical-compaction", idleBool, "blocks that overlap are always merged"},
	{"web.route-prefix", idleText, "links are relative: a proxy takes the prefix off"},
	{"web.external-prefix", idleText, relativeLinks},
	{"web.prefix-header", idleText, relativeLinks},
	{"enable-feature", idleText, features},
}

// ruleIdle are the flags of thanos rule that are idle here.
var ruleIdle = []idleFlag{
	{"query.sd-dns-resolver", idleText, "names are resolved by Go's resolver"},
	{"query.default-step", idleText, "alerts are looked for in stored series by instant queries"},
	{"query.enable-x-functions", idleBool, oneEngine},
	{"grpc-query-endpoint", idleText, "queriers are asked over HTTP: name them with --query"},
	{"enable-feature", idleText, "the querier decides which functions it evaluates"},
	{"tsdb.enable-native-histograms", idleBool, "native histograms are always taken"},
	{"shipper.upload-compacted", idleBool, "all blocks are shipped, and none is compacted here"},
	{"shipper.ignore-unequal-block-size", idleBool, "all blocks have one size"},
	{"shipper.meta-file-name", idleText, "each tenant's directory has the record of what was shipped"},
	{"shipper.allow-out-of-order-uploads", idleBool, shipsOn},
	{"shipper.skip-corrupted-blocks", idleBool, shipsOn},
	{"web.route-prefix", idleText, relativeLinks},
	{"web.external-prefix", idleText, relativeLinks},
	{"web.prefix-header", idleText, relativeLinks},
	{"web.disable-cors", idleBool, "pages of other servers may not read the API"},
}

// frontendIdle are the flags of thanos query-frontend that are idle here, and frontendLater those that a later version
// uses.
var (
	frontendIdle = []idleFlag{
		{"query-range.response-cache-max-freshness", idleText, "answers are kept as long as nothing changed them"},
		{"labels.response-cache-max-freshness", idleText, "answers about labels are not kept"},
		{"cache-compression-type", idleText, "what is kept is always compressed"},
		{"query-frontend.org-id-header", idleText, "the tenant is in the log anyway"},
		{"query-frontend.enable-x-functions", idleBool, oneEngine},
		{"query-frontend.compress-responses", idleBool, "answers are compressed where the client asks for it"},
		{"enable-feature", idleText, features},
		{"web.disable-cors", idleBool, "pages of other servers may not read the API"},
	}
	frontendLater = []idleFlag{
		{"query-range.align-range-with-step", idleBool, "steps are those that were asked for"},
		{"query-range.request-downsampled", idleBool, "a query without an answer is not asked again for other resolutions"},
		{"query-range.min-split-interval", idleText, "the split interval does not change with the query"},
		{"query-range.max-split-interval", idleText, "the split interval does not change with the query"},
		{"query-range.horizontal-shards", idleText, "the split interval does not change with the query"},
		{"query.max-retries-per-request", idleText, "only range queries are tried again"},
		{"query-range.partial-response", idleBool, "the querier decides"},
		{"labels.split-interval", idleText, "requests for labels are passed on"},
		{"labels.max-retries-per-request", idleText, "requests for labels are passed on"},
		{"labels.max-query-parallelism", idleText, "requests for labels are passed on"},
		{"labels.partial-response", idleBool, "requests for labels are passed on"},
		{"labels.default-time-range", idleText, "requests for labels are passed on"},
		{"labels.response-cache-config", idleSecret, "requests for labels are passed on"},
		{"labels.response-cache-config-file", idleText, "requests for labels are passed on"},
		{"query-frontend.downstream-tripper-config", idleSecret, "connections have Go's defaults"},
		{"query-frontend.downstream-tripper-config-file", idleText, "connections have Go's defaults"},
		{"query-frontend.log-queries-longer-than", idleText, "slow queries are not logged apart"},
		{"query-frontend.force-query-stats", idleBool, "statistics are given where a query asks for them"},
		{"query-frontend.vertical-shards", idleText, "queries are cut in time only"},
		{"query-frontend.slow-query-logs-user-header", idleText, "slow queries are not logged apart"},
	}
)

// flagger is an application or a command.
type flagger interface {
	Flag(name, help string) *kingpin.FlagClause
}

// sidecarIdle are the flags of thanos sidecar that are idle here.
var sidecarIdle = []idleFlag{
	{"shipper.allow-out-of-order-uploads", idleBool, shipsOn},
	{"shipper.skip-corrupted-blocks", idleBool, shipsOn},
}

// acceptIdle makes c accept the flags of table without using them, out of sight of --help.
func acceptIdle(c flagger, table idleTable) {
	for _, f := range slices.Concat(table.never, table.later, table.elsewhere) {
		clause := c.Flag(f.name, "No effect: "+f.reason+".").Hidden()
		switch f.kind {
		case idleBool:
			clause.SetValue(new(idleSwitch))
		case idleSecret:
			clause.SetValue(new(secret.Text))
		default:
			clause.SetValue(new(idleValue))
		}
	}
}

// warnIdle logs for each flag that was given why it has no effect. All flags that a later version uses share one line.
func (p *process) warnIdle() {
	own := commandNamed(p.role).idle
	for _, f := range own.never {
		if p.flags[f.name] != "" {
			p.log.Warn("flag has no effect", "flag", "--"+f.name, "reason", f.reason)
		}
	}
	var names []string
	for _, f := range own.later {
		if p.flags[f.name] != "" {
			names = append(names, "--"+f.name+" ("+f.reason+")")
		}
	}
	if len(names) > 0 {
		p.log.Warn("flags have no effect in this version", "flags", strings.Join(names, ", "))
	}
}

// idleValue keeps what was given, so that status pages show it. An empty value is none.
type idleValue struct{ given []string }

// Set adds a value.
func (v *idleValue) Set(s string) error {
	if s = strings.TrimSpace(s); s != "" {
		v.given = append(v.given, s)
	}
	return nil
}

// String is all values.
func (v *idleValue) String() string { return strings.Join(v.given, ",") }

// IsCumulative lets the flag be given several times.
func (v *idleValue) IsCumulative() bool { return true }

// idleSwitch is the value of a flag without one.
type idleSwitch struct{ idleValue }

// IsBoolFlag says that the flag takes no value.
func (*idleSwitch) IsBoolFlag() bool { return true }
