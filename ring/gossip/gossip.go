package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	dtls "github.com/grafana/dskit/crypto/tls"
	"github.com/grafana/dskit/dns"
	"github.com/grafana/dskit/flagext"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/kv/codec"
	"github.com/grafana/dskit/kv/memberlist"
	dring "github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/gokit"
	"github.com/hearth-metrics/hearth/ring"
)

// Gossip is the membership of this process in the cluster, and its snapshot of the other members. Its methods may be
// called concurrently.
type Gossip struct {
	log     *slog.Logger
	reg     prometheus.Registerer
	opts    Options
	metrics *metrics

	placement atomic.Pointer[ring.Placement] // of role receive, never nil
	snapshot  atomic.Pointer[snapshot]       // replaced as a whole by refresh

	// Open sets these. They do not change afterwards.
	local   locality
	kvs     *memberlist.KVInitService
	store   *memberlist.KV
	rings   kv.Client // values of type ringValue
	members kv.Client // values of type *cluster

	mu     sync.Mutex // guards wanted, foreignSince and silent, and the rebuilding of snapshot and placement
	wanted dring.InstanceDesc
	// foreignSince is since when this process does not belong to the cluster that it met, in Unix seconds; 0 = it
	// belongs. While it does not belong, it places no series and asks others to place none on it.
	foreignSince int64
	silent       bool // this process no longer writes its entries: it left, is closing, or gave way to another with its id

	settled    atomic.Bool            // another member was met, or this process no longer waits for one
	listening  atomic.Bool            // the fields that Open sets are set
	conflict   atomic.Pointer[string] // why this process does not belong to the cluster; nil = it does
	beatNow    chan struct{}          // wakes the heartbeat loop
	idConflict idConflict             // of the heartbeat loop only
	resumed    time.Duration          // of the heartbeat loop only: when a pause of this process last ended, by uptime
	// unnamedSince is of the heartbeat loop only: when others first named a bucket while this process was a gateway on one
	// without an identity, by uptime; nil = it is no such gateway, or none did.
	unnamedSince *time.Duration
	clock        atomic.Pointer[wallClock] // never nil

	// open says that Open succeeded and Close was not called. Close may be called at any time, also twice.
	lifeMu  sync.Mutex // guards open; held by Open and Close as a whole
	open    bool
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	closing atomic.Bool
}

