package rule

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// Querier evaluates PromQL. Its method may be called by several goroutines.
type Querier interface {
	// Query evaluates q. A scalar becomes a sample without labels; a result that is neither a vector nor a scalar is an
	// error. The vector is the caller's. Errors of a kind that is Retryable, except Internal, may go away by themselves.
	Query(ctx context.Context, q Query) (Answer, error)
}

// Query is an expression to evaluate at one time.
type Query struct {
	// Tenants are those whose series are read; at least one.
	Tenants []tenant.ID
	Expr    string
	At      time.Time
	// Lookback is how old a sample may be to count; 0 = the default of whoever answers.
	Lookback time.Duration
}

// Answer is the result of a query.
type Answer struct {
	Vector promql.Vector
	// Missing says what may be missing in the vector, one line for each cause; none when it is complete.
	Missing []string
}

// errIncomplete is the error of a rule whose answer may lack something and that does not accept it.
type errIncomplete struct{ missing []string }

// Error names what is missing.
func (e errIncomplete) Error() string {
	return "the answer may be incomplete, and partial_response_strategy is abort: " + strings.Join(e.missing, "; ")
}

// asker asks for the rules of one group in one slot.
type asker struct {
	from    Querier
	tenants []tenant.ID
	// lookback is how old a sample may be; 0 = the default.
	lookback time.Duration
	// strategy is what happens with an answer that may be incomplete.
	strategy definition.Strategy
	// until is when it is too late to try again. wait is the time between two attempts.
	until time.Time
	wait  time.Duration
	// incomplete is called for each answer that was used although it may be incomplete, retried before each repetition.
	incomplete func(missing []string)
	retried    func()
}

// query is a rules.QueryFunc. An answer that may be incomplete, where that is not accepted, and a failure that may go
// away, are tried again until it is too late: one receiver that restarts must not cost a sample.
func (a *asker) query(ctx context.Context, text string, at time.Time) (promql.Vector, error) {
	for {
		answer, err := a.from.Query(ctx, Query{Tenants: a.tenants, Expr: text, At: at, Lookback: a.lookback})
		if err == nil && len(answer.Missing) > 0 {
			if a.strategy == definition.Warn {
				a.incomplete(answer.Missing)
				return answer.Vector, nil
			}
			err = errIncomplete{answer.Missing}
		}
		if err == nil {
			return answer.Vector, nil
		}
		if !mayPass(err) || !time.Now().Add(a.wait).Before(a.until) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(a.wait):
			a.retried()
		}
	}
}

// mayPass reports whether the same query may succeed a moment later.
func mayPass(err error) bool {
	if errors.As(err, new(errIncomplete)) {
		return true
	}
	switch errs.KindOf(err) {
	case errs.Unavailable, errs.Exhausted:
		return !errors.Is(err, context.Canceled)
	}
	return false
}

// given is a rules.QueryFunc that answers v to every query.
func given(v promql.Vector) rules.QueryFunc {
	return func(context.Context, string, time.Time) (promql.Vector, error) { return v, nil }
}
