package compact

import (
	"context"
	"time"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

const (
	// folder has the compactor's own objects (docs/format/compactor.md).
	folder = "hearth/compact/"
	// clockAge is how long a comparison of the clocks counts.
	clockAge = time.Minute
)

// clock compares the bucket's clock with that of this machine.
type clock struct {
	checked time.Time // when they were last compared
	fault   error     // what came of it
	before  time.Time // when this instance last wrote before this process, by the bucket's clock; zero = never
}

// heartbeatName is the object that this process writes to compare its clock with that of the bucket, and to know after
// a restart when it last worked.
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
	says, off, err := block.CompareClocks(ctx, c.bkt, c.heartbeatName(), c.opts.Instance, c.opts.Now)
	if err != nil {
		return err
	}
	now = c.opts.Now()
	c.clock.checked, c.clock.fault = now, nil
	if off > block.MaxSkew {
		c.clock.fault = errs.E(errs.Conflict, "the clock of this machine says %s, and that of the bucket %s: they are %s "+
			"apart, and may be %s", now.UTC().Format(time.RFC3339), says.UTC().Format(time.RFC3339),
			off.Round(time.Second), block.MaxSkew)
	}
	return c.clock.fault
}
