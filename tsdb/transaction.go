package tsdb

import (
	"cmp"
	"context"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/seriesref"
)

// transaction is one Append. Transactions are reused, so that what does not escape is not allocated again.
type transaction struct {
	in      *instance
	m       *metrics
	rules   *rules
	app     storage.AppenderV2
	lo, hi  int64 // accepted times, ms, inclusive
	oldest  int64 // the lowest timestamp of the samples that were accepted, ms
	now     time.Time
	builder labels.ScratchBuilder
	head    headReader
	seen    seriesref.Set

	failures  []wire.Failure // handed to the caller
	fresh     []freshRef     // put into the cache of references after the commit
	wait      []waiting      // series with exemplars, which are appended after all samples
	exemplars []exemplar.Exemplar
	floats    []wire.Sample
	hists     []wire.Histogram

	numFloats, numHists, numUnknown int

	touched bool // the TSDB was asked to append something
	inside  bool // a call of the TSDB is under way, which may hold locks
}

// transactions holds those that are not in use.
var transactions = sync.Pool{New: func() any { return &transaction{builder: labels.NewScratchBuilder(16)} }}

// freshRef is a series that the cache of references did not have.
type freshRef struct {
	key  wire.Key
	ref  storage.SeriesRef
	hint *atomic.Uint64
}

// waiting is a series whose exemplars are still to be appended.
type waiting struct {
	index  int32
	failed int32 // index in transaction.failures, -1 = none
	ref    storage.SeriesRef
}

// begin takes the rules and the time that the transaction goes by.
func (tx *transaction) begin() error {
	r, err := tx.in.follow()
	if err != nil {
		return err
	}
	tx.rules, tx.now = r, tx.in.opts.Now()
	tx.lo, tx.hi = tx.now.Add(-r.window).UnixMilli(), tx.now.Add(r.future).UnixMilli()
	tx.numFloats, tx.numHists, tx.numUnknown, tx.touched = 0, 0, 0, false
	tx.oldest = math.MaxInt64
	return nil
}

// put gives tx back, for another Append.
func (tx *transaction) put() {
	clear(tx.exemplars)
	clear(tx.hists)
	tx.in, tx.m, tx.rules, tx.app, tx.failures = nil, nil, nil, nil, nil
	tx.head.reset()
	tx.fresh, tx.wait, tx.exemplars = tx.fresh[:0], tx.wait[:0], tx.exemplars[:0]
	tx.floats, tx.hists = tx.floats[:0], tx.hists[:0]
	transactions.Put(tx)
}

// run appends and commits. After a panic before the commit, what was appended is rolled back, and only this request
// fails.
func (tx *transaction) run(ctx context.Context, in *instance, s wire.Shard) (err error) {
	tx.in, tx.m = in, in.m
	if err := in.fence.take(ctx); err != nil {
		return errs.E(errs.Unavailable, "write of tenant %q: waited for another write or a cut of the tenant: %w", in.id, err)
	}
	defer in.fence.give()
	defer func() {
		if p := recover(); p != nil {
			err = tx.recovered(p)
		}
	}()
	if err := in.logError(); err != nil {
		return err
	}
	if err := tx.begin(); err != nil {
		return err
	}
	tx.app = in.db.Head().AppenderV2(ctx)
	tx.seen.Reset(len(s.Series))
	if err := tx.appendAll(ctx, s); err != nil {
		if tx.app != nil {
			tx.rollback()
		}
		return err
	}
	if !tx.touched { // nothing was accepted, or tried
		tx.rollback()
	} else if err := tx.commit(); err != nil {
		return err
	}
	tx.count()
	return nil
}

