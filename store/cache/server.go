package cache

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	// longestWait is how long a lookup or a write on a server may take, whatever the configured timeouts say: the bucket
	// itself answers in that time.
	longestWait = 500 * time.Millisecond
	// queueBytes bounds what waits to be written, in bytes.
	queueBytes = 64 << 20
)

// backend speaks to a cache server. Its calls end soon after ctx does.
type backend interface {
	// get returns what the server has of keys. Values are the caller's.
	get(ctx context.Context, keys []string) (map[string][]byte, error)
	set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// run connects, and keeps connected, until ctx ends. Before it has connected get and set are errNotConnected.
	run(ctx context.Context)
}

var errNotConnected = errors.New("there is no connection yet")

// serverOptions are what all kinds of servers have in common.
type serverOptions struct {
	kind     string // "memcached" or "redis"
	ttl      time.Duration
	maxItem  int64 // bytes; 0 = any
	gets     int   // lookups at a time; 0 = any
	getBatch int   // keys of one lookup; 0 = any
	writers  int
	queue    int // writes that may wait
	failures int // lookups and writes in a row whose failure stops the use of the server for a while
	pause    time.Duration
}

// Server is a cache server, or several that act as one. It is safe for concurrent use. A server that is slow or away
// costs each request at most longestWait, and after a few failures nothing: then it is not asked for a while.
type Server struct {
	log     *slog.Logger
	name    string
	opts    serverOptions
	backend backend
	metrics *serverMetrics
	breaker breaker
	gate    chan struct{} // nil = no bound

	queue  chan write
	queued atomic.Int64 // bytes of queue

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	mu     sync.RWMutex // guards closed, and wg against an Add after Wait
	closed bool
	wg     sync.WaitGroup
}

// write is a value that waits to be written.
type write struct {
	key   string
	value []byte
}

func newServer(log *slog.Logger, reg prometheus.Registerer, name string, opts serverOptions, b backend) *Server {
	s := &Server{log: log, name: name, opts: opts, backend: b, queue: make(chan write, opts.queue),
		metrics: newServerMetrics(reg, opts.kind, name), breaker: breaker{most: opts.failures, pause: opts.pause}}
	if opts.gets > 0 {
		s.gate = make(chan struct{}, opts.gets)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Open starts to connect. It never fails and does not wait: without a server everything comes from the bucket.
func (s *Server) Open(context.Context, func(error)) error {
	s.wg.Go(func() { s.backend.run(s.ctx) })
	for range s.opts.writers {
		s.wg.Go(s.write)
	}
	return nil
}

// Close ends the connections. What was not written yet is dropped. It is idempotent.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	return nil
}

// begin reports whether the server may be used now; then done is called with the outcome.
func (s *Server) begin(operation string) bool {
	if !s.breaker.allow(time.Now()) {
		s.metrics.skipped.WithLabelValues(operation, "server_away").Inc()
		return false
	}
	s.metrics.operations.WithLabelValues(operation).Inc()
	return true
}

func (s *Server) done(operation string, since time.Time, err error) {
	s.metrics.duration.WithLabelValues(operation).Observe(time.Since(since).Seconds())
	if err != nil {
		reason := "other"
		switch {
		case errors.Is(err, errNotConnected):
			reason = "not_connected"
		case errors.Is(err, context.DeadlineExceeded):
			reason = "timeout"
		}
		s.metrics.failures.WithLabelValues(operation, reason).Inc()
		if reason == "not_connected" { // it costs no time, and ends by itself
			return
		}
	}
	switch s.breaker.done(time.Now(), err) {
	case tripped:
		s.log.Warn("the cache server does not answer: going on without it", "cache", s.name, "kind", s.opts.kind, "err", err)
	case recovered:
		s.log.Info("the cache server answers again", "cache", s.name, "kind", s.opts.kind)
	}
}

// get returns what the server has of keys, after longestWait at most. The values are the caller's.
func (s *Server) get(ctx context.Context, keys []string) map[string][]byte {
	ctx, cancel := context.WithTimeout(ctx, longestWait)
	defer cancel()
	batch := len(keys)
	if s.opts.getBatch > 0 {
		batch = s.opts.getBatch
	}
	results := make(chan map[string][]byte, len(keys))
	asked := 0
	for part := range slices.Chunk(keys, max(batch, 1)) {
		if s.ask(ctx, part, results) {
			asked++
		}
	}
	all := map[string][]byte{}
	for range asked {
		select {
		case values := <-results:
			maps.Copy(all, values)
		case <-ctx.Done():
			return all
		}
	}
	return all
}

// ask looks keys up in the background and sends the result to results, which has capacity. The lookup goes on when ctx
// ends: a caller that went away says nothing of the server.
func (s *Server) ask(ctx context.Context, keys []string, results chan<- map[string][]byte) bool {
	if s.gate != nil {
		select {
		case s.gate <- struct{}{}:
		case <-ctx.Done():
			s.metrics.skipped.WithLabelValues("getmulti", "busy").Inc()
			return false
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed || !s.begin("getmulti") {
		s.leave()
		return false
	}
	s.wg.Go(func() {
		defer s.leave()
		start := time.Now()
		ctx, cancel := context.WithTimeout(s.ctx, longestWait)
		defer cancel()
		values, err := s.backend.get(ctx, keys)
		if err == nil || s.ctx.Err() == nil {
			s.done("getmulti", start, err)
		}
		results <- values
	})
	return true
}

func (s *Server) leave() {
	if s.gate != nil {
		<-s.gate
	}
}

// put queues a value to be written. It never waits: what does not fit is dropped. value is not changed any more.
func (s *Server) put(key string, value []byte) {
	size := int64(len(value))
	switch {
	case s.opts.maxItem > 0 && size+sealSize > s.opts.maxItem:
		s.metrics.skipped.WithLabelValues("set", "max_item_size").Inc()
		return
	case s.queued.Add(size) > queueBytes:
	default:
		select {
		case s.queue <- write{key, value}:
			return
		default:
		}
	}
	s.queued.Add(-size)
	s.metrics.skipped.WithLabelValues("set", "async_buffer_full").Inc()
}

// write writes what is queued, until Close.
func (s *Server) write() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case w := <-s.queue:
			s.queued.Add(-int64(len(w.value)))
			if !s.begin("set") {
				continue
			}
			start := time.Now()
			ctx, cancel := context.WithTimeout(s.ctx, longestWait)
			err := s.backend.set(ctx, w.key, seal(w.key, w.value), s.opts.ttl)
			cancel()
			if s.ctx.Err() != nil {
				return
			}
			s.metrics.dataSize.WithLabelValues("set").Observe(float64(len(w.value)))
			s.done("set", start, err)
		}
	}
}

