package tsdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/seriesref"
)

// Append stores the shard in one transaction of its tenant's TSDB, which it creates when the tenant is new. When it
// returns no error, everything is in the WAL but what the failures name: Conflict for what the acceptance window or the
// TSDB refuses, and for another value than the one that the head holds for its time; Invalid for histograms that make
// no sense; Limited for new series over the tenant's limits. An error (Unavailable, Exhausted, Internal) promises
// nothing of any series; what a failed log may have left in it shows up at most after a restart. Exemplars and metadata
// fail nobody: what is not kept of them is counted in metrics, and exemplars in failures, of kind OK where there is
// nothing else to tell. Appending the same again is success.
func (d *DB) Append(ctx context.Context, s wire.Shard) (failures []wire.Failure, err error) {
	if err := ctx.Err(); err != nil {
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	if err := d.disk.Refusal(d.opts.Now()); err != nil {
		return nil, err
	}
	t, in, release, err := d.writer(ctx, s.Batch.Tenant)
	if err != nil {
		return nil, err
	}
	defer release()
	defer func() {
		if p := recover(); p != nil { // not in the transaction, which has its own
			failures, err = nil, in.panicked(p)
		}
	}()
	if len(s.Metadata) > 0 {
		if n := t.meta.Put(s.Batch.Metadata, s.Metadata); n > 0 {
			d.m.metadata.Add(float64(n))
		}
	}
	if len(s.Series) == 0 {
		return nil, nil
	}
	tx := transactions.Get().(*transaction)
	defer tx.put()
	if err := tx.run(ctx, in, s); err != nil {
		return nil, err
	}
	return tx.failures, nil
}

// transaction is one Append. It is reused: what does not escape is not allocated again.
type transaction struct {
	in      *instance
	m       *metrics
	rules   *rules
	app     storage.AppenderV2
	lo, hi  int64 // accepted times, ms, inclusive
	now     time.Time
	builder labels.ScratchBuilder
	head    headReader
	seen    seriesref.Set

	failures  []wire.Failure // handed to the caller
	fresh     []freshRef     // for refs, once committed
	wait      []waiting      // exemplars, appended when all samples are
	exemplars []exemplar.Exemplar
	floats    []wire.Sample
	hists     []wire.Histogram

	numFloats, numHists, numUnknown int

	touched bool // something was appended, or was tried to be
	inside  bool // the TSDB runs, and may hold locks
}

// transactions are those not in use.
var transactions = sync.Pool{New: func() any { return &transaction{builder: labels.NewScratchBuilder(16)} }}

type freshRef struct {
	key  wire.Key
	ref  storage.SeriesRef
	hint *atomic.Uint64
}

// waiting is a series whose exemplars are still to be appended.
type waiting struct {
	index  int32
	failed int32 // in transaction.failures, -1 none
	ref    storage.SeriesRef
}

func (tx *transaction) begin() error {
	r, err := tx.in.follow()
	if err != nil {
		return err
	}
	tx.rules, tx.now = r, tx.in.opts.Now()
	tx.lo, tx.hi = tx.now.Add(-r.window).UnixMilli(), tx.now.Add(r.future).UnixMilli()
	tx.numFloats, tx.numHists, tx.numUnknown, tx.touched = 0, 0, 0, false
	return nil
}

// put gives tx back for the next Append.
func (tx *transaction) put() {
	clear(tx.exemplars)
	clear(tx.hists)
	tx.in, tx.m, tx.rules, tx.app, tx.failures = nil, nil, nil, nil, nil
	tx.head.reset()
	tx.fresh, tx.wait, tx.exemplars = tx.fresh[:0], tx.wait[:0], tx.exemplars[:0]
	tx.floats, tx.hists = tx.floats[:0], tx.hists[:0]
	transactions.Put(tx)
}

// run appends and commits. A panic before the commit costs this request alone: what was appended is rolled back.
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

// commit makes what was appended durable, and its references known. After an error there is no appender any more.
func (tx *transaction) commit() error {
	in, app := tx.in, tx.app
	tx.inside = true
	err := app.Commit()
	tx.inside, tx.app = false, nil
	in.writes.Add(1) // also one that failed may have left something
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

// again commits what came before a series that the request names a second time, and goes on with a new appender:
// samples are compared with what is committed. Decoders join such series, so that this is rare.
func (tx *transaction) again(ctx context.Context, series int) error {
	if err := tx.commit(); err != nil {
		return err
	}
	tx.app = tx.in.db.Head().AppenderV2(ctx)
	tx.seen.Reset(series)
	return nil
}

// recovered ends the transaction after the panic p. One that came out of the TSDB may have left a series locked, so
// that the head cannot be used any more. Any other is the fault of the request, or of our own code with it.
func (tx *transaction) recovered(p any) (err error) {
	in := tx.in
	if tx.inside {
		tx.inside = false
		in.writes.Add(1)
		return in.stuck(p)
	}
	defer func() {
		if p := recover(); p != nil {
			tx.inside = false
			err = in.stuck(p)
		}
	}()
	err = in.panicked(p)
	if tx.app != nil {
		tx.rollback()
	}
	return err
}

// panicked records the panic p of a write that has not touched the head's locks, and is the error of its request.
func (in *instance) panicked(p any) error {
	in.log.Error("panic in a write, which is rolled back", "panic", p, "stack", string(debug.Stack()))
	in.m.panics.Inc()
	return errs.E(errs.Internal, "write of tenant %q: panic: %v", in.id, p)
}

// appendAll appends the samples of all series, and then the exemplars: these need their series in the head.
func (tx *transaction) appendAll(ctx context.Context, s wire.Shard) error {
	for _, i := range s.Series {
		w := seriesWriter{tx: tx, s: &s.Batch.Series[i], index: int(i), failed: -1}
		if w.find() {
			if err := tx.again(ctx, len(s.Series)); err != nil {
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
		w.forgo(w.exemplars())
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

func (tx *transaction) countRefusal(err error) {
	var r *refusal
	if errors.As(err, &r) {
		tx.m.limited.WithLabelValues(tx.m.tenants.label(tx.in.id), r.limit).Inc()
	}
}

func logKind(err error) errs.Kind {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errs.Exhausted
	}
	return errs.Internal
}

// find looks the series up, and reports whether the transaction has appended to it already.
func (w *seriesWriter) find() (twice bool) {
	tx, s := w.tx, w.s
	known, met := tx.in.refs.Find(s)
	w.known, w.ref = known, known
	if met && s.KeepsLabels() {
		tx.keep(s, wire.LabelsOf(&tx.builder, s.Labels()))
	}
	if len(s.Samples)+len(s.Histograms) == 0 {
		return false
	}
	if w.ref == 0 {
		w.labels = wire.LabelsOf(&tx.builder, s.Labels())
		w.ref = w.reference()
	}
	return w.ref != 0 && tx.seen.Add(w.ref)
}

// write appends the samples of the series in time order. An error ends the transaction; what concerns the series alone
// is a failure.
func (w *seriesWriter) write() error {
	tx, found := w.tx, w.ref
	if err := w.samples(); err != nil {
		return err
	}
	if w.ref != found {
		tx.seen.Add(w.ref)
	}
	if w.ref != w.known && w.some {
		tx.fresh = append(tx.fresh, freshRef{w.s.Key, w.ref, w.s.Hint})
		tx.numUnknown++
	}
	if len(w.s.Exemplars) > 0 {
		tx.wait = append(tx.wait, waiting{int32(w.index), int32(w.failed), w.ref})
	}
	return nil
}

// seriesWriter appends one series of a transaction.
type seriesWriter struct {
	tx     *transaction
	s      *wire.Series
	index  int
	ref    storage.SeriesRef
	known  storage.SeriesRef // what refs has
	labels labels.Labels     // empty until needed
	failed int               // index in tx.failures, -1 none
	barred bool              // it is new, and a limit keeps it out
	last   point             // accepted last, when some is set
	some   bool
	looked bool // tx.head reads this series
}

func (w *seriesWriter) samples() error {
	s := w.s
	switch {
	case len(s.Histograms) == 0:
		return w.floats(w.tx.orderedFloats(s.Samples))
	case len(s.Samples) == 0:
		return w.histograms(w.tx.orderedHistograms(s.Histograms))
	}
	// Both: merged by time, so that nothing becomes out of order that need not.
	floats, hists := w.tx.orderedFloats(s.Samples), w.tx.orderedHistograms(s.Histograms)
	for len(floats) > 0 && len(hists) > 0 {
		n := 0
		if floats[0].T <= hists[0].T {
			for n < len(floats) && floats[n].T <= hists[0].T {
				n++
			}
			if err := w.floats(floats[:n]); err != nil {
				return err
			}
			floats = floats[n:]
			continue
		}
		for n < len(hists) && hists[n].T < floats[0].T {
			n++
		}
		if err := w.histograms(hists[:n]); err != nil {
			return err
		}
		hists = hists[n:]
	}
	return errors.Join(w.floats(floats), w.histograms(hists))
}

func (tx *transaction) orderedFloats(in []wire.Sample) []wire.Sample {
	byTime := func(a, b wire.Sample) int { return cmp.Compare(a.T, b.T) }
	if slices.IsSortedFunc(in, byTime) {
		return in
	}
	tx.floats = append(tx.floats[:0], in...)
	slices.SortStableFunc(tx.floats, byTime)
	return tx.floats
}

func (tx *transaction) orderedHistograms(in []wire.Histogram) []wire.Histogram {
	byTime := func(a, b wire.Histogram) int { return cmp.Compare(a.T, b.T) }
	if slices.IsSortedFunc(in, byTime) {
		return in
	}
	tx.hists = append(tx.hists[:0], in...)
	slices.SortStableFunc(tx.hists, byTime)
	return tx.hists
}

func (w *seriesWriter) floats(samples []wire.Sample) error {
	for i := range samples {
		p := &samples[i]
		switch ok, err := w.append(p.ST, point{t: p.T, v: p.V}); {
		case err != nil:
			return err
		case ok:
			w.tx.numFloats++
		default:
			w.tx.failures[w.failed].Samples++
		}
	}
	return nil
}

func (w *seriesWriter) histograms(hists []wire.Histogram) error {
	for i := range hists {
		p := &hists[i]
		switch ok, err := w.append(p.ST, point{t: p.T, h: p.H, fh: p.FH}); {
		case err != nil:
			return err
		case ok:
			w.tx.numHists++
		default:
			w.tx.failures[w.failed].Histograms++
		}
	}
	return nil
}

// append adds one sample. False means that it was refused, and that tx.failures[w.failed] says why.
func (w *seriesWriter) append(st int64, p point) (bool, error) {
	tx := w.tx
	if w.barred {
		return false, nil
	}
	if p.t < tx.lo || p.t > tx.hi {
		w.fail(errs.Conflict, outsideWindow(p.t, tx))
		return false, nil
	}
	if w.some && p.t == w.last.t {
		// The TSDB compares with what is committed, so it would drop the second of two in silence.
		if !p.same(w.last) {
			w.fail(errs.Conflict, fmt.Errorf("two different values at %d in one request: %w", p.t, storage.ErrDuplicateSampleForTimestamp))
			return false, nil
		}
		return true, nil
	}
	tx.touched = true
	w.begun(st, p)
	err := w.offer(p, storage.AOptions{RejectOutOfOrder: true})
	if err != nil {
		err = w.notNewer(p, err)
	}
	if err != nil {
		kind := classify(err)
		if kind == errs.Limited {
			w.barred = true
			tx.countRefusal(err)
		}
		if kind == errs.Internal {
			return false, errs.E(kind, "append to tenant %q: series %s: %w", tx.in.id, w.name(), err)
		}
		w.fail(kind, err)
		return false, nil
	}
	w.last, w.some = p, true
	return true, nil
}

// begun adds a zero at st, the start timestamp of p, if the tenant wants one and st is newer than all of the series. The sender
// did not send it, so a refusal of it is no failure.
func (w *seriesWriter) begun(st int64, p point) {
	if !w.tx.rules.zeros || st < w.tx.lo || st >= p.t || w.some && st <= w.last.t || p.stale() {
		return
	}
	zero := point{t: st}
	// The fields that are copied let p go into the chunk of the zero.
	switch {
	case p.h != nil:
		zero.h = &histogram.Histogram{
			CounterResetHint: histogram.CounterReset, Schema: p.h.Schema, ZeroThreshold: p.h.ZeroThreshold, CustomValues: p.h.CustomValues,
		}
	case p.fh != nil:
		zero.fh = &histogram.FloatHistogram{
			CounterResetHint: histogram.CounterReset, Schema: p.fh.Schema, ZeroThreshold: p.fh.ZeroThreshold, CustomValues: p.fh.CustomValues,
		}
	}
	if w.offer(zero, storage.AOptions{RejectOutOfOrder: true}) == nil {
		w.last, w.some = zero, true
	}
}

// notNewer goes on with a sample that is not newer than all of its series, which refused says of it: it is compared
// with what the head holds for its time, and appended out of order if there is nothing.
func (w *seriesWriter) notNewer(p point, refused error) error {
	late := errors.Is(refused, storage.ErrOutOfOrderSample)
	if !late && !errors.Is(refused, storage.ErrDuplicateSampleForTimestamp) {
		return refused
	}
	switch has, found := w.stored(p.t); {
	case found && p.same(has):
		return nil
	case found:
		return fmt.Errorf("another value is stored for %d: %w", p.t, storage.ErrDuplicateSampleForTimestamp)
	case late:
		return w.offer(p, storage.AOptions{})
	}
	return refused
}

// offer gives p to the TSDB, and the series' labels where it does not know the reference.
func (w *seriesWriter) offer(p point, o storage.AOptions) error {
	if w.ref != 0 {
		err := w.call(w.ref, p, o)
		if err == nil || !w.labels.IsEmpty() || !errors.Is(err, promtsdb.ErrInvalidSample) {
			return err
		}
		w.ref = 0 // "empty labelset": the head forgot the series since its reference was cached
	}
	if w.labels.IsEmpty() {
		w.labels = wire.LabelsOf(&w.tx.builder, w.s.Labels())
	}
	err := w.call(0, p, o)
	if err == nil && w.s.KeepsLabels() {
		w.tx.keep(w.s, w.labels)
	}
	return err
}

// call is one call of the TSDB, which sets w.ref when it succeeds. Chunks have no place for a start timestamp.
func (w *seriesWriter) call(ref storage.SeriesRef, p point, o storage.AOptions) error {
	w.tx.inside = true
	ref, err := w.tx.app.Append(ref, w.labels, 0, p.t, p.v, p.h, p.fh, o)
	w.tx.inside = false
	if err == nil {
		w.ref = ref
	}
	return err
}

// keep tells the stream that s came by that the head has its labels, which are ls.
func (tx *transaction) keep(s *wire.Series, ls labels.Labels) {
	if app, ok := tx.app.(storage.GetRef); ok {
		if _, kept := app.GetRef(ls, ls.Hash()); !kept.IsEmpty() {
			s.KeptBy(kept)
		}
	}
}

func outsideWindow(t int64, tx *transaction) error {
	at := time.UnixMilli(t).UTC().Format(time.RFC3339Nano)
	if t < tx.lo {
		return fmt.Errorf("sample at %s (%d) is older than the accepted window of %s", at, t, tx.rules.window)
	}
	return fmt.Errorf("sample at %s (%d) is more than %s in the future", at, t, tx.rules.future)
}

// classify tells an error of the TSDB that concerns one sample from one that is ours.
func classify(err error) errs.Kind {
	for _, conflict := range []error{
		storage.ErrOutOfOrderSample, storage.ErrTooOldSample, storage.ErrOutOfBounds, storage.ErrDuplicateSampleForTimestamp,
	} {
		if errors.Is(err, conflict) {
			return errs.Conflict
		}
	}
	var barred *refusal
	if errors.As(err, &barred) {
		return errs.Limited
	}
	var invalid histogram.Error
	if errors.As(err, &invalid) || errors.Is(err, promtsdb.ErrInvalidSample) {
		return errs.Invalid
	}
	return errs.Internal
}

// fail makes sure that the series has a failure; the first reason stands for all of its samples.
func (w *seriesWriter) fail(kind errs.Kind, reason error) {
	if w.failed < 0 {
		w.failed = len(w.tx.failures)
		w.tx.failures = append(w.tx.failures, wire.Failure{Series: w.index, Kind: kind, Reason: fmt.Sprintf("%s: %v", w.name(), reason)})
	}
}

func (w *seriesWriter) name() string { return wire.LabelsOf(&w.tx.builder, w.s.Labels()).String() }
