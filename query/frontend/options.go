package frontend

import (
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Options of a Frontend.
type Options struct {
	// Tenant finds the tenants of a request. It must be the resolver of who evaluates.
	Tenant tenant.Resolver
	// MaxExpressionBytes is how long an expression may be; 0 = expr.DefaultMaxBytes.
	MaxExpressionBytes int
	// SplitInterval is where range queries are cut: at its multiples. 0 = they are not cut, and nothing is kept.
	SplitInterval time.Duration
	// MaxLength is the longest range of a query; 0 = any.
	MaxLength time.Duration
	// Parallel is how many pieces of one request are evaluated at a time.
	Parallel int
	// Retries is how often a piece is tried again whose evaluation failed with a status of 500 or more.
	Retries int
	// Cache keeps answers; nil = none are kept. Changes says when they do not hold any more.
	Cache   Cache
	Changes series.ArrivalSource
	// Memory is for answers that are put together.
	Memory *memory.Budget
	// Now is the time; nil = time.Now.
	Now func() time.Time
}

// DefaultOptions are Thanos's, where it has the option.
func DefaultOptions() Options {
	return Options{SplitInterval: 24 * time.Hour, Parallel: 14, Retries: 5}
}

func (o *Options) validate() error {
	switch {
	case o.Parallel < 1:
		return errs.E(errs.Invalid, "query frontend: %d pieces at a time: must be at least 1", o.Parallel)
	case o.SplitInterval < 0 || o.Retries < 0 || o.MaxLength < 0:
		return errs.E(errs.Invalid, "query frontend: intervals and numbers of retries must not be negative")
	case o.Cache != nil && o.Changes == nil:
		return errs.E(errs.Invalid, "query frontend: a cache needs to know what changes")
	case o.Memory == nil:
		return errs.E(errs.Invalid, "query frontend: it needs a budget of memory")
	}
	return nil
}
