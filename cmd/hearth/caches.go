package main

import (
	"strings"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/run"
	"github.com/hearth-metrics/hearth/store/cache"
)

// cacheFlags say what a store gateway keeps of blocks, and where.
type cacheFlags struct {
	size          byteSize
	index, bucket content
}

func (f *cacheFlags) bind(c flagger) {
	c.Flag("index-cache-size", "Bytes of memory for what was read of blocks: postings, series, chunks. At most a quarter "+
		"of the process's memory limit is used. Without effect where --index-cache.config is of type IN-MEMORY.").
		Default("250MB").SetValue(&f.size)
	f.index.bind(c, "index-cache.config", "Cache for what is read of indexes, as Thanos's YAML: type IN-MEMORY, "+
		"MEMCACHED or REDIS. Servers are used beside the memory of --index-cache-size.")
	f.bucket.bind(c, "store.caching-bucket.config", "Cache for chunks, as Thanos's YAML: type IN-MEMORY, MEMCACHED or "+
		"REDIS. Chunks are kept in memory without it, too.")
}

// build makes the cache's options, and adds the clients of its servers as parts.
func (f *cacheFlags) build(b *builder) cache.Options {
	index := readCache(b, &f.index, cache.ReadIndexConfig)
	bucket := readCache(b, &f.bucket, cache.ReadBucketConfig)
	wanted := int64(f.size)
	if index.MaxBytes >= 0 {
		wanted = index.MaxBytes
	}
	wanted += max(bucket.MaxBytes, 0)
	most := min(wanted, run.MemoryLimit()/4)
	if most < wanted && wanted > cache.DefaultBytes {
		b.log.Warn("the cache is smaller than configured: it takes a quarter of the process's memory limit at most",
			"bytes", most, "configured", wanted)
	}
	return cache.Options{
		MaxBytes: most, MaxItemBytes: index.MaxItemBytes, Disabled: index.Disabled,
		Index: addCacheServer(b, index, "index-cache"), Chunks: addCacheServer(b, bucket, "caching-bucket"),
	}
}

// readCache reads the configuration of one of the caches.
func readCache(b *builder, c *content,
	parse func(name string, content []byte) (cache.Config, error)) cache.Config {
	yaml, err := c.read()
	b.check(err)
	if yaml == nil {
		return cache.Config{MaxBytes: -1}
	}
	yaml, err = conf.ExpandEnv(c.where(), yaml)
	b.check(err)
	config, err := parse(c.where(), yaml)
	b.check(err)
	if len(config.Ignored) > 0 {
		b.log.Warn("parts of a cache's configuration have no effect", "configuration", c.where(),
			"keys", strings.Join(config.Ignored, ", "))
	}
	return config
}

// addCacheServer adds the client of a cache's server, if it has one.
func addCacheServer(b *builder, c cache.Config, name string) *cache.Server {
	s := c.Server(b.log, b.reg, name)
	if s != nil {
		b.add(name, s.Open, s.Close)
	}
	return s
}
