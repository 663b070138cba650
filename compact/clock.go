package compact

import (
	"context"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

const (
	// folder has the compactor's own objects (docs/format/compactor.md).
	folder = "hearth/compact/"
	// maxSkew is how far the bucket's clock and that of this machine may be apart.
	maxSkew = 5 * time.Minute
	// clockAge is how long a comparison of the clocks counts.
	clockAge = time.Minute
)

// heartbeat is the object that each compactor writes to compare its clock with that of the bucket, and to know after a
// restart when it last worked.
type heartbeat struct {
	Version  int    `json:"version"`
	Instance string `json:"instance"`
	// Written is the time by the clock of the writer, in Unix ms.
	Written int64 `json:"written"`
}

// clock compares the bucket's clock with that of this machine.
type clock struct {
	checked time.Time // when they were last compared
	fault   error     // what came of it
	before  time.Time // when this instance last wrote before this process, by the bucket's clock; zero = never
}

// heartbeatName is the heartbeat object of this process.
func (c *Compactor) heartbeatName() string { return folder + "clock/" + c.opts.Instance + ".json" }

// lastLife reads when this instance last wrote a heartbeat, before this process writes its first one.
func (c *Compactor) lastLife(ctx context.Context) {
	if attrs, err := c.quietly.Attributes(ctx, c.heartbeatName()); err == nil {
		c.clock.before = attrs.LastModified
	}
}

// checkClock is nil if both clocks agree. It writes the heartbeat object, and asks the bucket when it was written. A
// provider that keeps no times cannot contradict, and is believed. The caller holds acting.
func (c *Compactor) checkClock(ctx context.Context) error {
	now := c.opts.Now()
	if age := now.Sub(c.clock.checked); !c.clock.checked.IsZero() && age >= 0 && age < clockAge {
		return c.clock.fault
	}
	name := c.heartbeatName()
	if err := c.putRecord(ctx, name, heartbeat{1, c.opts.Instance, now.UnixMilli()}); err != nil {
		return err
	}
	after := c.opts.Now()
	attrs, err := c.bkt.Attributes(ctx, name)
	if err != nil {
		return errs.E(errs.Unavailable, "read the time of %s: %w", name, err)
	}
	c.clock.checked, c.clock.fault = after, skew(now, after, attrs.LastModified)
	return c.clock.fault
}

// skew is the error of a bucket that says that an object, which was written between the times from and to by the clock
// of this machine, is of the time says.
func skew(from, to, says time.Time) error {
	if says.IsZero() {
		return nil
	}
	off := max(from.Sub(says), says.Sub(to))
	if off <= maxSkew {
		return nil
	}
	return errs.E(errs.Conflict, "the clock of this machine says %s, and that of the bucket %s: they are %s apart, and "+
		"may be %s", to.UTC().Format(time.RFC3339), says.UTC().Format(time.RFC3339), off.Round(time.Second), maxSkew)
}
