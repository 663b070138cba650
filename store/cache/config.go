package cache

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Config is what a YAML of Thanos says of a cache.
type Config struct {
	// MaxBytes is the memory that it asks for; -1 = it says nothing of it.
	MaxBytes int64
	// MaxItemBytes is the largest value to keep in memory; 0 = any.
	MaxItemBytes int64
	// Disabled are kinds that are not to be kept.
	Disabled []Kind
	// Ignored are keys that the YAML has and that have no effect here, each with the reason.
	Ignored []string

	server func(log *slog.Logger, reg prometheus.Registerer, name string) *Server // nil = memory only
}

// Server makes the shared server that the configuration names, nil when it names none. Metrics and log lines call it
// name. reg may be nil.
func (c Config) Server(log *slog.Logger, reg prometheus.Registerer, name string) *Server {
	if c.server == nil {
		return nil
	}
	return c.server(log, reg, name)
}

// DefaultBytes is the memory of a cache of which nothing is said, in bytes.
const DefaultBytes = 250 << 20

const defaultTTL = 24 * time.Hour

// memoryConfig is config of type IN-MEMORY.
type memoryConfig struct {
	MaxSize     conf.Bytes `yaml:"max_size"`
	MaxItemSize conf.Bytes `yaml:"max_item_size"`
}

// groupcacheConfig is config of type GROUPCACHE.
type groupcacheConfig struct {
	Peers         []string      `yaml:"peers"`
	SelfURL       string        `yaml:"self_url"`
	MaxSize       conf.Bytes    `yaml:"max_size"`
	Group         string        `yaml:"groupcache_group"`
	DNSSDResolver string        `yaml:"dns_sd_resolver"`
	DNSInterval   time.Duration `yaml:"dns_interval"`
	Timeout       time.Duration `yaml:"timeout"`
}

// breakerConfig is that of both kinds of servers.
type breakerConfig struct {
	Enabled             bool          `yaml:"enabled"`
	HalfOpenMaxRequests uint32        `yaml:"half_open_max_requests"`
	OpenDuration        time.Duration `yaml:"open_duration"`
	MinRequests         uint32        `yaml:"min_requests"`
	ConsecutiveFailures uint32        `yaml:"consecutive_failures"`
	FailurePercent      float64       `yaml:"failure_percent"`
}

func defaultBreaker() breakerConfig {
	return breakerConfig{HalfOpenMaxRequests: 10, OpenDuration: 5 * time.Second, MinRequests: 50, ConsecutiveFailures: 5,
		FailurePercent: 0.05}
}

// settings are those of the breaker, which is always on: a server that is away would make each request wait.
func (b breakerConfig) settings() (failures int, pause time.Duration) {
	if !b.Enabled {
		b = defaultBreaker()
	}
	return int(max(b.ConsecutiveFailures, 1)), max(b.OpenDuration, time.Second)
}

// tlsConfig is that of Redis.
type tlsConfig struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
	MinVersion         string `yaml:"min_version"`
}

var tlsVersions = map[string]promconfig.TLSVersion{
	"": 0, "1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13,
}

// ReadIndexConfig reads Thanos's --index-cache.config; name is what errors call it. Errors are of kind Invalid.
func ReadIndexConfig(name string, content []byte) (Config, error) {
	r := configReader{Parser: conf.Parser{Name: name}, types: []string{inMemory, inMemcached, inRedis}}
	items, ttl := []string{}, lifetime{key: "ttl", of: defaultTTL}
	r.read(content, map[string]func(*yaml.Node){
		"enabled_items": func(n *yaml.Node) { r.Decode(n, &items); r.items(n, items) },
		"ttl":           func(n *yaml.Node) { r.lifetime(n, &ttl) },
	}, &ttl)
	return r.out, errs.Wrap(errs.Invalid, r.Err())
}

// ReadBucketConfig reads Thanos's --store.caching-bucket.config; name is what errors call it. Errors are of kind
// Invalid.
func ReadBucketConfig(name string, content []byte) (Config, error) {
	r := configReader{Parser: conf.Parser{Name: name}, types: []string{inMemory, inMemcached, inRedis, inGroupcache},
		memoryUnused: map[string]string{
			"max_item_size": "the memory is that of --index-cache.config, whose max_item_size counts"}}
	ttl := lifetime{key: "chunk_subrange_ttl", of: defaultTTL}
	none := func(key, reason string, sample any) func(*yaml.Node) {
		return func(n *yaml.Node) {
			if r.Check(n, key+": ", sample) {
				r.ignore(key, reason)
			}
		}
	}
	const (
		gaps  = "how many reads there are follows from how far the missing pages lie from each other"
		pages = "files are kept in pages of one size"
		metas = "meta.json is kept on local disk, and in the index of the bucket"
		never = "that something does not exist is never kept"
		lists = "a listing is what says which blocks exist, so it is not kept"
	)
	r.read(content, map[string]func(*yaml.Node){
		"max_chunks_get_range_requests": none("max_chunks_get_range_requests", gaps, int64(0)),
		"chunk_subrange_ttl":            func(n *yaml.Node) { r.lifetime(n, &ttl) },
		"chunk_subrange_size":           none("chunk_subrange_size", pages, int64(0)),
		"chunk_object_attrs_ttl":        none("chunk_object_attrs_ttl", "sizes of files are in meta.json", time.Second),
		"blocks_iter_ttl":               none("blocks_iter_ttl", lists, time.Second),
		"metafile_exists_ttl":           none("metafile_exists_ttl", metas, time.Second),
		"metafile_doesnt_exist_ttl":     none("metafile_doesnt_exist_ttl", never, time.Second),
		"metafile_content_ttl":          none("metafile_content_ttl", metas, time.Second),
		"metafile_max_size":             none("metafile_max_size", metas, conf.Bytes(0)),
	}, &ttl)
	return r.out, errs.Wrap(errs.Invalid, r.Err())
}

