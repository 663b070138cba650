package tsdb

// Cutting is explained in docs/design/003-cutting-heads.md.

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// cut writes the head's samples before end (ms, exclusive) into blocks and drops them from the head; math.MaxInt64
// means everything, the unfinished range too. Writers go on meanwhile. When ctx ends it returns after the block it is
// at.
func (in *instance) cut(ctx context.Context, end int64) error {
	if err := in.cutting.take(ctx); err != nil {
		return errs.E(errs.Unavailable, "cut of tenant %q: another one is under way: %w", in.id, err)
	}
	defer in.cutting.give()
	in.cutCtx = ctx
	defer in.waits.Store(nil)
	writes := in.writes.Load()
	some, err := in.cutInOrder(ctx, end)
	if err != nil {
		return errs.E(errs.KindOf(err), "cut head of tenant %q: %w", in.id, err)
	}
	// Without any out-of-order sample since the TSDB was opened there is nothing to cut. A cut by the clock does it all
	// the same, since it reloads blocks, which deletes old ones.
	if in.db.Head().MaxOOOTime() != math.MinInt64 || !some && end != math.MaxInt64 {
		if err := in.cutOutOfOrder(ctx); err != nil {
			return errs.E(errs.KindOf(err), "cut out-of-order head of tenant %q: %w", in.id, err)
		}
	}
	in.lastCut.Store(in.opts.Now().UnixMilli())
	if end == math.MaxInt64 {
		in.wholeCut.Store(writes)
	} else {
		in.cutTo.Store(max(end, in.cutTo.Load()))
	}
	return nil
}

// cutInOrder cuts one aligned block range after the other, oldest first. For each of them:
//
//  1. no sample of the range enters in order any more: an appender made from now on takes it as out of order
//  2. appenders made before have committed
//  3. the range becomes a block, and leaves the head
//
// Step 3 lowers the bound of step 1 to the end of its own range, so each range needs all three. It reports whether
// there was any range to cut.
func (in *instance) cutInOrder(ctx context.Context, end int64) (some bool, err error) {
	head, width := in.db.Head(), in.opts.BlockDuration.Milliseconds()
	if head.MinTime() == math.MaxInt64 || head.NumSeries() == 0 {
		return false, nil // never written to, or nothing left
	}
	last := head.MaxTime()
	if end != math.MaxInt64 {
		last = min(end, rangeEnd(last, width)) - 1
	}
	for head.MinTime() <= last {
		if err := ctx.Err(); err != nil {
			return some, err
		}
		if err := in.raiseFence(ctx, min(rangeEnd(head.MinTime(), width)-1, last)+1); err != nil {
			return some, err
		}
		from := head.MinTime() // a commit that was under way may have lowered it
		to := min(rangeEnd(from, width)-1, last)
		if err := in.db.CompactHead(promtsdb.NewRangeHeadWithIsolationDisabled(head, from, to)); err != nil {
			return some, fmt.Errorf("compact [%d, %d]: %w", from, to, err)
		}
		head.SetMinValidTime(in.bound)
		some = true
	}
	return some, nil
}

// raiseFence makes samples before bound out of order for every append, when it returns without an error.
//
// The TSDB's own way, waiting for appenders that overlap, leaves a gap: an appender reads the bound first and
// registers itself afterwards. The fence has none, as an appender is made and committed under it.
func (in *instance) raiseFence(ctx context.Context, bound int64) error {
	in.bound = max(in.bound, bound)
	in.cutBefore.Store(max(in.cutBefore.Load(), bound))
	in.db.Head().SetMinValidTime(in.bound)
	if err := in.takeFence(ctx); err != nil {
		return err
	}
	in.fence.give() // only the wait mattered: a transaction before it may have read the old bound
	return nil
}

// cutOutOfOrder cuts all out-of-order chunks into a block per range.
//
// The TSDB first scans all series, mapping their out-of-order chunks to disk and noting which series have any, and in
// the end drops every mapped chunk up to the last one it noted. A chunk that fills up and is mapped during the scan,
// of a series scanned before, would be dropped without having been written (cut_test.go shows it). So the scan has
// the fence, and gives it up when the first block begins or, without any, when blocks are reloaded.
func (in *instance) cutOutOfOrder(ctx context.Context) error {
	if err := in.takeFence(ctx); err != nil {
		return err
	}
	start := time.Now()
	unlock := func() {
		in.fence.give()
		in.m.fenceTime.Observe(time.Since(start).Seconds())
	}
	in.scanned.Store(&unlock)
	defer in.scanDone()
	before := in.cutLate.Load()
	err := in.db.CompactOOOHead(ctx)
	if err != nil {
		in.cutLate.Store(before) // nothing was dropped
	}
	return err
}

// takeFence takes the fence, once the transaction under way has ended.
func (in *instance) takeFence(ctx context.Context) error {
	in.waits.Store(&cutWait{writes: true, since: time.Now()})
	defer in.waits.Store(nil)
	if err := ctx.Err(); err != nil { // if the fence is free, take might take it although ctx has ended
		return err
	}
	return in.fence.take(ctx)
}

// scanDone gives back the fence that cutOutOfOrder holds. Further calls do nothing.
func (in *instance) scanDone() {
	if unlock := in.scanned.Swap(nil); unlock != nil {
		(*unlock)()
	}
}

// fenceMapped raises the fence above the samples in mapped chunks of each series that has no open chunk. There are
// such series after a crash that tore the WAL. The TSDB takes any sample of such a series for a new one; if it is not
// newer than the mapped chunks, the commit drops it without an error (prometheus#19722). A sample below the fence is
// out of order instead, and is stored. fenceMapped must be called before anybody writes.
func (in *instance) fenceMapped() (err error) {
	head := in.db.Head()
	index, err := head.Index()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	all, err := index.Postings(context.Background(), "", "")
	if err != nil {
		return err
	}
	bound := in.bound
	var builder labels.ScratchBuilder
	var metas []chunks.Meta
	for all.Next() {
		if err := index.Series(all.At(), &builder, &metas); err != nil {
			return err
		}
		// The open chunk, which is the last one, has no end yet.
		if n := len(metas); n > 0 && metas[n-1].MaxTime != math.MaxInt64 {
			bound = max(bound, metas[n-1].MaxTime+1)
		}
	}
	if bound > in.bound {
		in.bound = bound
		head.SetMinValidTime(bound)
	}
	return all.Err()
}

// rangeEnd is the end, exclusive, of the aligned range of the given width that t is in.
func rangeEnd(t, width int64) int64 {
	start := t - t%width
	if t < 0 && t%width != 0 {
		start -= width
	}
	return start + width
}
