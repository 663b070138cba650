package rpc

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Client stands for another process: it is a series.Source, ExemplarSource and MetadataSource, a rulestate.Source, and
// a Writer. It connects at the first call, and reconnects by itself. It is safe for concurrent use. It calls Info once
// to learn about the peer (Hearth or Thanos); each later Info replaces what it knows.
type Client struct {
	addr  string
	opts  ClientOptions
	conn  *grpc.ClientConn
	epoch int64
	// Only tests change these values.
	agePeriod, sendTimeout      time.Duration
	maxShard, maxPart, maxFrame int64
	peer                        atomic.Pointer[peer]

	mu       sync.Mutex // guards write, plain and closed; never held during I/O
	write    *writeStream
	plain    time.Time // writes go by RemoteWrite until then, since the peer does not know the Write stream
	closed   bool
	writers  sync.WaitGroup  // the goroutines of write streams
	lifetime context.Context // of write streams; Close ends it
	end      context.CancelFunc
}

// peer is what a client knows about the process that it calls. It does not change; a new Info makes a new one.
type peer struct {
	hearth    bool
	without   bool // it drops labels on request (WithoutReplicaLabels), and sorts the series without them
	exemplars bool
	metadata  bool
	rules     bool
	single    bool            // a Thanos process with one stream, which does not change while it runs
	owner     tenant.ID       // all of it is this tenant's, whatever its labels say; "" = its labels say whose
	tenants   announced       // its streams by their tenant label
	replicas  announced       // its streams by their replica label
	external  []labels.Labels // the label sets of its streams
	names     map[string]bool // label names in external; each query looks them up, and there may be many sets
}

var _ series.Source = (*Client)(nil)
var _ series.ExemplarSource = (*Client)(nil)
var _ series.MetadataSource = (*Client)(nil)

// recoverPanic is deferred by goroutines that read bytes of other processes. It passes a panic to failed as an error,
// so that a bad message costs one call or stream, not the process.
func (c *Client) recoverPanic(doing string, failed func(error)) {
	if p := recover(); p != nil {
		c.opts.Log.Error("panic in a gRPC client",
			"peer", c.addr, "doing", doing, "panic", p, "stack", string(debug.Stack()))
		failed(errs.E(errs.Internal, "panic: %v", p))
	}
}

// Dial returns a client for the process at addr (host:port). It reads TLS files and does not connect.
func Dial(addr string, opts ClientOptions) (*Client, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	creds, err := clientCredentials(opts.TLS)
	if err != nil {
		return nil, err
	}
	c := &Client{
		addr: addr, opts: opts.withDefaults(), epoch: time.Now().UnixNano(),
		agePeriod: agePeriod, sendTimeout: sendTimeout, maxShard: maxShard, maxPart: maxPart, maxFrame: maxFrame,
	}
	c.lifetime, c.end = context.WithCancel(context.Background())
	c.conn, err = grpc.NewClient("passthrough:///"+addr, append(optionalDialOptions(opts),
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(1<<31-1), grpc.MaxCallSendMsgSize(1<<31-1)),
		grpc.WithConnectParams(grpc.ConnectParams{
			// In a rolling restart the client must reach a restarted member before the next member stops: otherwise two
			// members are missing at a time, and quorums fail.
			Backoff: backoff.Config{
				BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 250 * time.Millisecond,
			},
			MinConnectTimeout: 2 * time.Second,
		}),
		// Servers (ours and Thanos's) close connections that ping more often than every 10 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 12 * time.Second, Timeout: 6 * time.Second, PermitWithoutStream: true,
		}),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithIdleTimeout(0),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(), // ignores those from name resolution; the default one counts
	)...)
	if err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// optionalDialOptions are those that the caller of Dial may set.