// commit makes what was appended durable, and puts new references into the cache. Afterwards tx has no appender.
func (tx *transaction) commit() error {
	in, app := tx.in, tx.app
	// Before anybody can read the samples, and also where the commit fails, since that may leave some.
	in.arrivals.add(tx.now.UnixMilli(), tx.oldest)
	tx.inside = true
	err := app.Commit()
	tx.inside, tx.app = false, nil
	in.writes.Add(1) // a commit that failed may have left something, too
	if err != nil {
		in.failLog(err)
		return errs.E(logKind(err), "write of tenant %q: %w", in.id, err)
	}
	if err := in.logError(); err != nil {
		return err // the out-of-order samples may be lost in a crash
	}
	for _, f := range tx.fresh {
		in.refs.Put(f.key, f.ref)
		in.refs.Hint(f.hint, f.ref)
	}
	tx.fresh = tx.fresh[:0]
	in.lastWrite.Store(tx.now.UnixMilli())
	return nil
}

// commitAndGoOn is for a series that the request names a second time. It commits what came before and goes on with a
// new appender, since the TSDB compares samples only with what is committed. This is rare: decoders join such series.
func (tx *transaction) commitAndGoOn(ctx context.Context, series int) error {
	if err := tx.commit(); err != nil {
		return err
	}
	tx.app = tx.in.db.Head().AppenderV2(ctx)
	tx.seen.Reset(series)
	return nil
}

// recovered ends the transaction after the panic p. A panic that came out of the TSDB may have left a series locked,
// so the head cannot be used any more. Any other panic is a fault of our own code with this request, which alone
// fails.
func (tx *transaction) recovered(p any) (err error) {
	in := tx.in
	if tx.inside {
		tx.inside = false
		in.writes.Add(1)
		return in.setStuck(p)
	}
	defer func() {
		if p := recover(); p != nil {
			tx.inside = false
			err = in.setStuck(p)
		}
	}()
	err = in.panicked(p)
	if tx.app != nil {
		tx.rollback()
	}
	return err
}

// panicked records the panic p of a write, outside of the TSDB, and returns the error for its request.
func (in *instance) panicked(p any) error {
	in.log.Error("panic in a write, which is rolled back", "panic", p, "stack", string(debug.Stack()))
	in.m.panics.Inc()
	return errs.E(errs.Internal, "write of tenant %q: panic: %v", in.id, p)
}

// appendAll appends the samples of all series, and then the exemplars, which the head takes only for series that it
// has.
func (tx *transaction) appendAll(ctx context.Context, s wire.Shard) error {
	for _, i := range s.Series {
		w := seriesWriter{tx: tx, s: &s.Batch.Series[i], index: int(i), failed: -1}
		if w.find() {
			if err := tx.commitAndGoOn(ctx, len(s.Series)); err != nil {
				return err
			}
			tx.seen.Add(w.ref)
		}
		if err := w.write(); err != nil {
			return err
		}
	}
	if len(tx.wait) == 0 {
		return nil
	}
	for _, x := range tx.wait {
		w := seriesWriter{tx: tx, s: &s.Batch.Series[x.index], index: int(x.index), ref: x.ref, failed: int(x.failed)}
		w.countRefusedExemplars(w.exemplars())
	}
	slices.SortStableFunc(tx.failures, func(a, b wire.Failure) int { return cmp.Compare(a.Series, b.Series) })
	return nil
}

func (tx *transaction) rollback() {
	tx.inside = true
	if err := tx.app.Rollback(); err != nil {
		tx.in.failLog(err) // the series it created are in memory and not in the WAL
	}
	tx.inside = false
}

// count adds what the transaction did to the metrics.
func (tx *transaction) count() {
	if tx.numFloats > 0 {
		tx.m.samples.WithLabelValues("float").Add(float64(tx.numFloats))
	}
	if tx.numHists > 0 {
		tx.m.samples.WithLabelValues("histogram").Add(float64(tx.numHists))
	}
	if tx.numUnknown > 0 {
		tx.m.unknown.Add(float64(tx.numUnknown))
	}
	for i := range tx.failures {
		if k := tx.failures[i].Kind; k != errs.OK {
			tx.m.failures.WithLabelValues(k.String()).Inc()
		}
	}
}