// New checks opts; it opens no port. log and reg may be nil. The error names every fault of opts.
func New(log *slog.Logger, reg prometheus.Registerer, opts Options) (*Gossip, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.uptime == nil {
		start := time.Now()
		opts.uptime = func() time.Duration { return time.Since(start) }
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{log: log, reg: reg, opts: opts, beatNow: make(chan struct{}, 1)}
	g.metrics = newMetrics(reg, g)
	g.clock.Store(&wallClock{})
	g.snapshot.Store(&snapshot{cluster: newCluster(), rings: map[string]roleSnapshot{}})
	empty := ring.NewTokens(nil, max(opts.ReplicationFactor, 1))
	g.placement.Store(&empty)
	return g, nil
}

// Open listens, tries once to join, and registers this process. It returns errs.Conflict if this process does not
// belong to the cluster that it met. It is no error that no other member can be reached: Gossip goes on trying. fail
// is called if gossip ends by itself later. ctx bounds the opening only.
func (g *Gossip) Open(ctx context.Context, fail func(error)) (err error) {
	g.lifeMu.Lock()
	defer g.lifeMu.Unlock()
	if g.open {
		panic("BUG: gossip opened twice")
	}
	if err := g.listen(ctx); err != nil {
		return err
	}
	life, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	defer func() {
		if err != nil {
			cancel()
			err = errors.Join(err, services.StopAndAwaitTerminated(context.Background(), g.kvs))
		}
	}()
	g.settled.Store(len(g.opts.Join) == 0)
	met := g.join(ctx).met // rejoin logs the faults if they last
	if err := g.admit(ctx); err != nil {
		return err
	}
	if err := g.register(ctx); err != nil {
		return err
	}
	g.open = true
	g.wg.Go(func() { g.heartbeatLoop(life) })
	g.wg.Go(func() { g.rejoin(life, met > 0) })
	g.watch(life)
	g.wg.Go(func() { g.supervise(fail) })
	g.log.Info("joined the ring", "instance", g.opts.Instance.ID, "gossip", g.Address(),
		"roles", g.opts.Roles, "members_met", met)
	return nil
}

// listen starts the gossiped store.
func (g *Gossip) listen(ctx context.Context) error {
	ips := localIPs()
	e, err := locate(ctx, g.opts.BindAddress, g.opts.AdvertiseAddress, ips)
	if err != nil {
		return err
	}
	g.local = locality{endpoint: e, ips: ips}
	cfg := kvConfig(g.opts, e, g.metrics.refused)
	log := gokit.New(g.log, "gossip", libraryMessages, true)
	// Other users of the resolver in this process have DNS metrics of the same names, so these get a prefix.
	dnsReg := prometheus.WrapRegistererWithPrefix("hearth_ring_", g.reg)
	g.local.dns = dns.NewProvider(dns.GolangResolverType, 0, gokit.NewQuiet(g.log, "dns"), dnsReg)
	g.kvs = memberlist.NewKVInitService(&cfg, log, g.local.dns, g.reg)
	// A service ends with the context that it was started with. ctx bounds the opening only, so it is not used here.
	if err := services.StartAndAwaitRunning(context.Background(), g.kvs); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	if err := g.startStore(ctx); err != nil {
		_ = services.StopAndAwaitTerminated(context.Background(), g.kvs) // it fails with the cause that is returned
		return fmt.Errorf("gossip on %s: %w", g.opts.BindAddress, err)
	}
	g.listening.Store(true)
	return nil
}

// startStore waits until the store listens, and makes the clients for its values.
func (g *Gossip) startStore(ctx context.Context) (err error) {
	if g.store, err = g.kvs.GetMemberlistKV(); err != nil {
		return err
	}
	if err := g.store.AwaitRunning(ctx); err != nil {
		if cause := g.store.FailureCase(); cause != nil {
			return cause
		}
		return err
	}
	if g.rings, err = memberlist.NewClient(g.store, ringCodec{}); err != nil {
		return err
	}
	g.members, err = memberlist.NewClient(g.store, clusterCodec{})
	g.local.port = strconv.Itoa(g.store.GetListeningPort())
	return err
}

// kvConfig configures memberlist so that a cluster notices changes within a second or two.
func kvConfig(o Options, e endpoint, refused prometheus.Counter) memberlist.KVConfig {
	var c memberlist.KVConfig
	flagext.DefaultValues(&c) // the library refuses queue sizes of zero
	c.TCPTransport.BindAddrs = flagext.StringSlice{e.bindIP.String()}
	c.TCPTransport.BindPort, _ = strconv.Atoi(e.bindPort)
	if e.bindPort != "0" { // else the transport advertises the bound IP and the port that it got
		c.AdvertiseAddr = e.ip.String()
		c.AdvertisePort, _ = strconv.Atoi(e.port)
	}
	if o.TLS.Enabled {
		c.TCPTransport.TLSEnabled = true
		c.TCPTransport.TLS = dtls.ClientConfig{
			CertPath: o.TLS.CertFile, KeyPath: o.TLS.KeyFile, CAPath: o.TLS.CAFile, ServerName: o.TLS.ServerName,
			InsecureSkipVerify: o.TLS.SkipVerify, MinVersion: "VersionTLS13",
		}
	}
	c.ClusterLabel = o.ClusterLabel
	c.NotifyInterval = 100 * time.Millisecond // the heartbeats of 100 members then make 10 snapshots a second, not 50
	c.GossipInterval = 200 * time.Millisecond
	c.GossipNodes = 3
	c.PushPullInterval = 10 * time.Second
	c.StreamTimeout = 2 * time.Second
	c.LeaveTimeout = 2 * time.Second
	c.BroadcastTimeoutForLocalUpdatesOnShutdown = 2 * time.Second
	c.LeftIngestersTimeout = 5 * time.Minute
	c.Codecs = append([]codec.Codec{ringCodec{refused}, clusterCodec{refused}, electionsCodec{refused}}, o.Codecs...)
	return c
}

// supervise calls fail if gossip ends by itself, so that the process can stop.
func (g *Gossip) supervise(fail func(error)) {
	err := g.kvs.AwaitTerminated(context.Background())
	if g.closing.Load() || fail == nil {
		return
	}
	if err == nil {
		err = errors.New("gossip ended")
	}
	fail(err)
}

// Close stops gossiping. The member stays on the ring as Leaving, since it is expected back, unless Leave was called.
// A second call does nothing.
func (g *Gossip) Close() error {
	g.lifeMu.Lock()
	defer g.lifeMu.Unlock()
	if !g.open {
		return nil
	}
	g.announceLeaving(context.Background())
	return g.shutDown()
}

// shutDown ends all of g; other members hear nothing of it. lifeMu is held.
func (g *Gossip) shutDown() error {
	g.open = false
	g.closing.Store(true)
	g.cancel()
	err := services.StopAndAwaitTerminated(context.Background(), g.kvs)
	g.wg.Wait()
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	return nil
}

// Address is the host:port at which others reach the gossip of this process. It is valid after Open.
func (g *Gossip) Address() string { return net.JoinHostPort(g.local.host, g.local.port) }

// Placement says where series go now: to the receivers as this process sees them. It is never nil. While this process
// does not belong to the cluster that it met, the placement gives no members and writes fail: others could not rely
// on samples that this process acknowledged by another replication factor.
func (g *Gossip) Placement() ring.Placement {
	p := *g.placement.Load()
	if g.conflict.Load() != nil {
		return placesNothing{p}
	}
	return p
}

// Client gives access to further gossiped values. c must be one of Options.Codecs. It is valid after Open.
func (g *Gossip) Client(c codec.Codec) (kv.Client, error) { return memberlist.NewClient(g.store, c) }

// available returns errs.Unavailable before Open, else nil.
func (g *Gossip) available() error {
	if !g.listening.Load() {
		return errs.E(errs.Unavailable, "ring: gossip has not begun")
	}
	return nil
}

// Ready says why this process cannot work in the cluster yet; nil = it can.
func (g *Gossip) Ready() error {
	if err := g.available(); err != nil {
		return err
	}
	if why := g.conflict.Load(); why != nil {
		return errors.New(*why)
	}
	if !g.settled.Load() {
		return fmt.Errorf("ring: no other member met yet of %q", g.opts.Join)
	}
	v := g.snapshot.Load()
	for _, role := range g.opts.Roles {
		e, ok := v.rings[role].entries[g.opts.Instance.ID]
		if !ok || e.State != dring.ACTIVE {
			return fmt.Errorf("ring %s: this instance is not active", role)
		}
	}
	return nil
}
