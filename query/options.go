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
	// ReplicaLabels are the labels in which the series of HA pairs differ. Dedup merges series that differ in no other
	// label. Copies on replicas of the ring are always merged and need no label here. Empty = no dedup unless a query asks
	// for it.
	ReplicaLabels []string
	// TenantLabel is the label that names the tenant when a query is over several.
	TenantLabel string
	// MultiTenant allows queries over several tenants ("a|b").
	MultiTenant bool
	// Tenant finds the tenants of an HTTP request.
	Tenant tenant.Resolver
	// PartialResponse: when something is missing, the answer has a warning; false = the query fails. A query may say
	// otherwise.
	PartialResponse bool
	// MaxSourceResolution is the coarsest resolution of downsampled data that a query reads if it names none; 0 = raw data
	// only.
	MaxSourceResolution time.Duration
	// AutoResolution: a range query that names no resolution reads up to a fifth of its step instead.
	AutoResolution bool

	// MaxConcurrent is how many queries run at a time, and also how many lookups of series and labels. More of them wait.
	// One tenant never gets all of it.
	MaxConcurrent int
	// MaxTenants is how many tenants one query may name; 0 = no bound. MaxExpressionBytes is how long its text may be;
	// 0 = expr.DefaultMaxBytes.
	MaxTenants, MaxExpressionBytes int
	// Memory is the budget that queries share with the rest of the process; nil = they have DefaultMemory of their own. A
	// query that does not fit waits up to MemoryWait, and then fails with kind Exhausted.
	Memory     *memory.Budget
	MemoryWait time.Duration
	// Timeout bounds one query.
	Timeout time.Duration
	// LookbackDelta is how old a sample may be to count as the value at an instant.
	LookbackDelta time.Duration
	// MaxSamples bounds the samples that one query holds, and must be positive. MaxSeries and MaxBytes (of chunks) bound
	// what it reads; 0 = no bound.
	MaxSamples, MaxSeries int
	MaxBytes              int64
	// SortBudget bounds the bytes that one selection may hold to sort its series again, which several tenants and dedup
	// need; 0 = no bound.
	SortBudget int64

	// Patience is how long a source may be silent when all others have answered and the answer is complete without it. If
	// the others took long, it may be silent for half of their time if that is more.
	Patience time.Duration
	// ResponseTimeout is how long a source may be silent when the answer needs it; after that it has failed. 0 = only
	// Timeout bounds it.
	ResponseTimeout time.Duration
	// InfoInterval is the time between two polls of an endpoint, InfoTimeout bounds one.
	InfoInterval, InfoTimeout time.Duration
	// Membership returns what the querier knows of the receivers, for one tenant. The completeness of answers is judged by
	// it; nil = all that does not answer counts as missing.
	Membership func(tenant.ID) Membership
	// Retention is how long receivers keep local data. Older samples must be in blocks.
	Retention time.Duration
	// Window is how much older than its arrival a sample may be (W). So a receiver may hold samples from before it
	// started, by up to that time.
	Window time.Duration
	// Future is how far ahead of the clock a sample may be when it arrives (F).
	Future time.Duration

	// Rules returns who has rules at the moment; nil = nobody. It is called for each request, and must be cheap.
	Rules func() []RulePeer

	// Features are shown as part of the build information (httpx.Status); nil = none.
	Features map[string]string
	// Version, Revision and Flags are shown by the status endpoints.
	Version, Revision string
	Flags             map[string]string
	// Reloaded says, for the status endpoints, whether the process's files were valid when they were last read, and when
	// they last were valid; nil = there are no files.
	Reloaded func() (ok bool, at time.Time)
	// Now is the clock; nil = time.Now.
	Now func() time.Time
}

// Membership is what is known of the receivers that hold fresh data, or held it.
type Membership struct {
	// ReplicationFactor is the RF of the ring; 0 = not known.
	ReplicationFactor int
	// History are all receiver incarnations of the last retention period, present ones included.
	History []ring.Incarnation
	// Shard says on which receivers the tenant's samples are.
	Shard Shard
	// Bucket is the bucket to which receivers ship blocks, "" for none.
	Bucket string
}

// DefaultMemory is how many bytes queries may hold if Options.Memory is nil.
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
