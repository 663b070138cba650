package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// bucketHelp says what the flag of the object store takes.
const bucketHelp = "Object store as Thanos's YAML (type, config, prefix): S3, GCS, AZURE, FILESYSTEM, ..."

// bucketFlags name the object store.
type bucketFlags struct{ config content }

func (f *bucketFlags) bind(c *kingpin.CmdClause, without string) {
	f.config.bind(c, "objstore.config", bucketHelp+" Without it "+without+".")
}

// bucketUse says what a role does with the bucket.
type bucketUse struct {
	// fallback is the directory that is the bucket when the flags configure none; "" = then there is no bucket.
	fallback string
	// cluster is the name of the process's cluster, and clustered says whether other processes compare the bucket's
	// identity with theirs.
	cluster   string
	clustered bool
	// writes says that the process ships blocks; labels are the external labels that they get beside those of tenant and
	// replica. A process that only reads never writes to the bucket, so that it may be read-only.
	writes bool
	labels labels.Labels
	// guest says that the process ships blocks of streams that nothing in the bucket is united with. It writes to any
	// bucket whose names of labels it uses, says nothing of whose the bucket is, and else is as one that only reads.
	guest bool
	// mimir says that the bucket is in Mimir's layout, which only a process that reads can use.
	mimir bool
	// refuse, if set, is the error of a bucket that the process must not write to, whoever it belongs to.
	refuse func(context.Context, objstore.BucketReader) error
}

// bucket is the object store of a process. It is written to, and its blocks are listed, only when it is known whose
// bucket it is.
type bucket struct {
	objstore.Bucket
	log *slog.Logger
	use bucketUse
	own block.Owner // the names that this process uses

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	fail   func(error) // ends the process; called at most once

	fault    errs.Last                      // what was wrong at the last look
	answered atomic.Bool                    // the bucket has said that this process may read it, or says nothing of itself
	claiming chan struct{}                  // held by the one call that claims the bucket
	identity atomic.Pointer[block.Identity] // nil until the bucket was claimed, or read by a process that only reads
	unnamed  atomic.Bool                    // at the last look the bucket had no identity
	fits     atomic.Bool                    // the layout of the bucket is known to be the one that this process reads
}

// build adds the bucket to the process, nil when none is configured. It returns shared with the names of labels that
// the bucket says, where no flag says them: for that the bucket is asked at once, since the other parts are made with
// them.
func (f *bucketFlags) build(b *builder, use bucketUse, shared sharedFlags) (*bucket, sharedFlags) {
	yaml, err := f.config.read()
	b.check(err)
	if yaml == nil {
		if use.fallback == "" {
			return nil, shared
		}
		dir, err := filepath.Abs(use.fallback)
		b.check(err)
		yaml = fmt.Appendf(nil, "type: FILESYSTEM\nconfig: {directory: %q}\n", dir)
	}
	store, err := block.OpenBucket(b.log, b.reg, f.config.where(), yaml, "hearth-"+b.role)
	b.check(err)
	bkt := newBucket(store, b.log, use)
	shared, err = bkt.settle(shared)
	b.check(err)
	b.health.AddAdvice("bucket", bkt.answers) // the process is ready without it
	b.add("bucket", bkt.open, bkt.close)
	return bkt, shared
}

func newBucket(store objstore.Bucket, log *slog.Logger, use bucketUse) *bucket {
	b := &bucket{Bucket: store, log: log, use: use, claiming: make(chan struct{}, 1)}
	b.fault.Set(errNotAsked)
	return b
}

// identityTimeout bounds how long a start waits for the object store to say which bucket it is.
const identityTimeout = 15 * time.Second

// firstAnswer is how long the start of a process that is alone waits for the object store: long enough to hear that it
// refuses.
const firstAnswer = time.Second

