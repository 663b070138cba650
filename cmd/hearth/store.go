package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/viewer"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/ring"
	"github.com/hearth-metrics/hearth/store"
)

// gatewayFlags are the flags of a store gateway.
type gatewayFlags struct {
	opts   store.Options
	cache  cacheFlags
	copies int
}

// layoutFlag says how blocks lie in the bucket.
type layoutFlag struct{ name string }

const layoutMimir = "mimir"

func (f *layoutFlag) bind(c *kingpin.CmdClause) {
	c.Flag("objstore.layout", "How blocks lie in the bucket: hearth = at its root, as Thanos's; mimir = each tenant's "+
		"below the tenant's name, as Mimir and Cortex write them. Such a bucket is read whole, and never written to.").
		Default("hearth").EnumVar(&f.name, "hearth", layoutMimir)
}

func (f *layoutFlag) mimir() bool { return f.name == layoutMimir }

// mimirMarksDelay is the longest time for which blocks that are marked for deletion are served of a bucket in Mimir's
// layout. Mimir's and Cortex's compactors delete them 12 h after the mark, by default.
const mimirMarksDelay = time.Hour

// apply makes the gateway one of a bucket in this layout.
func (f *layoutFlag) apply(b *builder, opts *store.Options) {
	opts.Mimir = f.mimir()
	if opts.Mimir && opts.IgnoreDeletionMarksDelay > mimirMarksDelay {
		b.log.Info("blocks that are marked for deletion are served for an hour only: Mimir's compactor deletes them 12 h "+
			"after the mark", "ignore-deletion-marks-delay", opts.IgnoreDeletionMarksDelay)
		opts.IgnoreDeletionMarksDelay = mimirMarksDelay
	}
}

func (f *gatewayFlags) bind(c *kingpin.CmdClause) {
	f.opts = store.DefaultOptions()
	durationFlag(c, "sync-block-duration", "How often the bucket is looked at for new and deleted blocks.",
		&f.opts.SyncInterval)
	durationFlag(c, "store.bucket-read-timeout", "How long the bucket may send nothing of what a query reads; then "+
		"that query gets an error.", &f.opts.ReadTimeout)
	c.Flag("store.replication-factor", "How many gateways serve each block of the bucket, where several gossip with each "+
		"other. All gateways need the same.").Default("2").SetValue(whole[int]{&f.copies})
	durationFlag(c, "ignore-deletion-marks-delay", "Blocks marked for deletion are served for this long, until what "+
		"replaces them is known everywhere.", &f.opts.IgnoreDeletionMarksDelay)
	durationFlag(c, "store.index-header-lazy-reader-idle-timeout", "How long an open index-header may be unused before "+
		"it is closed; 0 keeps all open.", &f.opts.HeaderIdleTimeout)
	c.Flag("block-sync-concurrency", "How many index-headers are opened at once.").
		Default(strconv.Itoa(f.opts.BlockConcurrency)).IntVar(&f.opts.BlockConcurrency)
	f.cache.bind(c)
}

// gatewayUse is what a gateway works with.
type gatewayUse struct {
	cluster *cluster
	clients *clients
	bucket  *bucket
	dir     string         // of its local files
	memory  *memory.Budget // shared with the other reads of the process
}

// build makes a gateway. The role adds it, since roles differ in whether they are ready without it, and then shares the
// bucket (addSharing) after the cluster is joined.
func (f *gatewayFlags) build(b *builder, use gatewayUse, shared sharedFlags) *store.Gateway {
	f.opts.Dir, f.opts.Instance, f.opts.Memory = use.dir, use.cluster.instance.ID, use.memory
	f.opts.TenantLabel, f.opts.ReplicaLabel = shared.tenantLabel, shared.replicaLabel
	f.opts.Cache = f.cache.build(b)
	if f.copies < 1 {
		b.check(fmt.Errorf("--store.replication-factor %d: must be at least 1", f.copies))
	}
	if use.cluster.gossips && !f.opts.Chosen() {
		f.opts.Sharing = &store.Sharing{
			Self: use.cluster.self.ID, ReplicationFactor: f.copies, Peers: use.peers, Owners: ownersOf,
		}
	}
	f.opts.BucketID = use.bucket.which
	f.opts.Announced = use.cluster.announces(shared.replicaLabel)
	g, err := store.New(b.log, b.reg, use.bucket, f.opts)
	b.check(err)
	return g
}

// peers are the live store gateways of the cluster. settled says that this process knows the cluster.
func (use gatewayUse) peers() (all []store.Peer, settled bool) {
	return use.cluster.gateways(use.clients), use.cluster.gossip.Ready() == nil
}

// announces returns a function that reports whether a receiver of the cluster shipped a block: that one told of its
// samples when they arrived.
func (c *cluster) announces(replicaLabel string) func(*block.Meta) bool {
	return func(m *block.Meta) bool {
		replica := m.Thanos.Labels[replicaLabel]
		if m.Thanos.Source != block.SourceReceive || replica == "" {
			return false
		}
		return replica == c.self.ID || c.gossip != nil &&
			slices.ContainsFunc(c.gossip.History(), func(i ring.Incarnation) bool { return i.ID == replica })
	}
}

