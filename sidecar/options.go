package sidecar

import (
	"errors"
	"fmt"
	"time"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/ship"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Options configure a Sidecar. DefaultOptions returns values that suit most.
type Options struct {
	// Tenant is whose the series and blocks of this Prometheus are.
	Tenant tenant.ID
	// MarkTenant adds the label TenantLabel with the tenant to the external labels that blocks get and Thanos callers see.
	// Without it both look as Thanos's sidecar would have them, and belong to the default tenant for all who read them.
	MarkTenant bool
	// TenantLabel and ReplicaLabel are the names that no external label of Prometheus may have.
	TenantLabel, ReplicaLabel string
	// MinTime bounds what is served: samples before it, in Unix ms, are left out. nil = all are served.
	MinTime func(now time.Time) int64
	// Interval is how often Prometheus is asked for its settings, Timeout how long one such question may take.
	Interval, Timeout time.Duration
	// ReadyTimeout is how long to wait for Prometheus after the start. Then the process ends, if it has blocks to ship;
	// 0 = it waits for ever.
	ReadyTimeout time.Duration
	// MaxReads bounds the remote reads at a time. Prometheus has a bound of its own, 10 by default, and makes more wait.
	MaxReads int
	// MaxBytes bounds what one request may read of Prometheus, in bytes; beyond it the request fails as Limited. 0 = no
	// bound.
	MaxBytes int64
	// SortBudget bounds what one request holds in memory in bytes, where it cannot send series as they come.
	SortBudget int64

	// Ship says which blocks are shipped and how. It has no effect without a bucket.
	Ship ShipOptions
}

// ShipOptions say which blocks are shipped and how.
type ShipOptions struct {
	// Dir is Prometheus's data directory.
	Dir string
	// Record is the name of the file in Dir that lists the blocks in the bucket. It is that of Prometheus's
	// --storage.tsdb.delay-compact-file.path, where that is set.
	Record string
	// Compacted ships blocks that Prometheus compacted, too, unless they overlap with another block of the same labels in
	// the bucket.
	Compacted bool
	// IgnoreUnequal ships although Prometheus compacts blocks that may not be in the bucket yet.
	IgnoreUnequal bool
	// Interval is how often the directory is looked at, besides when it changes.
	Interval time.Duration
	// Timeout bounds the upload of one block.
	Timeout time.Duration
	// Upload says how the files of a block are sent.
	Upload block.UploadOptions
}

// DefaultOptions returns the defaults of Thanos's sidecar, where it has the setting.
func DefaultOptions() Options {
	return Options{
		Tenant: tenant.Default, TenantLabel: "tenant_id", ReplicaLabel: "receive_replica",
		Interval: 30 * time.Second, Timeout: 30 * time.Second, ReadyTimeout: 10 * time.Minute,
		MaxReads: 10, SortBudget: series.SortBudget,
		Ship: ShipOptions{Dir: "./data", Record: ship.RecordName, Interval: 30 * time.Second, Timeout: time.Hour},
	}
}

// Validate reports all that is wrong with o.
func (o Options) Validate() error {
	var faults []error
	for name, d := range map[string]time.Duration{
		"interval of questions to Prometheus": o.Interval, "timeout of questions to Prometheus": o.Timeout,
		"interval of shipping": o.Ship.Interval, "timeout of an upload": o.Ship.Timeout,
	} {
		if d <= 0 {
			faults = append(faults, fmt.Errorf("%s %s: must be positive", name, d))
		}
	}
	if o.ReadyTimeout < 0 {
		faults = append(faults, fmt.Errorf("ready timeout %s: must not be negative", o.ReadyTimeout))
	}
	if o.MaxReads < 1 {
		faults = append(faults, fmt.Errorf("reads at a time %d: must be at least 1", o.MaxReads))
	}
	if o.MaxBytes < 0 || o.SortBudget < 0 {
		faults = append(faults, errors.New("bounds in bytes must not be negative"))
	}
	if o.TenantLabel == "" || o.ReplicaLabel == "" {
		faults = append(faults, errors.New("the names of the labels of tenant and replica must be set"))
	}
	return errors.Join(faults...)
}
