package compact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

const (
	// deletions is how many blocks are deleted, or marked, at a time.
	deletions = 32
	// partialAge is for how long nothing may have come to an upload until it counts as broken off.
	partialAge = 48 * time.Hour
	// markTimeout bounds the marking of one block. It goes on when the process is stopped.
	markTimeout = time.Minute
)

// deletedDelay is how long a block of a deleted tenant stays after it was marked, if the delete delay is not shorter: a
// minute is what gateways need until they no longer serve it.
const deletedDelay = 10 * time.Minute

// delayOf is how long a block stays that has this mark.
func delayOf(mark block.DeletionMark, delay time.Duration) time.Duration {
	if strings.HasPrefix(mark.Details, becauseDeleted+" ") {
		return min(delay, deletedDelay)
	}
	return delay
}

// due are the blocks of v that were marked for deletion at least delay before now, the oldest mark first. Directories
// that have a mark and no meta.json are among them: their deletion was broken off.
func due(v block.View, now time.Time, delay time.Duration) []ulid.ULID {
	var ids []ulid.ULID
	for id, mark := range v.Deletions {
		at := time.Unix(mark.DeletionTime, 0)
		if now.Sub(at) >= delayOf(mark, delay) && (v.Metas[id] != nil || errs.KindOf(v.Partial[id]) == errs.NotFound) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b ulid.ULID) int {
		return cmp.Or(cmp.Compare(v.Deletions[a].DeletionTime, v.Deletions[b].DeletionTime), a.Compare(b))
	})
	return ids
}

// deleteMarked deletes the blocks that are due. One that fails does not keep the others. The mark of each is read
// again, since somebody may have removed it since the look.
func (c *Compactor) deleteMarked(ctx context.Context, l *look) error {
	return c.each(ctx, due(l.view, c.opts.Now(), c.opts.DeleteDelay), func(ctx context.Context, id ulid.ULID) error {
		mark, err := block.ReadDeletionMark(ctx, c.bkt, id)
		switch errs.KindOf(err) {
		case errs.OK:
		case errs.NotFound:
			return nil
		default:
			return err
		}
		if c.opts.Now().Sub(time.Unix(mark.DeletionTime, 0)) < delayOf(mark, c.opts.DeleteDelay) {
			return nil
		}
		bytes := int64(0)
		if m := l.view.Metas[id]; m != nil {
			bytes = m.Bytes()
			if m.Thanos.Source == block.SourceCompactor {
				if err := c.doneRecord(ctx, id); err != nil {
					return err
				}
			}
		}
		if err := block.Delete(ctx, c.bkt, id); err != nil {
			c.metrics.deletionFailures.Inc()
			return err
		}
		c.changes.Add(1)
		c.metrics.deleted.Inc()
		c.log.Info("deleted a block that was marked", "block", id.String(), "marked",
			time.Unix(mark.DeletionTime, 0).UTC().Format(time.RFC3339), "reason", mark.Details, "bytes", bytes)
		return nil
	})
}

// each does something with each block, several at a time. The error joins those of the first few that failed.
func (c *Compactor) each(ctx context.Context, ids []ulid.ULID, do func(context.Context, ulid.ULID) error) error {
	var mu sync.Mutex
	var faults []error
	failed := 0
	var g errgroup.Group
	g.SetLimit(deletions)
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			err := guarded(func() error { return do(ctx, id) })
			if err == nil {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if failed++; failed <= 3 {
				faults = append(faults, err)
			}
			return nil
		})
	}
	_ = g.Wait() // no error: each is in faults
	if failed > len(faults) {
		faults = append(faults, fmt.Errorf("and %d more failed", failed-len(faults)))
	}
	return errors.Join(append(faults, ctx.Err())...)
}

// partial is what is known of a directory without a meta.json.
type partial struct {
	until time.Time // it is not looked at before
	sum   uint64    // of the names and sizes of its objects, where the provider says no times
	since time.Time // since when sum was so
}

// cleanPartial deletes what uploads left that were broken off: directories without a meta.json to which nothing came
// for partialAge. A meta.json that cannot be read is never a reason to delete.
func (c *Compactor) cleanPartial(ctx context.Context, l *look) error {
	now := c.opts.Now()
	known := map[ulid.ULID]*partial{}
	var todo []ulid.ULID
	for id, err := range l.view.Partial {
		_, marked := l.view.Deletions[id]
		if errs.KindOf(err) != errs.NotFound || marked || now.Sub(id.Timestamp()) <= partialAge {
			continue
		}
		p := c.partials[id]
		if p == nil {
			p = &partial{}
		}
		if known[id] = p; !now.Before(p.until) {
			todo = append(todo, id)
		}
	}
	c.partials = known
	slices.SortFunc(todo, ulid.ULID.Compare)
	return c.each(ctx, todo, func(ctx context.Context, id ulid.ULID) error {
		brokenOff, err := c.partials[id].look(ctx, c.quietly, id, now)
		if err != nil || !brokenOff {
			return err
		}
		c.metrics.partialAttempts.Inc()
		there, err := c.bkt.Exists(ctx, block.Object(id, block.MetaName))
		if err != nil || there {
			return err
		}
		if err := block.Delete(ctx, c.bkt, id); err != nil {
			c.metrics.deletionFailures.Inc()
			return err
		}
		c.changes.Add(1)
		c.metrics.partialDeleted.Inc()
		c.log.Info("deleted what an upload left that was broken off", "block", id.String(), "unchanged_for", partialAge)
		return nil
	})
}

// look reports whether the upload of the directory id was broken off.
func (p *partial) look(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, now time.Time) (bool, error) {
	names, err := block.ObjectsOf(ctx, bkt, id)
	if err != nil || len(names) == 0 {
		return false, err
	}
	slices.Sort(names) // providers list in orders of their own
	newest, timeless := time.Time{}, false
	sum := fnv.New64a()
	for _, rel := range names {
		name := block.Object(id, rel)
		attrs, err := bkt.Attributes(ctx, name)
		if err != nil {
			if bkt.IsObjNotFoundErr(err) {
				return false, nil
			}
			return false, errs.E(errs.Unavailable, "look at %s: %w", name, err)
		}
		fmt.Fprintf(sum, "%s\x00%d\x00", name, attrs.Size)
		timeless = timeless || attrs.LastModified.IsZero()
		if attrs.LastModified.After(newest) {
			newest = attrs.LastModified
		}
	}
	if timeless {
		if s := sum.Sum64(); p.since.IsZero() || p.sum != s {
			p.sum, p.since = s, now
		}
		newest = p.since
	}
	p.until = newest.Add(partialAge)
	if timeless {
		p.until = now.Add(partialAge / 8) // it is to be seen unchanged, not only at the end
	}
	return now.Sub(newest) > partialAge, nil
}
