package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/store"
)

// gatewayFlags are the flags of a store gateway.
type gatewayFlags struct {
	opts  store.Options
	cache cacheFlags
}

func (f *gatewayFlags) bind(c *kingpin.CmdClause) {
	f.opts = store.DefaultOptions()
	durationFlag(c, "sync-block-duration", "How often the bucket is looked at for new and deleted blocks.",
		&f.opts.SyncInterval)
	durationFlag(c, "store.bucket-read-timeout", "How long the bucket may send nothing of what a query reads; then "+
		"that query gets an error.", &f.opts.ReadTimeout)
	durationFlag(c, "ignore-deletion-marks-delay", "Blocks marked for deletion are served for this long, until what "+
		"replaces them is known everywhere.", &f.opts.IgnoreDeletionMarksDelay)
	durationFlag(c, "store.index-header-lazy-reader-idle-timeout", "How long an open index-header may be unused before "+
		"it is closed; 0 keeps all open.", &f.opts.HeaderIdleTimeout)
	c.Flag("block-sync-concurrency", "How many index-headers are opened at once.").
		Default(strconv.Itoa(f.opts.BlockConcurrency)).IntVar(&f.opts.BlockConcurrency)
	f.cache.bind(c)
}

// build makes a gateway that keeps its local files below dir. memory is shared with the other reads of the process. The
// role adds the gateway, since roles differ in whether they are ready without it.
func (f *gatewayFlags) build(b *builder, c *cluster, bkt objstore.Bucket, dir string, memory *memory.Budget,
	shared sharedFlags) *store.Gateway {
	f.opts.Dir, f.opts.Instance, f.opts.Memory = dir, c.instance.ID, memory
	f.opts.TenantLabel, f.opts.ReplicaLabel = shared.tenantLabel, shared.replicaLabel
	f.opts.Cache = f.cache.build(b)
	g, err := store.New(b.log, b.reg, bkt, f.opts)
	b.check(err)
	return g
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
		idle:  idleTable{never: storeIdle, later: storeLater},
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
		gateway gatewayFlags
		chosen  selectionFlags
		visible storeAPIFlags
		reads   memoryFlags
		limits  storeLimitFlags
		dir     string
	)
	http.bind(c)
	reads.bind(c, partOfReader)
	grpc.bind(c)
	where.bind(c)
	bkt.bind(c, "there is nothing to serve")
	c.Flag("data-dir", "Directory for parts of block indexes. What is lost there is fetched again.").
		Default("./data").StringVar(&dir)
	gateway.bind(c)
	chosen.bind(c)
	visible.bind(c)
	limits.bind(c)
	shared.bindLabels(c)
	return func(b *builder) {
		cl := where.identify(b, dir)
		users := http.users(b)
		server := http.build(b, users)
		bucket, shared := bkt.build(b, bucketUse{cluster: where.opts.ClusterLabel, clustered: cl.gossips}, shared)
		if bucket == nil {
			b.check(errors.New("--objstore.config or --objstore.config-file is needed: there is nothing to serve without a " +
				"bucket"))
		}
		lockDirectory(b, dir)
		chosen.apply(b, &gateway.opts)
		limits.apply(&gateway.opts, &visible)
		blocks := gateway.build(b, cl, bucket, filepath.Join(dir, "store"), reads.build(b, partOfReader), shared)
		b.addPart("store", blocks.Open, blocks.Close, blocks.Ready)
		services := grpc.build(b)
		rpc.RegisterServed(services, blocks)
		visible.register(b, services, map[string]series.Source{series.RoleStore: blocks}, nil, shared)
		where.join(b, cl, registration{rings: []string{series.RoleStore}, grpc: grpc.address(), http: http.opts.Address,
			bucket: bucket})

		server.Add(slices.Concat(
			b.ownRoutes(),
			httpx.StatusRoutes(b.status("", nil)),
			cl.routes(),
		)...)
	}
}