// breaker stops the use of a server that fails. After most failures in a row it is used again after pause: by one call,
// and by others if that one succeeds.
type breaker struct {
	most  int
	pause time.Duration

	mu       sync.Mutex // guards what follows
	failures int
	until    time.Time
}

// change is what an outcome changed.
type change uint8

const (
	unchanged change = iota
	tripped
	recovered
)

func (b *breaker) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < b.most {
		return true
	}
	if now.Before(b.until) {
		return false
	}
	b.until = now.Add(b.pause)
	return true
}

func (b *breaker) done(now time.Time, err error) change {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.failures >= b.most
	switch {
	case err == nil:
		b.failures = 0
		if was {
			return recovered
		}
	default:
		b.failures++
		if b.failures >= b.most {
			b.until = now.Add(b.pause)
		}
		if b.failures == b.most {
			return tripped
		}
	}
	return unchanged
}

// serverMetrics have Thanos's names.
type serverMetrics struct {
	operations *prometheus.CounterVec   // by operation: getmulti, set
	failures   *prometheus.CounterVec   // by operation and reason
	skipped    *prometheus.CounterVec   // by operation and reason
	duration   *prometheus.HistogramVec // by operation
	dataSize   *prometheus.HistogramVec // by operation
}

// newServerMetrics registers the metrics of a server of a kind; name tells several apart.
func newServerMetrics(reg prometheus.Registerer, kind, name string) *serverMetrics {
	if reg != nil {
		reg = prometheus.WrapRegistererWith(prometheus.Labels{"name": name}, reg)
	}
	f := promauto.With(reg)
	prefix := "thanos_" + kind + "_operation"
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	return &serverMetrics{
		operations: counter("s_total", "Lookups and writes on the cache server.", "operation"),
		failures:   counter("_failures_total", "Lookups and writes that failed.", "operation", "reason"),
		skipped:    counter("_skipped_total", "Lookups and writes that were not tried.", "operation", "reason"),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "_duration_seconds", Help: "Time that lookups and writes took.",
			Buckets: []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1},
		}, []string{"operation"}),
		dataSize: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "_data_size_bytes", Help: "Size of what is written.",
			Buckets: []float64{32, 256, 512, 1024, 32 << 10, 256 << 10, 512 << 10, 1 << 20, 32 << 20},
		}, []string{"operation"}),
	}
}
