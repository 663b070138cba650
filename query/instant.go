package query

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Instant is a query at one time of a part in this process, such as a ruler.
type Instant struct {
	// Tenants are those whose series are read; at least one.
	Tenants []tenant.ID
	Expr    string
	At      time.Time
	// Lookback is how old a sample may be to count; 0 = Options.LookbackDelta.
	Lookback time.Duration
}

// Instant evaluates a query. A scalar becomes a sample without labels; a matrix or a string is an error of kind
// Invalid. missing says what may be missing in the vector, which the caller owns. Errors of sources have the kinds that
// queries over HTTP have.
func (q *Querier) Instant(ctx context.Context, at Instant) (v promql.Vector, missing []string, err error) {
	p := q.defaultParams()
	p.partial = true // the caller decides
	ctx = withParams(tenant.WithSet(ctx, at.Tenants), p)
	query, err := q.engine.NewInstantQuery(ctx, q, promql.NewPrometheusQueryOpts(false, at.Lookback, nil), at.Expr, at.At)
	if err != nil {
		return nil, nil, errs.Wrap(errs.Invalid, err)
	}
	defer query.Close()
	res := query.Exec(ctx)
	if res.Err != nil {
		return nil, nil, instantError(p, res.Err)
	}
	for _, w := range res.Warnings.AsErrors() {
		if !errors.Is(w, annotations.PromQLWarning) && !errors.Is(w, annotations.PromQLInfo) {
			missing = append(missing, w.Error())
		}
	}
	switch value := res.Value.(type) {
	case promql.Vector:
		return value, missing, nil
	case promql.Scalar:
		return promql.Vector{{T: value.T, F: value.V, Metric: labels.EmptyLabels()}}, missing, nil
	}
	return nil, nil, errs.E(errs.Invalid, "rule result is not a vector or scalar")
}

// instantError gives an error of the engine the kind that its cause has. A query that took too long may succeed later.
func instantError(p *params, err error) error {
	if failure := p.failure.Load(); failure != nil && errs.KindOf(*failure) != errs.Internal {
		return errs.Wrap(errs.KindOf(*failure), err)
	}
	if errors.As(err, new(promql.ErrQueryTimeout)) || errors.As(err, new(promql.ErrQueryCanceled)) {
		return errs.Wrap(errs.Unavailable, err)
	}
	if errs.KindOf(err) != errs.Internal {
		return err
	}
	return errs.Wrap(errs.Invalid, err)
}
