package cache

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// everyKey are configurations of Thanos with all of its keys.
const (
	everyMemcachedKey = `type: MEMCACHED
config:
  addresses: ["dns+cache.example:11211"]
  timeout: 100ms
  max_idle_connections: 10
  max_async_concurrency: 3
  max_async_buffer_size: 30
  max_get_multi_concurrency: 5
  max_item_size: 2MiB
  max_get_multi_batch_size: 7
  dns_provider_update_interval: 3s
  auto_discovery: false
  set_async_circuit_breaker_config:
    {enabled: true, half_open_max_requests: 1, open_duration: 2s, min_requests: 1, consecutive_failures: 9,
     failure_percent: 0.5}
`
	everyRedisKey = `type: redis
config:
  addr: "a:6379,b:6379"
  prefix: p
  username: u
  password: "hunter2"
  db: 3
  dial_timeout: 1s
  read_timeout: 1s
  write_timeout: 2s
  max_get_multi_concurrency: 5
  get_multi_batch_size: 6
  max_set_multi_concurrency: 7
  set_multi_batch_size: 8
  tls_enabled: true
  tls_config: {ca_file: "", cert_file: "", key_file: "", server_name: s, insecure_skip_verify: true, min_version: "1.2"}
  cache_size: 1GiB
  master_name: m
  max_async_buffer_size: 9
  max_async_concurrency: 10
  set_async_circuit_breaker_config: {enabled: false}
`
	everyBucketKey = `chunk_subrange_size: 16000
max_chunks_get_range_requests: 5
chunk_object_attrs_ttl: 24h
chunk_subrange_ttl: 1h
blocks_iter_ttl: 5m
metafile_exists_ttl: 2h
metafile_doesnt_exist_ttl: 15m
metafile_content_ttl: 24h
metafile_max_size: 1MiB
`
)

func TestConfig(t *testing.T) {
	say := func(c Config, err error) string {
		if err != nil {
			return err.Error()
		}
		out := fmt.Sprintf("%d %d %v %d", c.MaxBytes, c.MaxItemBytes, c.Disabled, len(c.Ignored))
		if s := c.Server(discard, nil, "test"); s != nil {
			o := s.opts
			out += fmt.Sprintf("; %s %v %d %d %d %d %d %d %v", o.kind, o.ttl, o.maxItem, o.gets, o.getBatch, o.writers, o.queue,
				o.failures, o.pause)
			_ = s.Close()
		}
		return out
	}
	f := func(read func(string, []byte) (Config, error), yaml, want string) {
		t.Helper()
		if got := say(read("f", []byte(yaml))); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", yaml, got, want)
		}
	}
	index, bucket := ReadIndexConfig, ReadBucketConfig
	f(index, "type: IN-MEMORY", "262144000 131072000 [] 0")
	f(index, "type: in-memory\nconfig: {max_size: 1GB, max_item_size: 5}\nenabled_items: [Postings, Series]\nttl: 1h",
		"1073741824 5 [ExpandedPostings] 1")
	f(index, everyMemcachedKey+"ttl: 2h", "-1 0 [] 3; memcached 2h0m0s 2097152 5 7 3 30 9 2s")
	f(index, "type: MEMCACHED\nconfig: {addresses: [a:1], auto_discovery: true}",
		"-1 0 [] 1; memcached 24h0m0s 1048576 100 0 20 10000 5 5s")
	f(index, everyRedisKey, "-1 0 [] 6; redis 24h0m0s 0 5 6 10 9 5 5s")
	f(bucket, everyRedisKey+everyBucketKey, "-1 0 [] 14; redis 1h0m0s 0 5 6 10 9 5 5s")
	f(bucket, "type: IN-MEMORY\n"+everyBucketKey, "262144000 131072000 [] 9")
	f(bucket, "type: GROUPCACHE\nconfig: {self_url: a, peers: [b], groupcache_group: c, dns_interval: 1s, timeout: 2s, "+
		"max_size: 1GB, dns_sd_resolver: golang}", "-1 0 [] 1")
	// What is wrong is said by line and key.
	f(index, "", "f: type: is missing; known are IN-MEMORY, MEMCACHED, REDIS")
	f(index, "type: GROUPCACHE", "f:1: type: there is no such cache; known are IN-MEMORY, MEMCACHED, REDIS")
	f(index, "type: MEMCACHE\nconfig: {}", "f:1: type: there is no such cache; did you mean MEMCACHED?")
	f(index, "type: IN-MEMORY\nconfg: {}", "f:2: confg: there is no such key here; did you mean config?")
	f(index, "type: MEMCACHED", "f:1: config: addresses: is empty: at least one is needed, such as dns+memcached:11211")
	f(index, "type: REDIS\nconfig: {adr: x}",
		"f:2: adr: there is no such key here; did you mean addr?\n"+
			"f:2: config: addr: is empty: it names the server, such as redis:6379")
	f(index, "type: IN-MEMORY\nconfig: {max_size: 1KB, max_item_size: 2KB}",
		"f:2: config: max_item_size is larger than max_size")
	f(index, "type: IN-MEMORY\nenabled_items: [Posting]",
		"f:2: enabled_items: there is no such kind of items; did you mean Postings?")
	f(index, "type: IN-MEMORY\nttl: 100ms", "f:2: ttl: must be from 1s to 720h")
	f(index, "type: REDIS\nconfig: {addr: a, db: -1, dial_timeout: 0s}",
		"f:2: config: dial_timeout: must be positive\nf:2: config: db: is negative")
}

