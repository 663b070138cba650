package compact

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/compact/plan"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// retentionName is the object with the rules of retention that hold.
const retentionName = folder + "retention.json"

// keeping is what is known of retention.
type keeping struct {
	mu      sync.Mutex // guards all, and is held while the rules that hold are settled
	waiting int64      // bytes that a shorter retention takes, as the log has said
	fault   string     // what the log has said that is wrong with the configuration
	// doomed are the blocks that operators asked to delete, that are marked, and of which the last look does not know it.
	doomed map[ulid.ULID]bool
}

// markExpired marks the blocks that retention no longer keeps.
func (c *Compactor) markExpired(ctx context.Context, l *look) error {
	s, err := c.settings(ctx)
	if err != nil {
		return err
	}
	over := map[ulid.ULID]plan.Expiry{}
	var ids []ulid.ULID
	waiting, bytes := 0, int64(0)
	for _, e := range plan.Expired(c.expiring(l), s, c.opts.Now()) {
		switch {
		case e.Waits == "":
			ids = append(ids, e.Meta.ULID)
			over[e.Meta.ULID] = e
		case !e.Until.IsZero():
			waiting++
			bytes += e.Bytes
		}
	}
	c.tellWaiting(waiting, bytes)
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

// markDeleted marks the blocks that operators asked to delete. The request is looked up again for each: it is a
// function of the time, and the look may be old.
func (c *Compactor) markDeleted(ctx context.Context, l *look) error {
	metas := map[ulid.ULID]*block.Meta{}
	var ids []ulid.ULID
	for _, m := range l.doomed {
		metas[m.ULID] = m
		if !c.keeping.doomed[m.ULID] { // this loop alone changes it, and none of it runs now
			ids = append(ids, m.ULID)
		}
	}
	c.keeping.mu.Lock()
	maps.DeleteFunc(c.keeping.doomed, func(id ulid.ULID, _ bool) bool { return metas[id] == nil })
	c.keeping.mu.Unlock()
	err := c.each(ctx, ids, func(ctx context.Context, id ulid.ULID) error {
		e := l.view.TakenBy(metas[id], c.opts.TenantLabel, c.opts.Now())
		if e == nil { // the clock of this machine was set back
			return nil
		}
		if err := c.mark(ctx, id, becauseDeleted, fmt.Sprintf("%s %s", becauseDeleted, e.ID)); err != nil {
			return err
		}
		c.log.Info("marked a block for deletion whose tenant is deleted", "block", id.String(), "tenant", e.Tenant,
			"request", e.ID.String(), "by", e.By, "bytes", metas[id].Bytes())
		c.keeping.mu.Lock()
		defer c.keeping.mu.Unlock()
		c.keeping.doomed[id] = true
		return nil
	})
	return errors.Join(l.view.Requests.Fault(), err)
}

// expiring is what retention is decided by. A young block counts, too.
func (c *Compactor) expiring(l *look) plan.Bucket {
	return plan.Bucket{View: l.view, Metas: l.live, SetAside: c.failures.blocks()}
}

// rules settles what the configuration says with what was in force, and keeps the result in the bucket. Where an object
// of before cannot be read nothing expires, as it may have said longer periods.
func (c *Compactor) rules(ctx context.Context) (plan.Policy, error) {
	c.keeping.mu.Lock()
	defer c.keeping.mu.Unlock()
	var was rulesRecord
	err := c.getRecord(ctx, retentionName, &was)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return plan.Policy{}, fmt.Errorf("nothing expires while the rules of before are not known (delete the object if it "+
			"is damaged; then a shorter retention waits anew): %w", err)
	}
	if err == nil && was.Version != 2 {
		return plan.Policy{}, errs.E(errs.Unsupported, "%s is of version %d: nothing expires until it is deleted; then a "+
			"shorter retention waits anew", retentionName, was.Version)
	}
	want, fault := c.opts.Retention.wanted(c.opts.Jobs.Downsample)
	c.tellFault(fault)
	r, err := was.settle(want, fault == nil, c.opts.Now(), c.opts.Retention.Wait)
	if err != nil {
		return plan.Policy{}, err
	}
	if !reflect.DeepEqual(r, was) {
		if err := c.putRecord(ctx, retentionName, r); err != nil {
			return plan.Policy{}, err
		}
	}
	return r.policy()
}

// tellFault says what is wrong with the configuration, once. The caller holds keeping.mu.
func (c *Compactor) tellFault(fault error) {
	text := ""
	if fault != nil {
		text = fault.Error()
	}
	if text != c.keeping.fault && text != "" {
		c.log.Warn("retention is not configured well, and stays as it was", "err", fault)
	}
	c.keeping.fault = text
}

// tellWaiting says how many bytes a shorter retention takes, when that changes.
func (c *Compactor) tellWaiting(blocks int, bytes int64) {
	c.metrics.shorterWait.Set(float64(bytes))
	c.keeping.mu.Lock()
	defer c.keeping.mu.Unlock()
	if bytes > c.keeping.waiting {
		c.log.Warn("a shorter retention waits before it takes effect", "wait", c.opts.Retention.Wait, "blocks", blocks,
			"bytes", bytes)
	}
	c.keeping.waiting = bytes
}
