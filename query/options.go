package query

import (
	"errors"
	"fmt"
	"time"

	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// Options are the settings of a Querier.
type Options struct {
	// ReplicaLabels are the labels in which the series of HA pairs differ; dedup merges series that differ in nothing
	// else. Copies that ring replicas hold need no label here. Empty: no dedup unless a query asks for it.
	ReplicaLabels []string
	// TenantLabel is the label that names the tenant when a query is over several.
	TenantLabel string
	// MultiTenant allows queries over several tenants ("a|b").
	MultiTenant bool
	// Tenant finds the tenants of an HTTP request.
	Tenant tenant.Resolver
	// PartialResponse answers with a warning when something is missing, unless a query says otherwise; false fails it.
	PartialResponse bool
	// MaxSourceResolution is the coarsest resolution of downsampled data used when a query does not say. 0 = raw only.
	MaxSourceResolution time.Duration
	// AutoResolution takes a fifth of the step instead, for range queries that do not say.
	AutoResolution bool

	// MaxConcurrent queries run at a time, and as many lookups of series and labels; more of them wait. One tenant never
	// has all places.
	MaxConcurrent int
	// MaxTenants is how many tenants one query may name, MaxExpressionBytes how long its text may be; 0 = no bound on
	// tenants, and expr.DefaultMaxBytes.
	MaxTenants, MaxExpressionBytes int
	// Memory is what queries share with the rest of the process; nil = DefaultMemory of their own. A query that does not
	// fit it waits MemoryWait and then fails as Exhausted.
	Memory     *memory.Budget
	MemoryWait time.Duration
	// Timeout bounds one query.
	Timeout time.Duration
	// LookbackDelta is how old a sample may be to stand for an instant.
	LookbackDelta time.Duration
	// MaxSamples, MaxSeries and MaxBytes (of chunks) bound what one query holds or reads; 0 = no bound, but MaxSamples.
	MaxSamples, MaxSeries int
	MaxBytes              int64
	// SortBudget bounds in bytes what one selection may hold to sort series anew (several tenants, dedup); 0 = no bound.
	SortBudget int64

	// Patience is how long a source may be silent when all others have answered and the answer is complete without it; it
	// is more when the others took longer than that.
	Patience time.Duration
	// ResponseTimeout is how long a source may be silent when the answer needs it; then it has failed. 0 = no bound but
	// Timeout.
	ResponseTimeout time.Duration
	// InfoInterval is the time between two polls of an endpoint, InfoTimeout bounds one.
	InfoInterval, InfoTimeout time.Duration
	// Membership, when set, tells what the completeness of answers is judged by. nil: whatever does not answer is missing.
	// It is asked for one tenant at a time.
	Membership func(tenant.ID) Membership
	// Retention is how long receivers keep local data; what is older must be in blocks.
	Retention time.Duration
	// Window is how much older than its arrival a sample may be (W): a receiver may hold samples of that long before it
	// came to be.
	Window time.Duration
	// Future is how far ahead of the clock a sample may be when it arrives (F).
	Future time.Duration

	// Version, Revision and Flags are shown by the status endpoints.
	Version, Revision string
	Flags             map[string]string
	// Reloaded tells the same endpoints whether the process's files were valid when they were last read, and when they
	// last were; nil = there are none.
	Reloaded func() (ok bool, at time.Time)
	// Now is the clock; nil = time.Now.
	Now func() time.Time
}

// Membership is who has been holding fresh data.
type Membership struct {
	// ReplicationFactor is the RF of the ring; 0 = not known.
	ReplicationFactor int
	// History are all receiver incarnations of the last retention period, present ones included.
	History []ring.Incarnation
	// Shard is where the tenant's samples are.
	Shard Shard
	// Bucket is that of the receivers, "" for none.
	Bucket string
}

// DefaultMemory is how many bytes queries may hold where nobody says, in bytes.
const DefaultMemory = 4 << 30

// DefaultOptions are the settings of a querier on its own.
func DefaultOptions() Options {
	return Options{
		TenantLabel:     "tenant_id",
		MultiTenant:     true,
		PartialResponse: true,
		MaxConcurrent:   20,
		MaxTenants:      100,
		MemoryWait:      30 * time.Second,
		Timeout:         2 * time.Minute,
		LookbackDelta:   5 * time.Minute,
		MaxSamples:      50_000_000,
		SortBudget:      2 * series.SortBudget, // several tenants, or HA pairs, in one selection
		Patience:        500 * time.Millisecond,
		ResponseTimeout: 15 * time.Second,
		InfoInterval:    5 * time.Second,
		InfoTimeout:     3 * time.Second,
		Retention:       15 * 24 * time.Hour,
		Window:          3 * time.Hour,
		Future:          10 * time.Minute,
	}
}

// Validate reports all that is wrong with o.
func (o Options) Validate() error {
	var errs []error
	positive := func(name string, ok bool, v any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s %v: must be positive", name, v))
		}
	}
	positive("max concurrent queries", o.MaxConcurrent > 0, o.MaxConcurrent)
	positive("query timeout", o.Timeout > 0, o.Timeout)
	positive("lookback delta", o.LookbackDelta > 0, o.LookbackDelta)
	positive("max samples", o.MaxSamples > 0, o.MaxSamples)
	positive("patience", o.Patience >= time.Millisecond, o.Patience)
	positive("info interval", o.InfoInterval > 0, o.InfoInterval)
	positive("info timeout", o.InfoTimeout > 0, o.InfoTimeout)
	positive("retention", o.Retention > 0, o.Retention)
	if o.MaxTenants < 0 || o.MaxExpressionBytes < 0 || o.MemoryWait < 0 {
		errs = append(errs, errors.New("limits on tenants and expressions and the wait for memory must not be negative"))
	}
	if o.MaxSeries < 0 || o.MaxBytes < 0 || o.SortBudget < 0 || o.MaxSourceResolution < 0 || o.Window < 0 ||
		o.Future < 0 || o.ResponseTimeout < 0 {
		errs = append(errs, errors.New("limits, resolution, windows and response timeout must not be negative"))
	}
	if o.TenantLabel == "" {
		errs = append(errs, errors.New("tenant label: must not be empty"))
	}
	for _, l := range o.ReplicaLabels {
		if l == "" || l == o.TenantLabel {
			errs = append(errs, fmt.Errorf("replica label %q: must not be empty or the tenant label", l))
		}
	}
	return errors.Join(errs...)
}
