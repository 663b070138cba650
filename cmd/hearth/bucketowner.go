package main

import (
	"context"
	"time"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// namesTimeout bounds how long a start waits for the bucket to say the names of labels that no flag says. A process
// that starts without an answer uses the default names. It ends when the bucket says others later.
const namesTimeout = 3 * time.Second

// settle decides which names this process uses: those of flags, else the bucket's, else the defaults, which shared has
// where no flag was given. A flag that contradicts the bucket is an error. The bucket is asked only where flags leave
// a name open: open finds out whether they contradict it.
func (b *bucket) settle(shared sharedFlags) (sharedFlags, error) {
	given := shared.givenLabels()
	b.own = given
	b.own.Cluster = b.use.cluster
	if given.TenantLabel != "" && given.ReplicaLabel != "" {
		return shared, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), namesTimeout)
	defer cancel()
	id, err := block.ReadIdentity(ctx, b.Bucket)
	if err == nil {
		if err := id.MayRead(given); err != nil {
			return shared, err
		}
		b.answered.Store(true)
	}
	b.own = given.Or(id.Owner).Or(block.Owner{TenantLabel: shared.tenantLabel, ReplicaLabel: shared.replicaLabel})
	b.own.Cluster = b.use.cluster
	shared.tenantLabel, shared.replicaLabel = b.own.TenantLabel, b.own.ReplicaLabel
	_ = b.note(id, err) // open asks again if anything is wrong
	return shared, nil
}

// judge decides whether this process may do with the bucket what it does.
func (b *bucket) judge(id block.Identity) error {
	if b.use.writes {
		return id.MayWrite(b.own, b.use.labels)
	}
	if b.use.mimir {
		return errs.E(errs.Conflict, "hearth/bucket.json says that this is a bucket of Hearth, %s: leave "+
			"--objstore.layout=mimir out", id.UUID)
	}
	return id.MayRead(b.own)
}

// claim is nil once the bucket says that it is this cluster's. The first call that reaches the bucket settles that. A
// bucket of others ends the process: nothing would ever be shipped, and disks would fill up.
func (b *bucket) claim(ctx context.Context) error {
	if b.use.guest {
		return b.mayRead(ctx)
	}
	if !b.use.writes {
		return errs.Wrap(errs.Internal, errReadsOnly)
	}
	if b.identity.Load() != nil {
		return nil
	}
	select {
	case b.claiming <- struct{}{}:
	case <-ctx.Done():
		return errs.E(errs.Unavailable, "it is not known yet whose bucket it is: %w", ctx.Err())
	}
	defer func() { <-b.claiming }()
	if b.identity.Load() != nil {
		return nil
	}
	if b.use.refuse != nil {
		if err := b.use.refuse(ctx, b.Bucket); err != nil {
			return b.ending(err)
		}
	}
	id, err := block.Claim(ctx, b.Bucket, b.own, b.judge)
	if err != nil {
		return b.ending(err)
	}
	b.know(id)
	return nil
}

// layoutFits is nil if a bucket without an identity is in the layout that this process reads. In another one it would
// see no blocks at all, and not say so. Of a process that writes, claim finds it out.
func (b *bucket) layoutFits(ctx context.Context) error {
	if b.use.writes || b.use.mimir || b.fits.Load() {
		return nil
	}
	yes, err := block.InMimirsLayout(ctx, b.Bucket)
	if err == nil && yes {
		err = errs.E(errs.Conflict, "the bucket has blocks in the layout of Mimir and Cortex: start with "+
			"--objstore.layout=mimir to serve them, each tenant's to that tenant")
	}
	b.fits.Store(err == nil)
	return err
}

// recognise reads which bucket it is, for a process that only reads. A bucket to which no Hearth process has written
// yet has no identity.
func (b *bucket) recognise(ctx context.Context) error {
	if b.identity.Load() != nil {
		return nil
	}
	err := b.look(ctx)
	switch errs.KindOf(err) {
	case errs.NotFound, errs.Invalid: // whoever writes to it makes it, or makes it anew
		b.log.Info("object store", "bucket", b.Name(), "provider", b.Provider(), "id", "none yet")
		return nil
	}
	return err
}

func (b *bucket) know(id block.Identity) {
	b.answered.Store(true)
	if !b.identity.CompareAndSwap(nil, &id) { // two looks at once
		return
	}
	b.log.Info("object store", "bucket", b.Name(), "provider", b.Provider(), "id", id.UUID, "cluster", id.Cluster)
}

// mayRead is nil once the bucket has said that this process uses its names, or says nothing of itself. What it says
// later is seen by watch.
func (b *bucket) mayRead(ctx context.Context) error {
	if b.answered.Load() {
		return nil
	}
	id, err := block.ReadIdentity(ctx, b.Bucket)
	switch errs.KindOf(err) {
	case errs.OK:
		err = b.ending(id.MayRead(b.own))
	case errs.NotFound, errs.Invalid:
		err = nil
	}
	if err == nil {
		b.answered.Store(true)
	}
	return err
}

// ending is err, which ends the process if the bucket is not this process's.
func (b *bucket) ending(err error) error {
	if errs.KindOf(err) == errs.Conflict && b.fail != nil {
		b.fail(err)
	}
	return err
}
