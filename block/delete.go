package block

import (
	"context"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
)

// Delete removes block id from the bucket, so that no reader ever meets half a block with a meta.json:
//
//  1. meta.json: from here on the block is absent for readers
//  2. everything else but the deletion mark
//  3. deletion-mark.json: while it is there, whoever finds the rest knows that it may go
//  4. Hearth's copies of its marks. Those that a crash leaves are removed by whoever writes the index.
//
// Delete is idempotent and resumes. debug/metas keeps its copy. Errors are of kind Unavailable.
func Delete(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) error {
	names, err := list(ctx, bkt, id)
	if err != nil {
		return unavailable("delete block %s: list: %w", id, err)
	}
	rank := func(rel string) int {
		switch rel {
		case MetaName:
			return 0
		case DeletionMarkName:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	for _, rel := range names {
		if err := bkt.Delete(ctx, Object(id, rel)); err != nil && !bkt.IsObjNotFoundErr(err) {
			return unavailable("delete %s: %w", Object(id, rel), err)
		}
	}
	for _, rel := range names {
		if kind, ok := markKind(rel); ok {
			if err := remove(ctx, bkt, markCopy(markKey{id, kind})); err != nil {
				return err
			}
		}
	}
	return nil
}
