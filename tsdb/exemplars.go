package tsdb

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// hasExemplars reports whether the tenant of directory dir has ever had exemplars. A ring for them takes memory, so
// it is made when the first exemplar comes. From then on it is made before the logs are replayed, as these may hold
// exemplars.
func hasExemplars(dir string) bool {
	return tenantdir.Exists(filepath.Join(dir, tenantdir.ExemplarsName))
}

// keepExemplars makes the ring for exemplars if there is none.
func (in *instance) keepExemplars() error {
	if in.exemplars.Load() {
		return nil
	}
	in.adopting.Lock()
	defer in.adopting.Unlock()
	if in.exemplars.Load() {
		return nil
	}
	if err := os.WriteFile(filepath.Join(in.db.Dir(), tenantdir.ExemplarsName), nil, 0o666); err != nil {
		return err
	}
	in.exemplars.Store(true)
	return in.configure(in.rules.Load())
}

// countRefusedExemplars adds the number of exemplars that were not kept to the series' failure. That alone is a
// failure of kind OK.
func (w *seriesWriter) countRefusedExemplars(exemplars int) {
	if exemplars == 0 {
		return
	}
	if w.failed < 0 {
		w.failed = len(w.tx.failures)
		w.tx.failures = append(w.tx.failures, wire.Failure{Series: w.index, Kind: errs.OK})
	}
	w.tx.failures[w.failed].Exemplars = exemplars
}

// exemplars appends the series' exemplars and returns how many are not kept. The TSDB keeps none for a series that it
// does not hold.
func (w *seriesWriter) exemplars() (refused int) {
	tx := w.tx
	reject := func(reason string, n int) {
		tx.m.exemplars.WithLabelValues(reason).Add(float64(n))
		refused += n
	}
	app, ok := tx.app.(storage.ExemplarAppenderV2)
	if !ok || tx.rules.exemplars == 0 {
		reject("disabled", len(w.s.Exemplars))
		return refused
	}
	if err := tx.in.keepExemplars(); err != nil {
		reject("no_room", len(w.s.Exemplars))
		return refused
	}
	tx.exemplars = tx.exemplars[:0]
	for i := range w.s.Exemplars {
		e := &w.s.Exemplars[i]
		if e.T < tx.lo || e.T > tx.hi {
			reject("outside_window", 1)
			continue
		}
		ls := wire.LabelsOf(&tx.builder, e.Labels)
		tx.exemplars = append(tx.exemplars, exemplar.Exemplar{Labels: ls, Value: e.V, Ts: e.T, HasTs: true})
	}
	slices.SortStableFunc(tx.exemplars, func(a, b exemplar.Exemplar) int { // the TSDB takes them in this order
		return cmp.Or(cmp.Compare(a.Ts, b.Ts), cmp.Compare(a.Value, b.Value))
	})
	tx.touched = true // also where the request has no sample
	err := error(storage.ErrNotFound)
	if w.ref != 0 {
		err = tx.callExemplars(app, w.ref, labels.EmptyLabels())
	}
	if errors.Is(err, storage.ErrNotFound) { // the head may have the series under another reference
		err = tx.callExemplars(app, 0, wire.LabelsOf(&tx.builder, w.s.Labels()))
	}
	var partial *storage.AppendPartialError
	switch {
	case err == nil:
	case errors.As(err, &partial):
		for _, e := range partial.ExemplarErrors {
			reject(exemplarReason(e.Err), 1)
		}
	default:
		reject(exemplarReason(err), len(tx.exemplars))
	}
	return refused
}

// callExemplars is one call of the TSDB.
func (tx *transaction) callExemplars(app storage.ExemplarAppenderV2, ref storage.SeriesRef, ls labels.Labels) error {
	tx.inside = true
	_, err := app.AppendExemplars(ref, ls, tx.exemplars)
	tx.inside = false
	return err
}

// exemplarReason is the reason in the metric of refused exemplars.
func exemplarReason(err error) string {
	switch {
	case errors.Is(err, storage.ErrOutOfOrderExemplar):
		return "out_of_order"
	case errors.Is(err, storage.ErrExemplarLabelLength):
		return "labels_too_long"
	case errors.Is(err, storage.ErrNotFound):
		return "no_series"
	}
	return "invalid"
}
