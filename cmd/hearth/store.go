package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/rpc"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/ring/gossip"
	"github.com/hearth-metrics/hearth/store"
)

// gatewayFlags are the store gateway's.
type gatewayFlags struct {
	opts store.Options
	side bool // the process has other work, and does it while the bucket does not answer
}

func (f *gatewayFlags) bind(c *kingpin.CmdClause) {
	f.opts = store.DefaultOptions()
	durationFlag(c, "sync-block-duration", "How often the bucket is looked at for new and deleted blocks.",
		&f.opts.SyncInterval)
	durationFlag(c, "store.bucket-read-timeout", "How long the bucket may send nothing of what a query reads; then "+
		"that query gets an error.", &f.opts.ReadTimeout)
	durationFlag(c, "ignore-deletion-marks-delay", "Blocks marked for deletion are served for this long, until what "+
		"replaces them is known everywhere.", &f.opts.IgnoreDeletionMarksDelay)
}

// build adds a gateway that keeps its local files below dir and shares mem.
func (f *gatewayFlags) build(p *process, c *cluster, bkt objstore.Bucket, dir string,
	mem *memory.Budget) (*store.Gateway, error) {
	f.opts.Dir, f.opts.Instance, f.opts.Memory = dir, c.instance.ID, mem
	g, err := store.New(p.log, p.reg, bkt, f.opts)
	if err != nil {
		return nil, err
	}
	if f.side {
		p.addPart("store", g.Open, g.Close, nil)
		p.health.AddAdvice("blocks", g.Ready)
		return g, nil
	}
	p.addPart("store", g.Open, g.Close, g.Ready)
	return g, nil
}

// lockDirectory keeps a second process out of a data directory that no TSDB locks.
func lockDirectory(p *process, dir string) {
	var lock *tsdbutil.DirLocker
	p.addPart("data-dir", func(context.Context, func(error)) (err error) {
		if lock, err = tsdbutil.NewDirLocker(dir, "store", slog.New(slog.DiscardHandler), nil); err == nil {
			err = lock.Lock()
		}
		if err != nil {
			return fmt.Errorf("%s (does another process use it?): %w", dir, err)
		}
		return nil
	}, func() error { return lock.Release() }, nil)
}

func storeCommand(app *kingpin.Application) setup {
	c := app.Command("store", "Serve the blocks of a bucket.")
	var (
		http    httpFlags
		grpc    grpcFlags
		where   clusterFlags
		bkt     bucketFlags
		gateway gatewayFlags
		visible storeAPIFlags
		names   attributeFlags
		dir     string
		reads   memoryFlags
	)
	http.bind(c)
	reads.bind(c, partOfReader)
	grpc.bind(c)
	where.bind(c)
	bkt.bind(c, "there is nothing to serve")
	c.Flag("data-dir", "Directory for parts of block indexes. What is lost there is fetched again.").
		Default("./data").StringVar(&dir)
	gateway.bind(c)
	visible.bind(c)
	names.bind(c)
	acceptIdle(c, "store")
	return func(p *process) error {
		gateway.opts.TenantLabel, gateway.opts.ReplicaLabel = names.tenant, names.replica
		cl, err := where.identify(p, dir)
		if err != nil {
			return err
		}
		if err := http.buildAuth(p); err != nil {
			return err
		}
		server := http.build(p, "")
		b, err := bkt.build(p, "", where.gossips())
		if err != nil {
			return err
		}
		if b == nil {
			return errors.New("--objstore.config or --objstore.config-file is needed: there is nothing to serve without a " +
				"bucket")
		}
		lockDirectory(p, dir)
		g, err := gateway.build(p, cl, b, filepath.Join(dir, "store"), reads.build(p, partOfReader))
		if err != nil {
			return err
		}
		s, err := grpc.build(p)
		if err != nil {
			return err
		}
		rpc.RegisterServed(s, g)
		server.Add(cl.routes()...)
		if err := visible.register(s, map[string]series.Source{gossip.RoleStore: g}, nil,
			gateway.opts.TenantLabel); err != nil {
			return err
		}
		return where.join(p, cl, place{rings: []string{gossip.RoleStore}, grpc: grpc.address(), http: http.opts.Address,
			bucket: b})
	}
}
