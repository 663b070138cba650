package tsdb

import (
	"context"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// Append stores the shard in one transaction of its tenant's TSDB. It makes the TSDB when the tenant is new.
//
// If it returns no error, everything is in the WAL except what the failures name. Their kinds are Conflict for what
// the acceptance window or the TSDB refuses, and for a value that differs from the one that the head holds for its
// time; Invalid for histograms that make no sense; Limited for new series over the tenant's limits. To append the
// same again is success.
//
// After an error (Unavailable, Exhausted, Internal) nothing is known of any series: a log that could not be written
// may hold some samples, which show up after a restart.
//
// Exemplars and metadata never fail a series. Metrics count those that are not kept. A failure counts the exemplars
// of its series, and is of kind OK if all samples were stored.
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
		if p := recover(); p != nil { // not of the transaction, which recovers by itself
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
