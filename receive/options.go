package receive

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
)

// Options configure a Receiver. Start from DefaultOptions.
type Options struct {
	// Labels are the external labels of this receiver's streams (--label), without the tenant's. When ReplicaLabel is
	// not among them it is added with the instance id as its value: no two members may have the same labels.
	Labels labels.Labels
	// TenantLabel is the external label that names the tenant.
	TenantLabel string
	// ReplicaLabel is the external label that names the replica of the ring.
	ReplicaLabel string
	// Source is what the blocks say that made them (meta.json).
	Source string
	// Instance is this process's instance id; Since is when the data of this incarnation began.
	Instance string
	Since    time.Time
	// DeletionInterval is the time between looks for tenants that operators asked to delete.
	DeletionInterval time.Duration
	// ShipInterval is the time between looks for blocks to ship.
	ShipInterval time.Duration
	// ShipTimeout bounds the upload of one block.
	ShipTimeout time.Duration
	// ShipConcurrency is the number of tenants shipped at a time.
	ShipConcurrency int
	// HashFiles puts the SHA-256 of a block's files into its meta.json in the bucket.
	HashFiles bool
	// FileConcurrency is the number of files of one block that are sent at a time; 0 = 1.
	FileConcurrency int
	// Retry is the wait before a block that could not be shipped is tried again; it doubles up to 32 times as much.
	Retry time.Duration
	// Now is the clock.
	Now func() time.Time
}

// DefaultOptions are the options of a receiver; Instance is still to be set.
func DefaultOptions() Options {
	return Options{
		TenantLabel:      "tenant_id",
		ReplicaLabel:     "receive_replica",
		DeletionInterval: 30 * time.Second,
		ShipInterval:     30 * time.Second,
		ShipTimeout:      15 * time.Minute,
		ShipConcurrency:  4,
		Retry:            10 * time.Second,
		Now:              time.Now,
		Source:           block.SourceReceive,
	}
}

// Validate reports every fault of o.
func (o Options) Validate() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(o.TenantLabel == "", "tenant label: must be set")
	fault(o.ReplicaLabel == "", "replica label: must be set")
	fault(o.TenantLabel == o.ReplicaLabel, "tenant label and replica label: must differ")
	fault(o.Labels.Has(o.TenantLabel), "label %q: names the tenant and cannot be given", o.TenantLabel)
	fault(!o.Labels.Has(o.ReplicaLabel) && o.Instance == "", "instance id: must be set when there is no label %s",
		o.ReplicaLabel)
	fault(o.DeletionInterval <= 0, "deletion interval %s: must be positive", o.DeletionInterval)
	fault(o.Now == nil, "clock: must be set")
	fault(o.ShipInterval <= 0, "ship interval %s: must be positive", o.ShipInterval)
	fault(o.ShipTimeout <= 0, "ship timeout %s: must be positive", o.ShipTimeout)
	fault(o.ShipConcurrency < 1, "ship concurrency %d: must be at least 1", o.ShipConcurrency)
	fault(o.FileConcurrency < 0, "file concurrency %d: must not be negative", o.FileConcurrency)
	fault(o.Retry <= 0, "retry %s: must be positive", o.Retry)
	return errors.Join(faults...)
}

// DrainOptions configure a Drainer. Start from DefaultDrainOptions.
type DrainOptions struct {
	// Timeout bounds a drain.
	Timeout time.Duration
	// Quiet is how long no write may have come before it is assumed that the others have moved this member's series.
	// Patience bounds the wait for that.
	Quiet, Patience time.Duration
	// Poll is the time between looks at what a drain waits for, and between attempts at what failed.
	Poll time.Duration
	// Linger is how long the process still answers after it left, since queriers learn of its leaving by gossip.
	Linger time.Duration
	// Refuse keeps POST from beginning a drain.
	Refuse bool
	// Left, if set, is called once this member has left and need not run any longer. It must not wait for Close.
	Left func()
}

// DefaultDrainOptions suit heartbeats every two seconds.
func DefaultDrainOptions() DrainOptions {
	return DrainOptions{
		Timeout: 20 * time.Minute, Quiet: 6 * time.Second, Patience: 30 * time.Second, Poll: time.Second,
		Linger: 5 * time.Second,
	}
}

// Validate reports every fault of o.
func (o DrainOptions) Validate() error {
	var faults []error
	for name, d := range map[string]time.Duration{"timeout": o.Timeout, "quiet": o.Quiet, "patience": o.Patience,
		"poll": o.Poll} {
		if d <= 0 {
			faults = append(faults, fmt.Errorf("drain %s %s: must be positive", name, d))
		}
	}
	return errors.Join(faults...)
}