// gateways are the live store gateways of the cluster, with this process if it is one.
func (c *cluster) gateways(peers *clients) (all []store.Peer) {
	for _, m := range c.members(series.RoleStore) {
		if m.State != ring.Active && m.State != ring.ReadOnly {
			continue
		}
		p := store.Peer{Member: store.Member{ID: m.ID, Zone: m.Zone}, Leaves: m.State == ring.ReadOnly}
		if m.ID != c.self.ID {
			client, err := peers.get(m.Addr, series.RoleStore)
			if err != nil { // wrong TLS files, which keep a process from starting
				continue
			}
			p.States = client.BlockStates
		}
		all = append(all, p)
	}
	return all
}

// ownersOf is how all gateways divide the blocks of a bucket.
func ownersOf(of []store.Member) func(key []byte, n int) []int32 {
	members := make([]ring.Member, len(of))
	for i, m := range of {
		members[i] = ring.Member{ID: m.ID, Zone: m.Zone}
	}
	return func(key []byte, n int) []int32 { return ring.Owners(members, key, n) }
}

// addSharing makes a gateway follow the ring. It comes after the part that joins the cluster.
func addSharing(b *builder, c *cluster, g *store.Gateway) {
	if c.gossips {
		b.addPart("sharing", g.Share, g.Unshare, nil)
	}
}

// lockDirectory keeps a second process out of a data directory that no TSDB locks.
func lockDirectory(b *builder, dir string) {
	var lock *tsdbutil.DirLocker
	b.addPart("data-dir", func(context.Context, func(error)) (err error) {
		if lock, err = tsdbutil.NewDirLocker(dir, "store", slog.New(slog.DiscardHandler), nil); err == nil {
			err = lock.Lock()
		}
		if err != nil {
			return fmt.Errorf("%s (does another process use it?): %w", dir, err)
		}
		return nil
	}, func() error { return lock.Release() }, nil)
}

func storeCommand() command {
	return command{
		name:  series.RoleStore,
		help:  "Serve the blocks of a bucket.",
		first: []string{"objstore.config-file", "data-dir", "gossip.join", "http-address", "grpc-address"},
		idle:  idleTable{never: storeIdle, later: webLater},
		bind:  bindStore,
	}
}

func bindStore(c *kingpin.CmdClause) func(*builder) {
	var (
		shared  = defaultShared()
		http    httpFlags
		grpc    grpcFlags
		where   clusterFlags
		bkt     bucketFlags
		layout  layoutFlag
		gateway gatewayFlags
		chosen  selectionFlags
		visible storeAPIFlags
		client  clientFlags
		reads   memoryFlags
		limits  storeLimitFlags
		page    blocksPageFlags
		dir     string
	)
	http.bind(c)
	reads.bind(c, partOfReader)
	grpc.bind(c)
	where.bind(c)
	bkt.bind(c, "there is nothing to serve")
	layout.bind(c)
	c.Flag("data-dir", "Directory for parts of block indexes. What is lost there is fetched again.").
		Default("./data").StringVar(&dir)
	gateway.bind(c)
	chosen.bind(c, "Serve")
	visible.bind(c)
	limits.bind(c)
	page.bind(c)
	client.bind(c)
	shared.bindLabels(c)
	return func(b *builder) {
		cl := where.identify(b, dir)
		users := http.users(b)
		server := http.build(b, users)
		bucket, shared := bkt.build(b, bucketUse{cluster: where.opts.ClusterLabel, clustered: cl.gossips,
			mimir: layout.mimir()}, shared)
		if bucket == nil {
			b.check(errors.New("--objstore.config or --objstore.config-file is needed: there is nothing to serve without a " +
				"bucket"))
		}
		lockDirectory(b, dir)
		chosen.apply(b, &gateway.opts)
		layout.apply(b, &gateway.opts)
		limits.apply(&gateway.opts, &visible)
		options, err := client.options(shared)
		b.check(err)
		peers := newClients(b, options, cl)
		blocks := gateway.build(b, gatewayUse{cl, peers, bucket, filepath.Join(dir, "store"), reads.build(b, partOfReader)},
			shared)
		b.addPart("store", blocks.Open, blocks.Close, blocks.Ready)
		services := grpc.build(b)
		rpc.RegisterServed(services, blocks)
		visible.register(b, services, map[string]series.Source{series.RoleStore: blocks}, nil, shared)
		rings := []string{series.RoleStore}
		if gateway.opts.Chosen() && cl.gossips { // others must not leave blocks to it that it does not serve
			b.log.Warn("a gateway that serves a part of the bucket is not found by gossip: name it to queriers with --endpoint")
			rings = nil
		}
		where.join(b, cl, registration{rings: rings, grpc: grpc.address(), http: http.opts.Address,
			bucket: bucket, contents: blocks.Contents})
		addSharing(b, cl, blocks)

		server.Add(slices.Concat(
			b.ownRoutes(),
			httpx.StatusRoutes(b.status("", nil)),
			cl.routes(),
			// A gateway only reads its bucket, so it takes no marks.
			page.pageAndRoutes(viewer.Options{Source: gatewayState(blocks), Bucket: bucket}),
		)...)
	}
}
