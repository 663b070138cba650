package tenant

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// LimitTable is the limits of all tenants at one moment. It never changes.
type LimitTable struct {
	// Defaults are the limits of a tenant that Tenants does not name.
	Defaults *Limits
	// Tenants are complete limits: what a file leaves out is from Defaults.
	Tenants map[ID]*Limits

	shards string // see ShardVersion
}

// NewLimitTable merges files over base. The defaults of a later file win over the defaults of an earlier one, and
// what a file says about a tenant wins over all defaults. The error names each tenant whose limits contradict each
// other.
func NewLimitTable(base Limits, files ...*LimitFile) (*LimitTable, error) {
	var faults []error
	defaults := base
	for _, f := range files {
		apply(&defaults, f.defaults)
	}
	if err := defaults.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("defaults: %w", err))
	}
	t := &LimitTable{Defaults: &defaults, Tenants: map[ID]*Limits{}}
	for _, f := range files {
		for id, settings := range f.tenants {
			l := t.Tenants[id]
			if l == nil {
				own := defaults
				l = &own
				t.Tenants[id] = l
			}
			apply(l, settings)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(t.Tenants)) {
		if err := t.Tenants[id].coherent(); err != nil {
			faults = append(faults, fmt.Errorf("tenant %s: %w", id, err))
		}
	}
	t.shards = t.shardVersion()
	return t, errors.Join(faults...)
}

// ShardVersion names the shard sizes of all tenants: two processes with equal sizes have equal names. "" = no tenant
// has a shard size.
func (t *LimitTable) ShardVersion() string { return t.shards }

func (t *LimitTable) shardVersion() string {
	common, sizes := t.Defaults.ShardSize, []byte(nil)
	for _, id := range slices.Sorted(maps.Keys(t.Tenants)) {
		if n := t.Tenants[id].ShardSize; n != common {
			sizes = fmt.Appendf(sizes, "%s\n%d\n", id, n)
		}
	}
	if common == 0 && sizes == nil {
		return ""
	}
	return fmt.Sprintf("%016x", xxhash.Sum64(fmt.Appendf(sizes, "%d", common)))
}

func apply(l *Limits, settings []setting) {
	v := reflect.ValueOf(l).Elem()
	for _, s := range settings {
		v.Field(s.field).Set(s.value)
	}
}

// Of is a tenant's limits.
func (t *LimitTable) Of(id ID) *Limits {
	if l := t.Tenants[id]; l != nil {
		return l
	}
	return t.Defaults
}

// Longest are the longest out-of-order window and retention that any tenant has.
func (t *LimitTable) Longest() (window, retention time.Duration) {
	window, retention = time.Duration(t.Defaults.OutOfOrderWindow), time.Duration(t.Defaults.Retention)
	for _, l := range t.Tenants {
		window, retention = max(window, time.Duration(l.OutOfOrderWindow)), max(retention, time.Duration(l.Retention))
	}
	return window, retention
}

// Keep replaces limits in t by equal ones of an older table, so that a caller that compares pointers sees no change.
// t must not be in use yet.
func (t *LimitTable) Keep(older *LimitTable) {
	if reflect.DeepEqual(t.Defaults, older.Defaults) {
		t.Defaults = older.Defaults
	}
	for id, l := range t.Tenants {
		if old := older.Of(id); reflect.DeepEqual(l, old) {
			t.Tenants[id] = old
		}
	}
}