func optionalDialOptions(opts ClientOptions) (all []grpc.DialOption) {
	if opts.Compression != "" {
		all = append(all, grpc.WithDefaultCallOptions(grpc.UseCompressor(opts.Compression)))
	}
	if opts.ServiceConfig != "" {
		all = append(all, grpc.WithDefaultServiceConfig(opts.ServiceConfig))
	}
	return all
}

// Close ends all calls and the connection. It is idempotent.
func (c *Client) Close() error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.writers.Wait()
	if closed {
		return nil
	}
	return c.conn.Close()
}

// Addr is the address dialed.
func (c *Client) Addr() string { return c.addr }

// outgoing adds the metadata of a call: this process, the role it asks for, and the tenant ("" = none).
func (c *Client) outgoing(ctx context.Context, id tenant.ID) context.Context {
	instance := c.opts.Instance
	if instance == "" {
		instance = "-"
	}
	kv := []string{keyInstance, instance}
	if c.opts.Role != "" {
		kv = append(kv, keyRole, c.opts.Role)
	}
	if id != "" {
		kv = append(kv, keyTenant, string(id), keyThanos, string(id))
	}
	if c.opts.Observer != nil {
		kv = append(kv, c.opts.Observer.Carry(ctx)...)
	}
	return metadata.AppendToOutgoingContext(ctx, kv...)
}

// invoke makes a call with one response. Its errors have a kind and name the peer.
func (c *Client) invoke(ctx context.Context, method string, req, resp any) error {
	var header metadata.MD
	err := c.conn.Invoke(ctx, method, req, resp, grpc.Header(&header))
	readIdentity(ctx, header)
	return c.withAddress(err)
}

// withAddress gives the error of a call its kind and the peer's address.
func (c *Client) withAddress(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", c.addr, fromStatus(err))
}

// Info asks the peer what it holds. A Hearth process responds for ClientOptions.Role, and without a role for all its
// roles together.
func (c *Client) Info(ctx context.Context) (series.Info, error) {
	var in infopb.InfoResponse
	if err := c.invoke(c.outgoing(ctx, ""), "/"+serviceInfo+"/Info", &infopb.InfoRequest{}, &in); err != nil {
		return series.Info{}, err
	}
	c.peer.Store(c.peerOf(&in))
	if in.Hearth == nil {
		return foreignInfo(&in, c.opts.TenantLabel, c.opts.ownerOf(&in)), nil
	}
	info, err := c.ownInfo(in.Hearth.Sources, &in)
	if err != nil {
		return series.Info{}, fmt.Errorf("%s: %w", c.addr, err)
	}
	return info, nil
}

// ownInfo is the Info of a Hearth process: of its one source, or of all its sources together.
func (c *Client) ownInfo(sources []*hearthpb.Source, in *infopb.InfoResponse) (series.Info, error) {
	external := labelSets(in)
	if len(sources) == 1 {
		return infoFromPB(sources[0], external)
	}
	all := &hearthpb.Source{Role: in.ComponentType, MinTime: math.MaxInt64, MaxTime: math.MinInt64, TenantsKnown: true}
	if in.Store != nil {
		all.MinTime, all.MaxTime = in.Store.MinTime, in.Store.MaxTime
	}
	for _, s := range sources {
		all.Instance = s.Instance
		all.Tenants = append(all.Tenants, s.Tenants...)
		all.TenantsKnown = all.TenantsKnown && s.TenantsKnown
		all.ReplicationFactor = max(all.ReplicationFactor, s.ReplicationFactor)
		all.SinceMs = max(all.SinceMs, s.SinceMs)
	}
	if !all.TenantsKnown {
		all.Tenants = nil
	}
	return infoFromPB(all, external)
}

// known returns what the client knows about the peer. It calls Info when it knows nothing yet.
func (c *Client) known(ctx context.Context) (*peer, error) {
	if p := c.peer.Load(); p != nil {
		return p, nil
	}
	if _, err := c.Info(ctx); err != nil {
		return nil, err
	}
	return c.peer.Load(), nil
}