// The types of caches.
const (
	inMemory     = "IN-MEMORY"
	inMemcached  = "MEMCACHED"
	inRedis      = "REDIS"
	inGroupcache = "GROUPCACHE"
)

// configReader reads one of the two configurations.
type configReader struct {
	conf.Parser
	types []string
	// memoryUnused are keys of the config of IN-MEMORY that have no effect, with the reason.
	memoryUnused map[string]string
	at           *yaml.Node // where faults of config are: config itself, or what lacks it
	out          Config
}

// lifetime is how long servers keep values.
type lifetime struct {
	key   string
	of    time.Duration
	given bool
}

// read reads the type, its config, and what more keys say. ttl is read before the server is made.
func (r *configReader) read(content []byte, more map[string]func(*yaml.Node), ttl *lifetime) {
	r.out.MaxBytes = -1
	root := r.Document(content)
	kind := ""
	var config *yaml.Node
	keys := map[string]func(*yaml.Node){
		"type":   func(n *yaml.Node) { kind = r.kind(n) },
		"config": func(n *yaml.Node) { config = n },
	}
	maps.Copy(keys, more)
	r.Mapping(root, "", keys)
	r.at = cmp.Or(config, root, &yaml.Node{})
	switch kind {
	case inMemory:
		r.memory(config)
		if ttl.given {
			r.ignore(ttl.key, "values stay in memory until it is needed for others: what is kept of a block never changes")
		}
	case inMemcached:
		r.memcached(config, ttl.of)
	case inRedis:
		r.redis(config, ttl.of)
	case inGroupcache:
		r.Decode(config, &groupcacheConfig{})
		r.ignore("type: GROUPCACHE", "there is no such cache here: pages are kept in memory, or on MEMCACHED or REDIS")
	default:
		if r.Err() == nil {
			r.Fault(r.at, "type: is missing; known are %s", strings.Join(r.types, ", "))
		}
	}
}

func (r *configReader) ignore(key, reason string) {
	r.out.Ignored = append(r.out.Ignored, key+" ("+reason+")")
}

// unused ignores those keys of mapping n, which is where, that have a reason.
func (r *configReader) unused(where string, n *yaml.Node, reasons map[string]string) {
	given := keysOf(n)
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if reason := reasons[key]; reason != "" {
			r.ignore(where+": "+key, reason)
		}
	}
}

// keysOf returns the values of mapping n by key. What is wrong with n others have said.
func keysOf(n *yaml.Node) map[string]*yaml.Node {
	given := map[string]*yaml.Node{}
	(&conf.Parser{}).Pairs(n, "", func(key, value *yaml.Node) { given[key.Value] = value })
	return given
}

// tooLong ignores a wait that is not the usual one and longer than any call of a server.
func (r *configReader) tooLong(key string, wait, usual time.Duration) {
	if wait > longestWait && wait != usual {
		r.ignore("config: "+key, fmt.Sprintf("no lookup or write waits longer than %s: the bucket answers in that time",
			longestWait))
	}
}

// breaker ignores what the breaker does not need: it is always on, and tries by one call whether the server is back.
func (r *configReader) breaker(config *yaml.Node, b breakerConfig) {
	const (
		key  = "config: set_async_circuit_breaker_config"
		some = "it opens after consecutive_failures, and one call tries whether the server is back"
	)
	given := keysOf(config)["set_async_circuit_breaker_config"]
	switch {
	case given == nil:
	case b.Enabled:
		r.unused(key, given, map[string]string{"half_open_max_requests": some, "min_requests": some, "failure_percent": some})
	default:
		r.ignore(key, "the breaker is always on, as a server that is away would make each request wait")
	}
}

func (r *configReader) kind(n *yaml.Node) string {
	kind := strings.ToUpper(n.Value)
	if !slices.Contains(r.types, kind) {
		r.Fault(n, "type: there is no such cache%s", conf.Suggest(kind, r.types))
		return ""
	}
	return kind
}

// items sets the kinds that are not among those enabled.
func (r *configReader) items(n *yaml.Node, enabled []string) {
	all := []Kind{Postings, ExpandedPostings, Series}
	known := make([]string, len(all))
	for i, k := range all {
		known[i] = k.String()
	}
	for _, item := range enabled {
		if !slices.Contains(known, item) {
			r.Fault(n, "enabled_items: there is no such kind of items%s", conf.Suggest(item, known))
		}
	}
	for _, k := range all {
		if len(enabled) > 0 && !slices.Contains(enabled, k.String()) {
			r.out.Disabled = append(r.out.Disabled, k)
		}
	}
}