// open begins to look at the bucket, and finds out which one it is. A process that is alone waits only to hear whether
// the object store refuses it, as nobody compares the identity: to make one takes seconds.
func (b *bucket) open(ctx context.Context, fail func(error)) error {
	b.ctx, b.cancel = context.WithCancel(context.Background())
	var once sync.Once
	b.fail = func(err error) { once.Do(func() { fail(err) }) }
	first := make(chan error, 1)
	watch := func() {
		var err error
		if b.answers() != nil { // else it answered just now
			err = b.look(b.ctx)
		}
		first <- err
		b.watch()
	}
	if b.use.clustered {
		if err := b.identify(ctx); err != nil {
			return err
		}
		b.wg.Go(watch)
		return nil
	}
	b.wg.Go(watch)
	select {
	case err := <-first:
		if hopeless(err) {
			return err
		}
	case <-time.After(firstAnswer):
	}
	b.wg.Go(func() {
		if err := b.identify(b.ctx); err != nil {
			b.fail(err)
		}
	})
	return nil
}

// hopeless reports whether err stays until somebody changes a setting: the object store refuses this process, or the
// bucket is not its.
func hopeless(err error) bool { return block.Refused(err) || errs.KindOf(err) == errs.Conflict }

// identify finds out which bucket it is. A bucket that cannot be reached does not keep a process from starting: what
// is on local disk is served and taken meanwhile. One that refuses the process does: that is a mistake in the
// configuration, and nothing would ever be shipped.
func (b *bucket) identify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	var err error
	if b.use.writes {
		err = b.claim(ctx)
	} else {
		err = b.recognise(ctx)
	}
	switch {
	case err == nil:
		return nil
	case hopeless(err):
		return err
	case errs.KindOf(err) == errs.Invalid:
		return fmt.Errorf("object store %s: %w", b.Name(), err)
	case b.ctx.Err() != nil: // the process stops before the store has answered
		return nil
	}
	b.log.Error("the object store does not answer; going on without it", "bucket", b.Name(), "err", err)
	return nil
}

func (b *bucket) close() error {
	b.cancel()
	b.wg.Wait()
	return b.Bucket.Close()
}

// which is the identity of the bucket. known is false while it is not known whether it has one. A process that writes
// makes one, so it never knows that there is none.
func (b *bucket) which() (id string, known bool) {
	if id := b.identity.Load(); id != nil {
		return id.UUID, true
	}
	return "", !b.use.writes && b.unnamed.Load()
}

// Upload implements objstore.Bucket. It writes only into a bucket that is this cluster's.
func (b *bucket) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if err := b.claim(ctx); err != nil {
		return err
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

// Delete implements objstore.Bucket. It deletes only in a bucket that is this cluster's.
func (b *bucket) Delete(ctx context.Context, name string) error {
	if err := b.claim(ctx); err != nil {
		return err
	}
	return b.Bucket.Delete(ctx, name)
}

// Iter implements objstore.Bucket. It lists only a bucket whose blocks this process understands. A bucket that had no
// identity is asked for it again once its top was listed: processes make the identity before they ship the first block,
// so a gateway that finds their blocks knows it, too. If gateways learned it at looks of their own, some would know the
// id and others not for up to lookInterval, each would take the others' bucket for another one, and answers would be
// called partial.
func (b *bucket) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	if err := b.mayRead(ctx); err != nil {
		return err
	}
	err := b.Bucket.Iter(ctx, dir, f, o...)
	if err == nil && dir == "" && !b.use.writes && b.unnamed.Load() {
		_ = b.ending(b.look(ctx)) // answers has the error
	}
	return err
}

// IterWithAttributes implements objstore.Bucket. It lists only a bucket whose blocks this process understands.
func (b *bucket) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	o ...objstore.IterOption) error {
	if err := b.mayRead(ctx); err != nil {
		return err
	}
	return b.Bucket.IterWithAttributes(ctx, dir, f, o...)
}

var errReadsOnly = errors.New("BUG: a process that only reads the bucket writes to it")
