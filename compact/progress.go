package compact

import (
	"context"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/compact/plan"
)

// progress counts what is left to be done in the bucket, by all compactors, if no block comes: the jobs of a plan,
// those that follow from them, and the blocks that retention no longer keeps.
func (c *Compactor) progress(ctx context.Context, l *look) error {
	s, err := c.settings(ctx)
	if err != nil {
		return err
	}
	expired := 0
	for _, e := range plan.Expired(c.expiring(l), s, c.opts.Now()) {
		if e.Waits == "" {
			expired++
		}
	}
	c.metrics.todoDeletion.Set(float64(expired))
	if c.opts.Jobs.Off {
		return nil
	}
	done, err := c.doneOutputs(ctx)
	if err != nil {
		return err
	}
	b := c.bucketOf(l, done)
	todo := plan.Simulate(b, s, c.opts.Now(), plan.Make(b, s, c.opts.Now()))
	c.metrics.todoJobs.Set(float64(todo.Compactions))
	c.metrics.todoBlocks.Set(float64(todo.CompactionBlocks))
	c.metrics.todoDownsample.Set(float64(todo.DownsampleBlocks))
	return nil
}

// doneOutputs are the outputs that were made and deleted.
func (c *Compactor) doneOutputs(ctx context.Context) (map[ulid.ULID]bool, error) {
	ids, err := c.listRecords(ctx, doneFolder)
	done := make(map[ulid.ULID]bool, len(ids))
	for _, id := range ids {
		done[id] = true
	}
	return done, err
}
