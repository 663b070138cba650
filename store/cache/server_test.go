package cache

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/storage"
)

var discard = slog.New(slog.DiscardHandler)

const (
	bucketA = "00000000-0000-4000-8000-00000000000a"
	bucketB = "00000000-0000-4000-8000-00000000000b"
)

// fakeBackend keeps values in a map, and does what a test wants to them.
type fakeBackend struct {
	mu     sync.Mutex // guards what follows
	values map[string][]byte
	spoil  func(key string, value []byte) []byte // on the way out; nil = nothing
	fail   error
	silent bool // calls end only with their context
	asked  int
}

func (f *fakeBackend) run(ctx context.Context) { <-ctx.Done() }

func (f *fakeBackend) begin(ctx context.Context) error {
	f.mu.Lock()
	f.asked++
	silent, fail := f.silent, f.fail
	f.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	return fail
}

func (f *fakeBackend) get(ctx context.Context, keys []string) (map[string][]byte, error) {
	if err := f.begin(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string][]byte{}
	for _, k := range keys {
		if v, ok := f.values[k]; ok {
			if v = bytes.Clone(v); f.spoil != nil {
				v = f.spoil(k, v)
			}
			out[k] = v
		}
	}
	return out, nil
}

func (f *fakeBackend) set(ctx context.Context, key string, value []byte, _ time.Duration) error {
	if err := f.begin(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values[key] = value
	return nil
}

// change runs f while nobody uses the backend.
func (f *fakeBackend) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func fakeServer(t testing.TB) (*Server, *fakeBackend) {
	f := &fakeBackend{values: map[string][]byte{}}
	s := newServer(discard, nil, "test", serverOptions{kind: "redis", ttl: time.Hour, gets: 2, getBatch: 3, writers: 2,
		queue: 1000, maxItem: 1 << 20, failures: 3, pause: 5 * time.Second}, f)
	if err := s.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, f
}

// shared is a cache with little memory over a server, of a bucket.
func shared(s *Server, bucket string) *Cache {
	c := New(Options{MaxBytes: 1 << 20, Index: s, Chunks: s}, nil)
	c.SetBucket(bucket)
	return c
}

// TestShared: what one gateway read another one takes from the server, as long as it is the same bucket.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := fakeServer(t)
		o := newObject(rand.New(rand.NewPCG(2, 1)), 1, 10*PageSize+5)
		block, text, refs := ulid.ULID{1}, []byte("matchers"), []storage.SeriesRef{1, 2, 9}
		first := shared(s, bucketA)
		o.check(t, first, 0, o.Size)
		first.PutExpanded(block, text, NewSelection(0, refs))
		synctest.Wait() // for the writes
		o.reads.Store(0)
		second := shared(s, bucketA)
		o.check(t, second, 7, o.Size-7)
		if n := o.reads.Load(); n != 0 {
			t.Errorf("%d reads of the bucket though the server has all", n)
		}
		if _, got, ok := second.Expanded(t.Context(), block, text).Decode(); !ok || !slices.Equal(got, refs) {
			t.Error(got, ok)
		}
		counted := func(c *Cache, lookups, hits float64) {
			t.Helper()
			m := c.metrics
			got := []float64{testutil.ToFloat64(m.sharedLookups), testutil.ToFloat64(m.sharedHits),
				testutil.ToFloat64(m.sharedUnusable)}
			if !slices.Equal(got, []float64{lookups, hits, 0}) {
				t.Errorf("lookups, hits, unusable: %v, want %v, %v and 0", got, lookups, hits)
			}
		}
		counted(first, 11, 0)
		counted(second, 12, 12)
		for _, id := range []string{bucketB, "", "Not A\r\nUUID"} {
			other := shared(s, id)
			o.reads.Store(0)
			o.check(t, other, 0, o.Size)
			if n := o.reads.Load(); n == 0 {
				t.Errorf("bucket %q takes values of another bucket", id)
			}
			if got := other.Expanded(t.Context(), block, text); got != nil {
				t.Errorf("bucket %q: %v", id, got)
			}
		}
		s.Close()
	})
}

