package tsdb

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// seriesWriter appends one series of a transaction.
type seriesWriter struct {
	tx     *transaction
	s      *wire.Series
	index  int
	ref    storage.SeriesRef
	known  storage.SeriesRef // the reference in the cache, 0 = none
	labels labels.Labels     // empty until needed
	failed int               // index in tx.failures, -1 = none
	barred bool              // the series is new, and a limit keeps it out
	last   sample            // the newest that was accepted, if some is set
	some   bool
	looked bool // tx.head has been opened for this series
}

// find looks up the reference of the series, and reports whether the transaction has appended to that series already.
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

// write appends the samples of the series in time order. An error ends the transaction; what concerns only this
// series becomes a failure.
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

// samples appends floats and histograms by time, so that nothing becomes out of order because of the form it came in.
func (w *seriesWriter) samples() error {
	s := w.s
	switch {
	case len(s.Histograms) == 0:
		return w.floats(w.tx.orderedFloats(s.Samples))
	case len(s.Samples) == 0:
		return w.histograms(w.tx.orderedHistograms(s.Histograms))
	}
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

// orderedFloats is in, sorted by time. It is valid until the next call.
func (tx *transaction) orderedFloats(in []wire.Sample) []wire.Sample {
	byTime := func(a, b wire.Sample) int { return cmp.Compare(a.T, b.T) }
	if slices.IsSortedFunc(in, byTime) {
		return in
	}
	tx.floats = append(tx.floats[:0], in...)
	slices.SortStableFunc(tx.floats, byTime)
	return tx.floats
}

// orderedHistograms is in, sorted by time. It is valid until the next call.
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
		switch ok, err := w.append(p.ST, sample{t: p.T, v: p.V}); {
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
		switch ok, err := w.append(p.ST, sample{t: p.T, h: p.H, fh: p.FH}); {
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

// append adds one sample. False means that the sample was refused, and tx.failures[w.failed] says why.
func (w *seriesWriter) append(st int64, p sample) (bool, error) {
	tx := w.tx
	if w.barred {
		return false, nil
	}
	if p.t < tx.lo || p.t > tx.hi {
		w.fail(errs.Conflict, outsideWindow(p.t, tx))
		return false, nil
	}
	if w.some && p.t == w.last.t {
		// The TSDB compares with what is committed only: it would drop the second value without an error.
		if !p.same(w.last) {
			w.fail(errs.Conflict, fmt.Errorf("two different values at %d in one request: %w",
				p.t, storage.ErrDuplicateSampleForTimestamp))
			return false, nil
		}
		return true, nil
	}
	tx.touched = true
	w.appendZero(st, p)
	err := w.appendSample(p, storage.AOptions{RejectOutOfOrder: true})
	if err != nil {
		err = w.appendLate(p, err)
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
	tx.oldest = min(tx.oldest, p.t)
	return true, nil
}

// appendZero adds a zero at st, the start timestamp of p, if the tenant wants zeros and st is newer than the series'
// samples. The sender did not send it, so a refused zero is no failure.
func (w *seriesWriter) appendZero(st int64, p sample) {
	if !w.tx.rules.zeros || st < w.tx.lo || st >= p.t || w.some && st <= w.last.t || p.stale() {
		return
	}
	zero := sample{t: st}
	// With these fields alike, p can go into the chunk of the zero.
	switch {
	case p.h != nil:
		zero.h = &histogram.Histogram{
			CounterResetHint: histogram.CounterReset,
			Schema:           p.h.Schema, ZeroThreshold: p.h.ZeroThreshold, CustomValues: p.h.CustomValues,
		}
	case p.fh != nil:
		zero.fh = &histogram.FloatHistogram{
			CounterResetHint: histogram.CounterReset,
			Schema:           p.fh.Schema, ZeroThreshold: p.fh.ZeroThreshold, CustomValues: p.fh.CustomValues,
		}
	}
	if w.appendSample(zero, storage.AOptions{RejectOutOfOrder: true}) == nil {
		w.last, w.some = zero, true
		w.tx.oldest = min(w.tx.oldest, st)
	}
}

// appendLate is for a sample that the TSDB refused, with the error refused, because it is not newer than the series'
// samples. It compares the sample with what the head holds for its time, and appends it out of order if the head
// holds nothing.
func (w *seriesWriter) appendLate(p sample, refused error) error {
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
		return w.appendSample(p, storage.AOptions{})
	}
	return refused
}

// appendSample gives p to the TSDB by the series' reference, and with its labels where the TSDB does not know the
// reference.
func (w *seriesWriter) appendSample(p sample, o storage.AOptions) error {
	if w.ref != 0 {
		err := w.call(w.ref, p, o)
		if err == nil || !w.labels.IsEmpty() || !errors.Is(err, promtsdb.ErrInvalidSample) {
			return err
		}
		w.ref = 0 // "empty labelset": the head has dropped the series since its reference was cached
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

// call is one call of the TSDB, and sets w.ref when it succeeds. The start timestamp is 0, as chunks have no field
// for it.
func (w *seriesWriter) call(ref storage.SeriesRef, p sample, o storage.AOptions) error {
	w.tx.inside = true
	ref, err := w.tx.app.Append(ref, w.labels, 0, p.t, p.v, p.h, p.fh, o)
	w.tx.inside = false
	if err == nil {
		w.ref = ref
	}
	return err
}

// keep lets the stream that s came by use the labels that the head holds, which equal ls, so that they are in memory
// once.
func (tx *transaction) keep(s *wire.Series, ls labels.Labels) {
	if app, ok := tx.app.(storage.GetRef); ok {
		if _, kept := app.GetRef(ls, ls.Hash()); !kept.IsEmpty() {
			s.KeptBy(kept)
		}
	}
}
