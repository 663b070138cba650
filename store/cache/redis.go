package cache

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"github.com/hearth-metrics/hearth/internal/conf"
)

// redisConfig has Thanos's keys and defaults.
type redisConfig struct {
	Addr                   string        `yaml:"addr"`
	Prefix                 string        `yaml:"prefix"`
	Username               string        `yaml:"username"`
	Password               string        `yaml:"password"`
	DB                     int           `yaml:"db"`
	DialTimeout            time.Duration `yaml:"dial_timeout"`
	ReadTimeout            time.Duration `yaml:"read_timeout"`
	WriteTimeout           time.Duration `yaml:"write_timeout"`
	MaxGetMultiConcurrency int           `yaml:"max_get_multi_concurrency"`
	GetMultiBatchSize      int           `yaml:"get_multi_batch_size"`
	MaxSetMultiConcurrency int           `yaml:"max_set_multi_concurrency"`
	SetMultiBatchSize      int           `yaml:"set_multi_batch_size"`
	TLSEnabled             bool          `yaml:"tls_enabled"`
	TLS                    tlsConfig     `yaml:"tls_config"`
	CacheSize              conf.Bytes    `yaml:"cache_size"`
	MasterName             string        `yaml:"master_name"`
	MaxAsyncBufferSize     int           `yaml:"max_async_buffer_size"`
	MaxAsyncConcurrency    int           `yaml:"max_async_concurrency"`
	Breaker                breakerConfig `yaml:"set_async_circuit_breaker_config"`
}

func defaultRedis() redisConfig {
	return redisConfig{
		DialTimeout: 5 * time.Second, ReadTimeout: 3 * time.Second, WriteTimeout: 3 * time.Second,
		MaxGetMultiConcurrency: 100, GetMultiBatchSize: 100, MaxSetMultiConcurrency: 100, SetMultiBatchSize: 100,
		MaxAsyncBufferSize: 10000, MaxAsyncConcurrency: 20, Breaker: defaultBreaker(),
	}
}

// redis is one Redis server, a cluster of them, or what a sentinel names.
type redis struct {
	log     *slog.Logger
	options rueidis.ClientOption
	prefix  string
	client  atomic.Pointer[rueidis.Client] // nil until connected
}

func newRedis(log *slog.Logger, reg prometheus.Registerer, name string, ttl time.Duration, c redisConfig,
	tls *tls.Config) *Server {
	r := &redis{log: log.With("cache", name), prefix: c.Prefix, options: rueidis.ClientOption{
		InitAddress: strings.Split(c.Addr, ","), ShuffleInit: true,
		Username: c.Username, Password: c.Password, SelectDB: c.DB, TLSConfig: tls,
		Dialer: net.Dialer{Timeout: c.DialTimeout}, ConnWriteTimeout: min(c.WriteTimeout, c.ReadTimeout),
		DisableCache:   true, // memory here is the cache of the client's side
		DisableRetry:   true, // the bucket is the second try
		Sentinel:       rueidis.SentinelOption{MasterSet: c.MasterName, Username: c.Username, Password: c.Password},
		SendToReplicas: func(cmd rueidis.Completed) bool { return cmd.IsReadOnly() },
	}}
	failures, pause := c.Breaker.settings()
	return newServer(log, reg, name, serverOptions{
		kind: "redis", ttl: ttl, gets: c.MaxGetMultiConcurrency, getBatch: c.GetMultiBatchSize,
		writers: c.MaxAsyncConcurrency, queue: c.MaxAsyncBufferSize, failures: failures, pause: pause,
	}, r)
}

// reconnect is how often a first connection is tried.
const reconnect = 5 * time.Second

// run makes the first connection. The client renews it by itself.
func (r *redis) run(ctx context.Context) {
	for tries := 1; ; tries++ {
		client, err := rueidis.NewClient(r.options)
		if err == nil {
			r.client.Store(&client)
			defer client.Close()
			<-ctx.Done()
			return
		}
		if tries == 1 && ctx.Err() == nil {
			r.log.Warn("no connection to the cache server: going on without it", "err", err)
		}
		select {
		case <-time.After(reconnect):
		case <-ctx.Done():
			return
		}
	}
}

func (r *redis) get(ctx context.Context, keys []string) (map[string][]byte, error) {
	client := r.client.Load()
	if client == nil {
		return nil, errNotConnected
	}
	named := make([]string, len(keys))
	for i, k := range keys {
		named[i] = r.prefix + k
	}
	messages, err := rueidis.MGet(*client, ctx, named)
	if err != nil {
		return nil, err
	}
	values := make(map[string][]byte, len(messages))
	for k, m := range messages {
		if b, err := m.AsBytes(); err == nil { // an error is a key without a value
			values[k[len(r.prefix):]] = b
		}
	}
	return values, nil
}

func (r *redis) set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	client := r.client.Load()
	if client == nil {
		return errNotConnected
	}
	set := (*client).B().Set().Key(r.prefix + key).Value(rueidis.BinaryString(value))
	return (*client).Do(ctx, set.Ex(ttl).Build()).Error()
}
