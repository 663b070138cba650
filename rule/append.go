package rule

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// Refused is the error of a Commit that stored all samples except those of some series.
type Refused struct {
	// Series are those of which a sample was refused for good.
	Series []labels.Labels
	// Err is why the first of them was refused.
	Err error
}

// Error is the reason for the first series.
func (r *Refused) Error() string { return r.Err.Error() }

// Unwrap gives errors.Is the reason.
func (r *Refused) Unwrap() error { return r.Err }

// Push stores a batch and returns once a quorum has it, or it is certain that it will not. The failures are of single
// series of the batch, by their index. The error says that nothing is known of any of them.
type Push func(ctx context.Context, b *wire.Batch) ([]wire.Failure, error)

// Pushed is where the results of rules go that are written to a distributor. What Commit has acknowledged can be read.
func Pushed(push Push) Storage {
	return func(id tenant.ID) storage.AppendableV2 { return pushed{push, id} }
}

type pushed struct {
	push Push
	id   tenant.ID
}

// AppenderV2 implements storage.AppendableV2.
func (p pushed) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return &pushing{ctx: ctx, push: p.push, batch: wire.NewBatch(p.id)}
}

// pushing collects the samples of one commit, each of a series of its own.
type pushing struct {
	ctx    context.Context
	push   Push
	batch  *wire.Batch
	series []labels.Labels
}

// Append implements storage.AppenderV2.
func (p *pushing) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram,
	fh *histogram.FloatHistogram, _ storage.AOptions) (storage.SeriesRef, error) {
	s := p.batch.Add(ls)
	if h != nil || fh != nil {
		s.Histograms = []wire.Histogram{{T: t, ST: st, H: h, FH: fh}}
	} else {
		s.Samples = []wire.Sample{{T: t, ST: st, V: v}}
	}
	p.series = append(p.series, ls)
	return 0, nil
}

// Commit stores all that was appended. A push that may succeed later is repeated until the deadline of withDeadline: a
// sample that is stored twice is stored once.
func (p *pushing) Commit() error {
	defer p.batch.Release()
	if len(p.batch.Series) == 0 {
		return nil
	}
	until, bounded := p.ctx.Value(deadlineKey{}).(time.Time)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		failures, err := p.push(p.ctx, p.batch)
		again := err
		if err == nil {
			err, again = p.outcome(failures)
		}
		if again == nil || !errs.KindOf(again).Retryable() || !bounded || !time.Now().Add(wait).Before(until) {
			return err
		}
		select {
		case <-p.ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// outcome is the error of a commit with these failures. again is that of a series that may be stored when it is tried
// again; then nothing counts as stored.
func (p *pushing) outcome(failures []wire.Failure) (err, again error) {
	refused := &Refused{}
	for _, f := range failures {
		failed := errs.E(f.Kind, "%s", f.Reason)
		if f.Series < 0 || f.Series >= len(p.series) || f.Kind.Retryable() {
			return failed, failed
		}
		s := &p.batch.Series[f.Series]
		stale := len(s.Samples) == 1 && math.Float64bits(s.Samples[0].V) == value.StaleNaN
		if stale && f.Kind == errs.Conflict { // the series goes on: another rule or process writes it
			continue
		}
		if refused.Err == nil {
			refused.Err = failed
		}
		refused.Series = append(refused.Series, p.series[f.Series])
	}
	if refused.Err == nil {
		return nil, nil
	}
	return refused, nil
}

// Rollback implements storage.AppenderV2.
func (p *pushing) Rollback() error {
	p.batch.Release()
	return nil
}

type deadlineKey struct{}

// withDeadline says until when a commit may be repeated. It is no deadline of the context: a push under way is not
// broken off.
func withDeadline(ctx context.Context, until time.Time) context.Context {
	return context.WithValue(ctx, deadlineKey{}, until)
}

// Both are storages that get all that is appended; the first one decides what is refused.
func Both(first, second Storage) Storage {
	return func(id tenant.ID) storage.AppendableV2 { return both{first(id), second(id)} }
}

type both struct{ first, second storage.AppendableV2 }

// AppenderV2 implements storage.AppendableV2.
func (b both) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return &twice{b.first.AppenderV2(ctx), b.second.AppenderV2(ctx)}
}

type twice struct{ first, second storage.AppenderV2 }

// Append implements storage.AppenderV2.
func (t *twice) Append(_ storage.SeriesRef, ls labels.Labels, st, at int64, v float64, h *histogram.Histogram,
	fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	_, err := t.first.Append(0, ls, st, at, v, h, fh, opts)
	if err == nil {
		_, err = t.second.Append(0, ls, st, at, v, h, fh, opts)
	}
	return 0, err
}

// Commit implements storage.AppenderV2.
func (t *twice) Commit() error { return errors.Join(t.first.Commit(), t.second.Commit()) }

// Rollback implements storage.AppenderV2.
func (t *twice) Rollback() error { return errors.Join(t.first.Rollback(), t.second.Rollback()) }
