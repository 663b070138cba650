package change

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// PartialAge is how long the objects of an upload that was broken off must have stayed as they are before they are
// removed.
const PartialAge = 48 * time.Hour

// CleanupOptions say what a cleanup removes.
type CleanupOptions struct {
	// DeleteDelay is how old the mark of a block must be.
	DeleteDelay time.Duration
	// ConsistencyDelay is how old a block must be to be looked at; it lengthens PartialAge where it is longer.
	ConsistencyDelay time.Duration
	// Filters choose the blocks by their metas. With any, directories without a meta.json are left alone.
	Filters []block.Filter
	// Touched is when the newest object of a directory without a meta.json was written; it is missing where the object
	// store does not say.
	Touched map[ulid.ULID]time.Time
}

// Cleanup plans to remove the blocks whose deletion mark is old enough, and what is left of uploads that were broken
// off.
func Cleanup(v block.View, now time.Time, opts CleanupOptions) Plan {
	p := NewPlan("cleanup", v, now)
	p.Timed = true
	marked := func(id ulid.ULID) bool {
		mark, ok := v.Deletions[id]
		return ok && now.Sub(time.Unix(mark.DeletionTime, 0)) > opts.DeleteDelay
	}
	filters := append(slices.Clone(opts.Filters), block.UploadedBefore(now.Add(-opts.ConsistencyDelay)))
	for _, m := range v.Select(filters...) {
		if marked(m.ULID) {
			p.Steps = append(p.Steps, Step{Action: Delete, Block: m.ULID, Mark: block.DeletionMarkName, Bytes: m.Bytes(),
				Details: v.Deletions[m.ULID].Details})
		}
	}
	if len(opts.Filters) > 0 {
		return p
	}
	for _, id := range slices.SortedFunc(Partial(v), ulid.ULID.Compare) {
		touched, known := opts.Touched[id]
		age := max(PartialAge, opts.ConsistencyDelay)
		switch _, hasMark := v.Deletions[id]; {
		case hasMark && marked(id):
			p.Steps = append(p.Steps, Step{Action: Delete, Block: id, Mark: block.DeletionMarkName,
				Details: v.Deletions[id].Details})
		case hasMark:
		case errs.KindOf(v.Partial[id]) != errs.NotFound:
			p.Held = append(p.Held, Held{id, fmt.Sprintf("%v: it is removed once it is marked for deletion", v.Partial[id])})
		case !known:
			p.Held = append(p.Held, Held{id, "it has no meta.json, and the object store does not say since when"})
		case now.Sub(touched) > age:
			p.Steps = append(p.Steps, Step{Action: Delete, Block: id,
				Details: fmt.Sprintf("an upload that was broken off %s ago", now.Sub(touched).Round(time.Minute))})
		}
	}
	return p
}

// Partial are the directories of v that are no blocks, except those that could not be read.
func Partial(v block.View) func(yield func(ulid.ULID) bool) {
	return func(yield func(ulid.ULID) bool) {
		for id, err := range v.Partial {
			if k := errs.KindOf(err); (k == errs.NotFound || k == errs.Invalid) && !yield(id) {
				return
			}
		}
	}
}

// Touched asks when the newest object of each directory of v without a meta.json was written. A directory of which an
// object's time is not known is missing. Errors are of kind Unavailable.
func Touched(ctx context.Context, bkt objstore.BucketReader, v block.View) (map[ulid.ULID]time.Time, error) {
	all := map[ulid.ULID]time.Time{}
	for id := range Partial(v) {
		names, err := block.ObjectsOf(ctx, bkt, id)
		if err != nil {
			return nil, err
		}
		var newest time.Time
		known := len(names) > 0
		for _, rel := range names {
			attrs, err := bkt.Attributes(ctx, block.Object(id, rel))
			if err != nil && !bkt.IsObjNotFoundErr(err) {
				return nil, errs.E(errs.Unavailable, "time of %s: %w", block.Object(id, rel), err)
			}
			known = known && err == nil && !attrs.LastModified.IsZero()
			if attrs.LastModified.After(newest) {
				newest = attrs.LastModified
			}
		}
		if known {
			all[id] = newest
		}
	}
	return all, nil
}