// TestPoisoned: whatever a server answers, what is read is the object.
func TestPoisoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := fakeServer(t)
		rnd := rand.New(rand.NewPCG(2, 2))
		o := newObject(rnd, 1, 6*PageSize+500)
		another := newObject(rnd, 2, 6*PageSize+500)
		block, text, refs := ulid.ULID{1}, []byte("matchers"), []storage.SeriesRef{1, 2, 9}
		first := shared(s, bucketA)
		o.check(t, first, 0, o.Size)
		another.check(t, first, 0, another.Size)
		first.PutExpanded(block, text, NewSelection(0, refs))
		first.PutExpanded(block, []byte("other"), NewSelection(0, refs[:1]))
		synctest.Wait()
		spoils := map[string]func(key string, v []byte) []byte{
			"none":             nil,
			"short":            func(_ string, v []byte) []byte { return v[:len(v)-1] },
			"long":             func(_ string, v []byte) []byte { return append(v, 0) },
			"empty":            func(string, []byte) []byte { return nil },
			"a flipped bit":    func(_ string, v []byte) []byte { v[rnd.IntN(len(v))] ^= 1 << rnd.IntN(8); return v },
			"another length":   func(k string, v []byte) []byte { return seal(k, v[:len(v)/2]) },
			"another's value":  func(k string, _ []byte) []byte { return f.values[otherKey(f, k)] },
			"garbage for refs": func(k string, _ []byte) []byte { return seal(k, []byte("\xff\xff\xff\xff\xff\xff\xff\x01")) },
		}
		for name, spoil := range spoils {
			f.change(func() { f.spoil = spoil })
			c := shared(s, bucketA)
			o.check(t, c, 0, o.Size)
			o.check(t, c, 3, o.Size-10)
			if _, got, ok := c.Expanded(t.Context(), block, text).Decode(); ok && !slices.Equal(got, refs) {
				t.Errorf("%s: %v", name, got)
			}
			synctest.Wait()
		}
		f.change(func() { f.spoil = nil })
		s.Close()
	})
}

// otherKey is any key but k. The caller holds f.mu.
func otherKey(f *fakeBackend, k string) string {
	for other := range f.values {
		if other != k {
			return other
		}
	}
	return ""
}

// TestServerAway: a server that fails or is silent costs little time and no answer, and is used again when it is back.
func TestServerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := fakeServer(t)
		o := newObject(rand.New(rand.NewPCG(2, 3)), 1, PageSize)
		read := func() time.Duration {
			start := time.Now()
			o.check(t, shared(s, bucketA), 0, o.Size)
			took := time.Since(start)
			synctest.Wait()
			return took
		}
		away := func(what string, change func()) {
			f.change(func() { change(); f.asked = 0; clear(f.values) })
			var total time.Duration
			for range 20 {
				total += read()
			}
			if total > 4*longestWait {
				t.Errorf("%s: 20 reads waited for %v", what, total)
			}
			if f.asked > 6 {
				t.Errorf("%s: it was asked %d times", what, f.asked)
			}
		}
		back := func() {
			f.change(func() { f.silent, f.fail, f.asked = false, nil, 0 })
			time.Sleep(6 * time.Second) // virtual: the pause of the breaker
			for range 3 {
				read()
			}
			o.reads.Store(0)
			read()
			if o.reads.Load() != 0 {
				t.Error("the server is back and not used")
			}
		}
		away("silent", func() { f.silent = true })
		back()
		away("failing", func() { f.fail = errors.New("fault") })
		back()
		gone, cancel := context.WithCancel(t.Context()) // a caller that goes away does not count against the server
		f.change(func() { f.silent = true })
		time.AfterFunc(longestWait/2, cancel)
		s.get(gone, []string{"a"})
		f.change(func() { f.silent = false })
		if took := read(); s.breaker.failures > 1 || took > longestWait {
			t.Errorf("%d failures, %v", s.breaker.failures, took)
		}
		s.Close()
		s.Close()
		if len(s.get(t.Context(), []string{"a"})) != 0 {
			t.Error("a closed server answers")
		}
	})
}

