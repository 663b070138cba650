package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// bucketFlags name the object store.
type bucketFlags struct{ config content }

func (f *bucketFlags) bind(c *kingpin.CmdClause, without string) {
	f.config.bind(c, "objstore.config", "Object store as Thanos's YAML (type, config, prefix): S3, GCS, AZURE, "+
		"FILESYSTEM, ... Without it "+without+".")
}

// bucket is the object store of a process.
type bucket struct {
	objstore.Bucket
	id     string // of a clustered process, from Open on; "" when the store did not answer
	log    *slog.Logger
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	fault  atomic.Pointer[error] // what was wrong at the last look
}

// identityTimeout bounds how long a start waits for the object store to say which bucket it is.
const identityTimeout = 15 * time.Second

// firstAnswer is how long the start of a process that is alone waits for the object store: long enough to hear that it
// refuses.
const firstAnswer = time.Second

// build adds the bucket to the process, nil when none is configured. fallback is a directory to use then, "" for none.
// Only a clustered process waits for the bucket's identity, since others compare it with theirs.
func (f *bucketFlags) build(b *builder, fallback string, clustered bool) *bucket {
	yaml, err := f.config.read()
	b.check(err)
	if yaml == nil {
		if fallback == "" {
			return nil
		}
		dir, err := filepath.Abs(fallback)
		b.check(err)
		yaml = fmt.Appendf(nil, "type: FILESYSTEM\nconfig: {directory: %q}\n", dir)
	}
	store, err := block.OpenBucket(b.log, b.reg, f.config.where(), yaml, "hearth-"+b.role)
	b.check(err)
	bkt := &bucket{Bucket: store, log: b.log}
	bkt.fault.Store(&errNotAsked)
	b.health.AddAdvice("bucket", bkt.answers) // the process is ready without it
	b.add("bucket", func(ctx context.Context, fail func(error)) error {
		return bkt.open(ctx, clustered, fail)
	}, bkt.close)
	return bkt
}

// open begins to look at the bucket, and finds out which one it is. A process that is alone waits only to hear whether the
// object store refuses it, as nobody compares the identity: to make one takes seconds.
func (b *bucket) open(ctx context.Context, clustered bool, fail func(error)) error {
	b.ctx, b.cancel = context.WithCancel(context.Background())
	first := make(chan error, 1)
	b.wg.Go(func() {
		first <- b.look(b.ctx)
		b.watch()
	})
	if clustered {
		return b.identify(ctx)
	}
	select {
	case err := <-first:
		if block.Refused(err) {
			return err
		}
	case <-time.After(firstAnswer):
	}
	b.wg.Go(func() {
		if err := b.identify(b.ctx); err != nil {
			fail(err)
		}
	})
	return nil
}

// identify reads or makes the bucket's identity. A bucket that cannot be reached does not keep a process from starting:
// what is on local disk is served and taken meanwhile. One that refuses the process does: that is a mistake in the
// configuration, and nothing would ever be shipped.
func (b *bucket) identify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	id, err := block.Identity(ctx, b.Bucket)
	switch {
	case errs.KindOf(err) == errs.Invalid:
		return fmt.Errorf("object store %s: %w", b.Name(), err)
	case block.Refused(err):
		return err
	case b.ctx.Err() != nil: // the process stops before the store has answered
		return nil
	case err != nil:
		b.log.Error("the object store does not answer; going on without it", "bucket", b.Name(), "err", err)
		return nil
	}
	b.id = id
	b.log.Info("object store", "bucket", b.Name(), "provider", b.Provider(), "id", id)
	return nil
}

func (b *bucket) close() error {
	b.cancel()
	b.wg.Wait()
	return b.Bucket.Close()
}
