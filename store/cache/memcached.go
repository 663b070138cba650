package cache

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	dskit "github.com/grafana/dskit/cache"
	"github.com/grafana/dskit/dns"
	"github.com/grafana/gomemcache/memcache"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/gokit"
)

// memcachedConfig has Thanos's keys and defaults.
type memcachedConfig struct {
	Addresses                 []string      `yaml:"addresses"`
	Timeout                   time.Duration `yaml:"timeout"`
	MaxIdleConnections        int           `yaml:"max_idle_connections"`
	MaxAsyncConcurrency       int           `yaml:"max_async_concurrency"`
	MaxAsyncBufferSize        int           `yaml:"max_async_buffer_size"`
	MaxGetMultiConcurrency    int           `yaml:"max_get_multi_concurrency"`
	MaxItemSize               conf.Bytes    `yaml:"max_item_size"`
	MaxGetMultiBatchSize      int           `yaml:"max_get_multi_batch_size"`
	DNSProviderUpdateInterval time.Duration `yaml:"dns_provider_update_interval"`
	AutoDiscovery             bool          `yaml:"auto_discovery"`
	Breaker                   breakerConfig `yaml:"set_async_circuit_breaker_config"`
}

func defaultMemcached() memcachedConfig {
	return memcachedConfig{
		Timeout: 500 * time.Millisecond, MaxIdleConnections: 100, MaxAsyncConcurrency: 20, MaxAsyncBufferSize: 10000,
		MaxGetMultiConcurrency: 100, MaxItemSize: 1 << 20, DNSProviderUpdateInterval: 10 * time.Second,
		Breaker: defaultBreaker(),
	}
}

// memcached is a pool of memcached servers. Which server has a key is decided by a jump hash over their names, so that
// a server more or less moves few keys.
type memcached struct {
	client    *memcache.Client
	selector  *dskit.MemcachedJumpHashSelector
	addresses []string
	every     time.Duration
	provider  *dns.Provider
	log       *slog.Logger
}

func newMemcached(log *slog.Logger, reg prometheus.Registerer, name string, ttl time.Duration,
	c memcachedConfig) *Server {
	m := &memcached{selector: &dskit.MemcachedJumpHashSelector{}, addresses: c.Addresses,
		every: c.DNSProviderUpdateInterval, log: log.With("cache", name),
		provider: dns.NewProvider(dns.GolangResolverType, 0, gokit.NewQuiet(log, "dns"), nil)}
	m.client = memcache.NewFromSelector(m.selector)
	m.client.Timeout = min(c.Timeout, longestWait)
	m.client.ConnectTimeout = m.client.Timeout
	m.client.MaxIdleConns = c.MaxIdleConnections
	failures, pause := c.Breaker.settings()
	return newServer(log, reg, name, serverOptions{
		kind: "memcached", ttl: ttl, maxItem: int64(c.MaxItemSize), gets: c.MaxGetMultiConcurrency,
		getBatch: c.MaxGetMultiBatchSize, writers: c.MaxAsyncConcurrency, queue: c.MaxAsyncBufferSize,
		failures: failures, pause: pause,
	}, m)
}

// run looks the servers' addresses up, again and again. While nothing is found the last addresses stay.
func (m *memcached) run(ctx context.Context) {
	defer m.client.Close()
	known := false
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for {
		err := m.provider.Resolve(ctx, m.addresses)
		if found := m.provider.Addresses(); len(found) > 0 {
			err = m.selector.SetServers(found...)
		}
		if ctx.Err() == nil && err != nil && !known {
			m.log.Warn("no address of a cache server is known: going on without it", "err", err)
		}
		known = true // the breaker says the rest
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *memcached) get(ctx context.Context, keys []string) (map[string][]byte, error) {
	items, err := m.client.GetMulti(ctx, keys)
	values := make(map[string][]byte, len(items))
	for k, item := range items {
		values[k] = item.Value
	}
	return values, memcachedFault(err)
}

// memcachedFault is the client's error in words that all backends share.
func memcachedFault(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, memcache.ErrNoServers):
		return errNotConnected
	case errors.As(err, &timeout) && timeout.Timeout():
		return context.DeadlineExceeded
	}
	return err
}

func (m *memcached) set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	item := &memcache.Item{Key: key, Value: value, Expiration: int32(ttl / time.Second)}
	return memcachedFault(m.client.Set(item))
}
