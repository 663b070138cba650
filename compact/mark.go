package compact

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Why a block is marked for deletion: the label reason of thanos_compact_blocks_marked_total, and what the mark says,
// in Thanos's words.
const (
	becauseCompacted = "source of compacted block"
	becauseOutdated  = "outdated block"
	becauseRetention = "block exceeding retention"
	becauseDeleted   = "tenant deletion requested"
	becauseErased    = "made anew without samples that operators asked to delete"
)

// mark marks a block for deletion. It goes on for markTimeout when ctx ends meanwhile, so that a stop between two
// inputs of a job is rare; what it leaves unmarked is found as replaced later.
func (c *Compactor) mark(ctx context.Context, id ulid.ULID, reason, details string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	if err := block.MarkDeletion(ctx, c.bkt, id, details, c.opts.Now()); err != nil {
		return err
	}
	c.changes.Add(1)
	c.metrics.marked.WithLabelValues(markerDeletion, reason).Inc()
	return nil
}

// mayAct is nil if blocks may be marked and deleted now. Else it says what keeps this process from it.
func (c *Compactor) mayAct(ctx context.Context) error {
	c.acting.Lock()
	defer c.acting.Unlock()
	err := c.checkClock(ctx)
	if err == nil {
		err = c.foreign.fault(c.opts.Now())
	}
	c.resting(err)
	return err
}

// resting shows and logs, once, what keeps this process from marking and deleting. The caller holds acting.
func (c *Compactor) resting(err error) {
	text, value := "", 0.0
	if errs.KindOf(err) == errs.Conflict {
		text, value = err.Error(), 1
	} else if err != nil {
		return // the bucket does not answer, which is shown elsewhere
	}
	c.metrics.resting.Set(value)
	was := c.board.setRest(text)
	switch {
	case text != "" && was == "":
		c.log.Error("nothing is compacted, marked or deleted", "err", err)
	case text == "" && was != "":
		c.log.Info("blocks are compacted, marked and deleted again")
	}
}

// markReplaced marks blocks that are replaced and were not marked: the process that replaced them was stopped before.
// What replaces them must not be marked itself, and all its objects must be there.
func (c *Compactor) markReplaced(ctx context.Context, l *look) error {
	began := time.Now()
	whole := map[ulid.ULID]error{} // of what replaces others
	var ids []ulid.ULID
	var faults []error
	for id, r := range block.Replaced(l.live) {
		if !c.owns(id[:]) {
			continue
		}
		var fault error
		for _, by := range r.By {
			if _, known := whole[by.ULID]; !known {
				whole[by.ULID] = c.verify(ctx, by)
			}
			fault = errors.Join(fault, whole[by.ULID])
		}
		if fault != nil {
			faults = append(faults, fmt.Errorf("block %s is replaced, and stays: %w", id, fault))
			continue
		}
		ids = append(ids, id)
	}
	err := c.each(ctx, ids, func(ctx context.Context, id ulid.ULID) error {
		if err := c.mark(ctx, id, becauseOutdated, becauseOutdated); err != nil {
			return err
		}
		c.metrics.collected.Inc()
		c.log.Info("marked a block for deletion that others replace", "block", id.String(),
			"bytes", l.view.Metas[id].Bytes())
		return nil
	})
	err = errors.Join(append(faults, err)...)
	c.metrics.collectedPass(time.Since(began), err)
	return err
}

// verify is nil if the bucket has every object of a block that its meta.json names, with its size. Errors: Unavailable;
// Invalid, if one is missing or of another size.
func (c *Compactor) verify(ctx context.Context, m *block.Meta) error {
	for _, f := range append(slices.Clone(m.Thanos.Files), block.File{RelPath: block.MetaName}) {
		name := block.Object(m.ULID, f.RelPath)
		attrs, err := c.quietly.Attributes(ctx, name)
		switch {
		case err != nil && c.bkt.IsObjNotFoundErr(err):
			return errs.E(errs.Invalid, "%s is not in the bucket", name)
		case err != nil:
			return errs.E(errs.Unavailable, "look at %s: %w", name, err)
		case f.RelPath != block.MetaName && f.SizeBytes > 0 && attrs.Size != f.SizeBytes:
			return errs.E(errs.Invalid, "%s has %d bytes in the bucket, and %d by its meta.json", name, attrs.Size, f.SizeBytes)
		}
	}
	return nil
}

func (c *Compactor) owns(key []byte) bool { return c.opts.Owns == nil || c.opts.Owns(key) }
