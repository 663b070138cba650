package tsdb

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// classify returns the kind of an error of the TSDB: Internal unless the error is about one sample.
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

// logKind returns the kind of an error of a log.
func logKind(err error) errs.Kind {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errs.Exhausted
	}
	return errs.Internal
}

func outsideWindow(t int64, tx *transaction) error {
	at := time.UnixMilli(t).UTC().Format(time.RFC3339Nano)
	if t < tx.lo {
		return fmt.Errorf("sample at %s (%d) is older than the accepted window of %s", at, t, tx.rules.window)
	}
	return fmt.Errorf("sample at %s (%d) is more than %s in the future", at, t, tx.rules.future)
}

// fail makes sure that the series has a failure. The first reason stands for all of its samples.
func (w *seriesWriter) fail(kind errs.Kind, reason error) {
	if w.failed < 0 {
		w.failed = len(w.tx.failures)
		reason := fmt.Sprintf("%s: %v", w.name(), reason)
		w.tx.failures = append(w.tx.failures, wire.Failure{Series: w.index, Kind: kind, Reason: reason})
	}
}

func (w *seriesWriter) name() string { return wire.LabelsOf(&w.tx.builder, w.s.Labels()).String() }

// countRefusal counts a new series that a limit kept out.
func (tx *transaction) countRefusal(err error) {
	var r *refusal
	if errors.As(err, &r) {
		tx.m.limited.WithLabelValues(tx.m.tenants.label(tx.in.id), r.limit).Inc()
	}
}
