package replicate

import (
	"context"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Allowed finds out whose both buckets are, and whether blocks of source may be in target. A target that nobody has
// claimed gets the names of the source's owner, so that no other cluster is copied into it later. Errors: Conflict,
// Invalid, Unavailable.
func Allowed(ctx context.Context, source, target objstore.Bucket) error {
	if err := block.MayAdd(ctx, target); err != nil {
		return err
	}
	mimir, err := block.InMimirsLayout(ctx, source)
	if err != nil {
		return err
	}
	if mimir {
		return errs.E(errs.Invalid, "the source is in the layout of Mimir and Cortex: its blocks have no external labels, "+
			"so that in another layout nobody could tell whose they are")
	}
	ours, err := identity(ctx, source)
	if err != nil {
		return err
	}
	theirs, err := identity(ctx, target)
	if err != nil {
		return err
	}
	mayBeIn := func(theirs block.Identity) error { return sameOwner(ours.Owner, theirs.Owner) }
	if err := mayBeIn(theirs); err != nil {
		return err
	}
	if theirs.UUID != "" || ours.Cluster == "" || ours.TenantLabel == "" || ours.ReplicaLabel == "" {
		return nil
	}
	_, err = block.Claim(ctx, target, ours.Owner, mayBeIn)
	return err
}

// identity is what a bucket says of itself, a zero one if it says nothing.
func identity(ctx context.Context, bkt objstore.Bucket) (block.Identity, error) {
	id, err := block.ReadIdentity(ctx, bkt)
	if errs.KindOf(err) == errs.NotFound {
		return block.Identity{}, nil
	}
	return id, err
}

// sameOwner reports why blocks of a bucket of source may not be in one of target.
func sameOwner(source, target block.Owner) error {
	for _, name := range []struct{ what, source, target string }{
		{"cluster", source.Cluster, target.Cluster}, {"tenant label", source.TenantLabel, target.TenantLabel},
		{"replica label", source.ReplicaLabel, target.ReplicaLabel},
	} {
		if name.target != "" && name.source != name.target {
			return errs.E(errs.Conflict, "the target is a bucket with the %s %q, and the source has %q there, as their "+
				"hearth/bucket.json say: blocks of two clusters in one bucket would be taken for copies of each other. Copy "+
				"into another bucket or prefix", name.what, name.target, name.source)
		}
	}
	return nil
}
