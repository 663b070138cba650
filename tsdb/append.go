package tsdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
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
)

// Append stores the shard in one transaction of its tenant's TSDB, which it creates when the tenant is new. When it
// returns no error, everything is in the WAL but what the failures name: Conflict for what the acceptance window or the
// TSDB refuses, Invalid for histograms that make no sense, Limited for new series over the tenant's limits. An error (Unavailable, Exhausted, Internal) promises nothing
// of any series; what a failed log may have left in it shows up at most after a restart. Exemplars and metadata fail
// nobody: what is not kept of them is counted in metrics, and exemplars in failures, of kind OK where there is nothing else
// to tell. Appending the same again is success.
func (d *DB) Append(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
	if err := ctx.Err(); err != nil {
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	if err := d.room.refuse(d.opts.Now()); err != nil {
		return nil, err
	}
	t, in, release, err := d.writer(ctx, s.Batch.Tenant)
	if err != nil {
		return nil, err
	}
	if len(s.Metadata) > 0 {
		if n := t.meta.put(s.Batch.Metadata, s.Metadata); n > 0 {
			d.m.metadata.Add(float64(n))
		}
	}
	if len(s.Series) == 0 {
		release()
		return nil, nil
	}
	tx := d.crew.get()
	if err := tx.begin(in, d.m); err != nil {
		release()
		d.crew.put(tx)
		return nil, err
	}
	// A transaction that hangs in the head is left behind, with the batch and its hold on the instance.
	s.Batch.Retain()
	tx.jobs <- job{ctx, s, func() { s.Batch.Release(); release() }}
	select {
	case err = <-tx.done:
		failures := tx.failures
		d.crew.put(tx)
		if err != nil {
			return nil, err
		}
		return failures, nil
	case <-in.wedge.shut:
		tx.leave()
		return nil, in.logError()
	}
}

// transaction is one Append. It is reused: what does not escape is not allocated again.
type transaction struct {
	in      *instance
	m       *metrics
	jobs    chan job   // closed when it is not needed any more
	done    chan error // takes how a job ended
	rules   *rules
	app     storage.AppenderV2
	lo, hi  int64 // accepted times, ms, inclusive
	now     time.Time
	builder labels.ScratchBuilder

	failures  []wire.Failure // handed to the caller
	fresh     []freshRef     // for refs, once committed
	exemplars []exemplar.Exemplar
	floats    []wire.Sample
	hists     []wire.Histogram

	numFloats, numHists, numUnknown int

	touched bool // something was appended, or was tried to be

	unknown []int32 // series that the head may have to make, put off to the end
	making  bool    // it holds instance.making
}

type freshRef struct {
	key  wire.Key
	ref  storage.SeriesRef
	hint *atomic.Uint64
}

func (tx *transaction) begin(in *instance, m *metrics) error {
	r, err := in.follow()
	if err != nil {
		return err
	}
	tx.in, tx.m, tx.rules, tx.now = in, m, r, in.opts.Now()
	tx.lo, tx.hi = tx.now.Add(-r.window).UnixMilli(), tx.now.Add(r.future).UnixMilli()
	tx.numFloats, tx.numHists, tx.numUnknown, tx.touched = 0, 0, 0, false
	return nil
}

func (tx *transaction) reset() {
	clear(tx.exemplars)
	clear(tx.hists)
	tx.in, tx.m, tx.rules, tx.app, tx.failures = nil, nil, nil, nil, nil
	tx.unknown, tx.making = tx.unknown[:0], false
	tx.fresh, tx.exemplars, tx.floats, tx.hists = tx.fresh[:0], tx.exemplars[:0], tx.floats[:0], tx.hists[:0]
}

// survive runs the transaction. A panic in it is an error.
func (tx *transaction) survive(ctx context.Context, s wire.Shard) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = tx.in.stuck(p)
		}
	}()
	return tx.run(ctx, s)
}

func (tx *transaction) run(ctx context.Context, s wire.Shard) error {
	in := tx.in
	in.fence.RLock()
	defer in.fence.RUnlock()
	if err := in.logError(); err != nil {
		return err
	}
	tx.app = in.db.Head().AppenderV2(ctx)
	err := tx.appendAll(s, s.Series)
	if len(tx.unknown) > 0 && err == nil {
		in.making.Lock()
		defer in.making.Unlock()
		tx.making = true
		err = tx.appendAll(s, tx.unknown)
		slices.SortStableFunc(tx.failures, func(a, b wire.Failure) int { return cmp.Compare(a.Series, b.Series) })
	}
	if err != nil {
		tx.rollback()
		return err
	}
	if !tx.touched { // nothing was accepted, or tried
		tx.rollback()
		tx.count()
		return nil
	}
	if err := tx.commit(); err != nil {
		in.writes.Add(1) // it may have left something
		in.failLog(err)
		return errs.E(logKind(err), "write of tenant %q: %w", in.id, err)
	}
	if err := in.logError(); err != nil {
		in.writes.Add(1)
		return err // the out-of-order samples may be lost in a crash
	}
	for _, f := range tx.fresh {
		in.refs.put(f.key, f.ref)
		in.refs.hint(f.hint, f.ref)
	}
	in.writes.Add(1)
	in.lastWrite.Store(tx.now.UnixMilli())
	tx.count()
	return nil
}

