package compact

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"

	"github.com/hearth-metrics/hearth/compact/plan"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// retentionName is the object with the periods in force.
const retentionName = folder + "retention.json"

// keeping is what is known of retention.
type keeping struct {
	mu   sync.Mutex // guards said, and is held while the periods in force are settled
	said terms      // the periods that the log has
}

// markExpired marks the blocks that retention no longer keeps.
func (c *Compactor) markExpired(ctx context.Context, l *look) error {
	s, err := c.settings(ctx, l)
	if err != nil {
		return err
	}
	over := map[ulid.ULID]plan.Expiry{}
	var ids []ulid.ULID
	for _, e := range plan.Expired(c.expiring(l), s, c.opts.Now()) {
		if e.Waits == "" {
			ids = append(ids, e.Meta.ULID)
			over[e.Meta.ULID] = e
		}
	}
	return c.each(ctx, ids, func(ctx context.Context, id ulid.ULID) error {
		e := over[id]
		details := fmt.Sprintf("%s of %s", becauseRetention, model.Duration(e.Keep))
		if err := c.mark(ctx, id, becauseRetention, details); err != nil {
			return err
		}
		c.log.Info("marked a block for deletion that is beyond its retention", "block", id.String(), "retention", e.Keep,
			"resolution", e.Meta.Thanos.Downsample.Resolution, "bytes", e.Bytes)
		return nil
	})
}

// expiring is what retention is decided by. A young block counts, too.
func (c *Compactor) expiring(l *look) plan.Bucket {
	return plan.Bucket{View: l.view, Metas: l.live, SetAside: c.failures.blocks()}
}

// periods settles what the configuration says with what was in force, and keeps the result in the bucket. Where an
// object of before cannot be read nothing expires, as it may have said longer periods.
func (c *Compactor) periods(ctx context.Context) (terms, error) {
	c.keeping.mu.Lock()
	defer c.keeping.mu.Unlock()
	var was terms
	err := c.getRecord(ctx, retentionName, &was)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return terms{}, fmt.Errorf("nothing expires while the periods of before are not known (delete the object if it "+
			"is damaged; then a shorter retention waits anew): %w", err)
	}
	if err == nil && was.Version != 1 {
		return terms{}, errs.E(errs.Unsupported, "%s is of version %d: nothing expires", retentionName, was.Version)
	}
	what, fault := c.opts.Retention.wanted()
	t := was.settle(what, fault == nil, c.opts.Now(), c.opts.Retention.Wait)
	if !reflect.DeepEqual(t, was) {
		if err := c.putRecord(ctx, retentionName, t); err != nil {
			return terms{}, err
		}
	}
	return t, nil
}

// tellWaiting says how many bytes a shorter retention takes, when one begins to wait. s has the periods in force.
func (c *Compactor) tellWaiting(l *look, t terms, s *plan.Settings) {
	coming, waits := t.coming()
	if !waits {
		c.metrics.shorterWait.Set(0)
		return
	}
	bkt, now := c.expiring(l), c.opts.Now()
	already := map[ulid.ULID]bool{}
	for _, e := range plan.Expired(bkt, s, now) {
		already[e.Meta.ULID] = true
	}
	blocks, bytes := 0, int64(0)
	for _, e := range plan.Expired(bkt, c.settingsWith(s.Bucket, coming), now) {
		if !already[e.Meta.ULID] {
			blocks++
			bytes += e.Bytes
		}
	}
	c.metrics.shorterWait.Set(float64(bytes))
	c.keeping.mu.Lock()
	defer c.keeping.mu.Unlock()
	if !reflect.DeepEqual(c.keeping.said, t) {
		c.log.Warn("a shorter retention waits before it takes effect", "wait", c.opts.Retention.Wait, "blocks", blocks,
			"bytes", bytes)
		c.keeping.said = t
	}
}