// TestServerBusy: writes that do not fit are dropped, and lookups beyond the bound wait for a bounded time.
func TestServerBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		f := &fakeBackend{values: map[string][]byte{}, silent: true}
		s := newServer(discard, reg, "test", serverOptions{kind: "memcached", ttl: time.Hour, gets: 1, writers: 1, queue: 2,
			maxItem: 100, failures: 1000, pause: time.Second}, f)
		if err := s.Open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		skipped := func(operation, reason string) float64 {
			return testutil.ToFloat64(s.metrics.skipped.WithLabelValues(operation, reason))
		}
		s.put("large", make([]byte, 100))
		s.put("a", []byte("a"))
		synctest.Wait() // the only writer has it
		for range 5 {
			s.put("b", []byte("b"))
		}
		if large, full := skipped("set", "max_item_size"), skipped("set", "async_buffer_full"); large != 1 || full != 3 {
			t.Errorf("%v too large, %v beyond the queue", large, full)
		}
		start := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { s.get(t.Context(), []string{"a"}) })
		}
		wg.Wait()
		if took := time.Since(start); took > longestWait {
			t.Errorf("lookups waited for %v", took)
		}
		s.Close()
		if n := s.queued.Load(); n < 0 {
			t.Errorf("%d bytes are queued", n)
		}
	})
}

// memcachedFake speaks as much of memcached's text protocol as the client does.
func memcachedFake(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	values := map[string][]byte{}
	serve := func(c net.Conn) {
		defer c.Close()
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			words := strings.Fields(line)
			mu.Lock()
			switch {
			case words[0] == "get" || words[0] == "gets":
				for _, k := range words[1:] {
					if v, ok := values[k]; ok {
						fmt.Fprintf(c, "VALUE %s 0 %d 1\r\n%s\r\n", k, len(v), v)
					}
				}
				fmt.Fprint(c, "END\r\n")
			case words[0] == "set" && len(words) == 5:
				size, _ := strconv.Atoi(words[4])
				b := make([]byte, size+2)
				if _, err := io.ReadFull(r, b); err == nil {
					values[words[1]] = b[:size]
					fmt.Fprint(c, "STORED\r\n")
				}
			default:
				fmt.Fprint(c, "ERROR\r\n")
			}
			mu.Unlock()
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestServers runs the clients against fakes that speak the protocols, or against real servers: those at
// TEST_MEMCACHED and TEST_REDIS (host:port).
func TestServers(t *testing.T) {
	f := func(name, yaml, server string) {
		t.Run(name, func(t *testing.T) {
			config, err := ReadBucketConfig("test", []byte(strings.ReplaceAll(yaml, "SERVER", server)))
			if err != nil {
				t.Fatal(err)
			}
			s := config.Server(discard, prometheus.NewRegistry(), "test")
			if err := s.Open(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			o := newObject(rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)), 1, 7*PageSize+5)
			o.Block = ulid.Make()
			deadline := time.Now().Add(20 * time.Second)
			for { // until connected, and written
				o.check(t, shared(s, bucketA), 0, o.Size)
				o.reads.Store(0)
				o.check(t, shared(s, bucketA), 0, o.Size)
				if o.reads.Load() == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("what was written is not found")
				}
				time.Sleep(20 * time.Millisecond)
			}
			if n := testutil.ToFloat64(s.metrics.operations.WithLabelValues("set")); n < 8 {
				t.Fatalf("%v writes", n)
			}
		})
	}
	redis := miniredis.RunT(t)
	redis.RequireUserAuth("user", "password")
	const redisYAML = "type: REDIS\nconfig: {addr: SERVER, username: user, password: password, prefix: 'mine:'}"
	f("redis", redisYAML, redis.Addr())
	for _, k := range redis.Keys() {
		if !strings.HasPrefix(k, "mine:"+formatVersion+":"+bucketA+":") || len(k) > 250 {
			t.Fatalf("key %q", k)
		}
		if ttl := redis.TTL(k); ttl != 24*time.Hour {
			t.Fatalf("%s stays for %v", k, ttl)
		}
	}
	const memcachedYAML = "type: MEMCACHED\nconfig: {addresses: [SERVER]}"
	f("memcached", memcachedYAML, memcachedFake(t))
	if real := os.Getenv("TEST_MEMCACHED"); real != "" {
		f("real memcached", memcachedYAML, real)
	}
	if real := os.Getenv("TEST_REDIS"); real != "" {
		f("real redis", "type: REDIS\nconfig: {addr: SERVER}", real)
	}
}