func (tx *transaction) appendAll(s wire.Shard, series []int32) error {
	for _, i := range series {
		if err := tx.appendSeries(&s.Batch.Series[i], int(i)); err != nil {
			return err
		}
	}
	return nil
}

// commit writes the logs and the head, unless the instance hangs.
func (tx *transaction) commit() (err error) {
	w := &tx.in.wedge
	if !w.enter() {
		return tx.in.logError()
	}
	logged := true // a panic comes after the WAL
	defer func() { w.leave(logged) }()
	err = tx.app.Commit()
	logged = err == nil
	return err
}

func (tx *transaction) rollback() {
	w := &tx.in.wedge
	if !w.enter() {
		return
	}
	defer w.leave(false)
	if err := tx.app.Rollback(); err != nil {
		tx.in.failLog(err) // the series it created are in memory and not in the WAL
	}
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

// appendSeries appends what s has, in time order. An error ends the transaction; what concerns s alone is a failure.
//
// Series that are not known by a reference are put off to the end of the transaction, which then holds instance.making
// until it is committed:
//
//   - The head hands its lists of references to readers, and puts a smaller one that comes after a larger one in its place
//     there, in the reader's hands, so that the reader misses a series. Made one after the other, references come in order.
//   - The WAL must name a series before it has samples of it. The transaction that makes a series writes the name, and
//     another one that found the series before that could be acknowledged, and lost in a crash.
func (tx *transaction) appendSeries(s *wire.Series, index int) error {
	w := seriesWriter{tx: tx, s: s, index: index, failed: -1}
	known, met := tx.in.refs.of(s)
	w.ref = known
	if met && s.KeepsLabels() {
		tx.keep(s, wire.LabelsOf(&tx.builder, s.Labels()))
	}
	if known == 0 && !tx.making && (len(s.Samples)+len(s.Histograms) > 0 || len(tx.unknown) > 0) {
		tx.unknown = append(tx.unknown, int32(index))
		return nil
	}
	if err := w.samples(); errors.Is(err, errPutOff) {
		if w.failed >= 0 {
			tx.failures = tx.failures[:w.failed]
		}
		tx.unknown = append(tx.unknown, int32(index))
		return nil
	} else if err != nil {
		return err
	}
	if len(s.Exemplars) > 0 {
		w.forgo(w.exemplars())
	}
	if w.ref != known {
		tx.fresh = append(tx.fresh, freshRef{s.Key, w.ref, s.Hint})
		tx.numUnknown++
	}
	return nil
}

// seriesWriter appends one series of a transaction.
type seriesWriter struct {
	tx     *transaction
	s      *wire.Series
	index  int
	ref    storage.SeriesRef
	labels labels.Labels // empty until needed
	failed int           // index in tx.failures, -1 none
	barred bool          // it is new, and a limit keeps it out
	last   point         // accepted last, when some is set
	some   bool
}

type point struct {
	t  int64
	v  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// same is bitwise for floats, as stale markers are NaNs.
func (p point) same(o point) bool {
	switch {
	case p.h != nil && o.h != nil:
		return p.h.Equals(o.h)
	case p.fh != nil && o.fh != nil:
		return p.fh.Equals(o.fh)
	}
	return p.h == o.h && p.fh == o.fh && math.Float64bits(p.v) == math.Float64bits(o.v)
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
	ref, err := storage.SeriesRef(0), error(nil)
	tx.touched = true
	if w.ref != 0 {
		ref, err = tx.app.Append(w.ref, w.labels, st, p.t, p.v, p.h, p.fh, storage.AOptions{})
	}
	if w.ref == 0 || err != nil && w.labels.IsEmpty() && errors.Is(err, promtsdb.ErrInvalidSample) {
		// It is new, or the head forgot it since its reference was cached: "empty labelset".
		if !tx.making {
			return false, errPutOff
		}
		ref, err = w.appendUnknown(st, p)
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
	w.ref, w.last, w.some = ref, p, true
	return true, nil
}

// errPutOff says that a series needs instance.making.
var errPutOff = errors.New("BUG: a series that was put off")

// appendUnknown appends to a series that the head may have to make.
func (w *seriesWriter) appendUnknown(st int64, p point) (storage.SeriesRef, error) {
	if w.labels.IsEmpty() {
		w.labels = wire.LabelsOf(&w.tx.builder, w.s.Labels())
	}
	ref, err := w.tx.app.Append(0, w.labels, st, p.t, p.v, p.h, p.fh, storage.AOptions{})
	if err == nil && w.s.KeepsLabels() {
		w.tx.keep(w.s, w.labels)
	}
	return ref, err
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