// lifetime reads how long servers keep values: in whole seconds, and memcached takes more than 30 days for a date.
func (r *configReader) lifetime(n *yaml.Node, ttl *lifetime) {
	ttl.given = true
	r.Decode(n, &ttl.of)
	if ttl.of == 0 {
		ttl.of = defaultTTL
	}
	if ttl.of < time.Second || ttl.of > 30*24*time.Hour {
		r.Fault(n, "%s: must be from 1s to 720h", ttl.key)
	}
}

func (r *configReader) memory(n *yaml.Node) {
	c := memoryConfig{MaxSize: DefaultBytes, MaxItemSize: DefaultBytes / 2}
	r.Decode(n, &c)
	if c.MaxItemSize > c.MaxSize {
		r.Fault(r.at, "config: max_item_size is larger than max_size")
	}
	r.unused("config", n, r.memoryUnused)
	r.out.MaxBytes, r.out.MaxItemBytes = int64(c.MaxSize), int64(c.MaxItemSize)
}

func (r *configReader) memcached(n *yaml.Node, ttl time.Duration) {
	c := defaultMemcached()
	r.Decode(n, &c)
	r.positive(map[string]int64{"timeout": int64(c.Timeout), "max_async_concurrency": int64(c.MaxAsyncConcurrency),
		"dns_provider_update_interval": int64(c.DNSProviderUpdateInterval)})
	r.notNegative(map[string]int64{"max_async_buffer_size": int64(c.MaxAsyncBufferSize),
		"max_get_multi_batch_size": int64(c.MaxGetMultiBatchSize)})
	if len(c.Addresses) == 0 {
		r.Fault(r.at, "config: addresses: is empty: at least one is needed, such as dns+memcached:11211")
	}
	if c.AutoDiscovery {
		r.ignore("config: auto_discovery", "addresses are looked up by DNS")
	}
	r.tooLong("timeout", c.Timeout, defaultMemcached().Timeout)
	r.breaker(n, c.Breaker)
	r.out.server = func(log *slog.Logger, reg prometheus.Registerer, name string) *Server {
		return newMemcached(log, reg, name, ttl, c)
	}
}

func (r *configReader) redis(n *yaml.Node, ttl time.Duration) {
	c := defaultRedis()
	r.Decode(n, &c)
	r.positive(map[string]int64{"max_async_concurrency": int64(c.MaxAsyncConcurrency),
		"dial_timeout": int64(c.DialTimeout), "read_timeout": int64(c.ReadTimeout), "write_timeout": int64(c.WriteTimeout)})
	r.notNegative(map[string]int64{"max_async_buffer_size": int64(c.MaxAsyncBufferSize),
		"get_multi_batch_size": int64(c.GetMultiBatchSize), "db": int64(c.DB)})
	if c.Addr == "" {
		r.Fault(r.at, "config: addr: is empty: it names the server, such as redis:6379")
	}
	if c.CacheSize != 0 {
		r.ignore("config: cache_size", "--index-cache-size is the memory of this process")
	}
	r.unused("config", n, map[string]string{"max_set_multi_concurrency": setsOne, "set_multi_batch_size": setsOne})
	r.tooLong("read_timeout", c.ReadTimeout, defaultRedis().ReadTimeout)
	r.tooLong("write_timeout", c.WriteTimeout, defaultRedis().WriteTimeout)
	r.breaker(n, c.Breaker)
	files := r.tls(c)
	r.out.server = func(log *slog.Logger, reg prometheus.Registerer, name string) *Server {
		return newRedis(log, reg, name, ttl, c, files)
	}
}

// setsOne is why a cache needs no groups of writes.
const setsOne = "values are written one by one, max_async_concurrency at the same time"

// tls reads the files of TLS, nil where it is off.
func (r *configReader) tls(c redisConfig) *tls.Config {
	version, ok := tlsVersions[c.TLS.MinVersion]
	if !ok {
		r.Fault(r.at, "config: tls_config: min_version: known are 1.0, 1.1, 1.2, 1.3")
	}
	if !c.TLSEnabled || r.Err() != nil {
		return nil
	}
	files, err := promconfig.NewTLSConfig(&promconfig.TLSConfig{
		CAFile: c.TLS.CAFile, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, ServerName: c.TLS.ServerName,
		InsecureSkipVerify: c.TLS.InsecureSkipVerify, MinVersion: version,
	})
	if err != nil {
		r.Fault(r.at, "config: tls_config: %v", err)
	}
	return files
}

func (r *configReader) positive(values map[string]int64) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if values[key] <= 0 {
			r.Fault(r.at, "config: %s: must be positive", key)
		}
	}
}

func (r *configReader) notNegative(values map[string]int64) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if values[key] < 0 {
			r.Fault(r.at, "config: %s: is negative", key)
		}
	}
}