// TestIgnored: each key of Thanos's files that has no effect is named with its reason, and no other one is.
func TestIgnored(t *testing.T) {
	f := func(read func(string, []byte) (Config, error), yaml string, want ...string) {
		t.Helper()
		c, err := read("f", []byte(yaml))
		var got []string
		for _, s := range c.Ignored {
			key, reason, _ := strings.Cut(s, " (")
			if got = append(got, key); len(reason) < 20 {
				t.Errorf("%q gives no reason", s)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s\n%v\ngot  %q\nwant %q", yaml, err, got, want)
		}
	}
	index, bucket := ReadIndexConfig, ReadBucketConfig
	const breaker = "config: set_async_circuit_breaker_config"
	f(index, "type: IN-MEMORY\nconfig: {max_size: 1GB, max_item_size: 1MB}\nenabled_items: [Series]\nttl: 1h", "ttl")
	f(bucket, "type: IN-MEMORY\nconfig: {max_size: 1GB, max_item_size: 1MB}\nchunk_subrange_ttl: 1h",
		"config: max_item_size", "chunk_subrange_ttl")
	f(index, everyMemcachedKey+"enabled_items: []\nttl: 1h", breaker+": half_open_max_requests", breaker+": min_requests",
		breaker+": failure_percent")
	f(index, everyRedisKey, breaker, "config: cache_size", "config: max_set_multi_concurrency",
		"config: set_multi_batch_size", "config: read_timeout", "config: write_timeout")
	f(bucket, everyMemcachedKey+everyBucketKey, breaker+": half_open_max_requests", breaker+": min_requests",
		breaker+": failure_percent", "chunk_subrange_size", "max_chunks_get_range_requests", "chunk_object_attrs_ttl",
		"blocks_iter_ttl", "metafile_exists_ttl", "metafile_doesnt_exist_ttl", "metafile_content_ttl", "metafile_max_size")
	// What says only what is done anyway is not named.
	f(index, "type: REDIS\nconfig: {addr: a, cache_size: 0, read_timeout: 3s, write_timeout: 100ms}")
	f(index, "type: MEMCACHED\nconfig: {addresses: [a:1], auto_discovery: false, timeout: 500ms}")
	f(index, "type: MEMCACHED\nconfig: {addresses: [a:1], auto_discovery: true, timeout: 2s}", "config: auto_discovery",
		"config: timeout")
	f(bucket, "type: GROUPCACHE\nconfig: {self_url: a, peers: [b], groupcache_group: c, dns_interval: 1s, timeout: 2s, "+
		"max_size: 1GB, dns_sd_resolver: golang}", "type: GROUPCACHE")
}

// TestConfigSecrets: no error shows a password.
func TestConfigSecrets(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(ca, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"db: hunter2", "db: [hunter2", "tls_enabled: hunter2", "hunter2",
		"tls_config: {ca_file: " + ca + "}", "tls_config: {min_version: hunter2}", "tls_config: {key_file: /hunter2}"} {
		yaml := "type: REDIS\nconfig:\n  addr: a\n  password: hunter2\n  " + wrong + "\n"
		if !strings.Contains(wrong, "tls_enabled") {
			yaml += "  tls_enabled: true\n"
		}
		_, err := ReadIndexConfig("f", []byte(yaml))
		if err == nil || errs.KindOf(err) != errs.Invalid ||
			strings.Contains(strings.ReplaceAll(err.Error(), "/hunter2", ""), "hunter2") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

func TestBreakerSettings(t *testing.T) {
	if n, d := (breakerConfig{Enabled: true}).settings(); n != 1 || d != time.Second {
		t.Fatal(n, d)
	}
}
