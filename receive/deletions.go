package receive

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

const (
	// firstLook is how long Open waits for the bucket to say which tenants are deleted.
	firstLook = 5 * time.Second
	// lookTimeout bounds one look at the bucket for that, and removeTimeout the deletion of one tenant's data.
	lookTimeout, removeTimeout = 30 * time.Second, time.Minute
)

// watchDeletions looks every Options.DeletionInterval which tenants operators asked to delete.
func (r *Receiver) watchDeletions() {
	tick := time.NewTicker(r.opts.DeletionInterval)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
			r.followDeletions(r.ctx)
		}
	}
}

// followDeletions makes one look at the bucket, and deletes what there is of tenants whose deletion is due. What
// fails is logged and tried again with the next look. Only one call runs at a time.
func (r *Receiver) followDeletions(ctx context.Context) {
	look, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	list, err := r.asks.Read(look)
	if err != nil {
		r.tellDeletions(err)
		return
	}
	if was := r.asked.Load(); was != nil { // else nobody could read before
		now := r.opts.Now()
		for _, e := range list.HiddenElse(was, now) {
			r.hides.Note(e.Tenant, now.UnixMilli(), e.Series.MinTime, max(e.Series.MaxTime, 1))
		}
	}
	r.asked.Store(list)
	r.deletionMetrics.report(list, r.opts.Now())
	r.tellDeletions(r.removeDeleted(ctx, list))
}

// tellDeletions logs each fault once.
func (r *Receiver) tellDeletions(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != r.toldDeletions && r.ctx.Err() == nil {
		r.deletionMetrics.failures.Inc()
		r.log.Warn("deletion of tenants: something is left undone, and is tried again", "err", err)
	}
	r.toldDeletions = text
}

// removeDeleted deletes the heads and local blocks that list says are to be deleted. Nothing is deleted while the
// clock of this machine is not that of the bucket: the deletion might not be due yet, and can still be undone then.
func (r *Receiver) removeDeleted(ctx context.Context, list *block.Requests) error {
	faults := []error{list.Fault()}
	checked := false
	for _, id := range list.Tenants() {
		e := r.taken(list, id)
		if e == nil || !r.db.Has(id) {
			continue
		}
		if !checked {
			if err := block.CheckClock(ctx, r.bkt, r.opts.Instance, r.opts.Now); err != nil {
				return errors.Join(append(faults, err)...)
			}
			checked = true
		}
		if err := r.removeTenant(ctx, id); err != nil {
			faults = append(faults, err)
			continue
		}
		r.deletionMetrics.removed.Inc()
		r.log.Info("tenant deleted here: its head and local blocks are gone", "tenant", id, "request", e.ID.String(),
			"by", e.By, "reason", e.Reason)
	}
	return errs.Few(faults)
}

// removeTenant deletes what is stored of a tenant. A block of it that is on its way into the bucket arrives before.
func (r *Receiver) removeTenant(ctx context.Context, id tenant.ID) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	if err := r.shipperOf(id).WaitIdle(ctx); err != nil {
		return errs.E(errs.Unavailable, "delete tenant %q: its blocks are being shipped: %w", id, err)
	}
	err := r.db.Remove(ctx, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.shippers, id)
	return err
}

// taken is the request because of which the data of a tenant that is here is deleted now, nil if there is none. A
// tenant that is not here has none.
func (r *Receiver) taken(list *block.Requests, id tenant.ID) *block.Request {
	if len(list.Of(id)) == 0 {
		return nil
	}
	made, err := r.db.Made(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil { // then it is as old as can be
		made = time.Time{}
	}
	return list.Takes(id, made, r.opts.Now())
}

// hidden reports whether reads find nothing of a tenant, since its deletion is due.
func (r *Receiver) hidden(id tenant.ID) bool { return r.taken(r.asked.Load(), id) != nil }

// Refusal is why a tenant takes no writes: Invalid if an operator asked to delete it, Unavailable while it may be
// made anew and what there was of it is still being deleted here. It is nil for all other tenants, and until the
// bucket has said which these are.
func (r *Receiver) Refusal(id tenant.ID) error {
	list := r.asked.Load()
	if len(list.Of(id)) == 0 {
		return nil
	}
	if err := list.Refusal(id, r.opts.Now()); err != nil {
		return err
	}
	if e := r.taken(list, id); e != nil {
		return errs.WithRetryAfter(errs.E(errs.Unavailable, "what there was of tenant %q is still being deleted here "+
			"(request %s)", id, e.ID), time.Second)
	}
	return nil
}

// mayShip is the error of a tenant whose blocks must not get into the bucket: Conflict if its deletion is due, and
// Unavailable while the bucket has not said which tenants that are.
func (r *Receiver) mayShip(id tenant.ID) error {
	list := r.asked.Load()
	if list == nil {
		return errs.E(errs.Unavailable, "the bucket has not said yet which tenants are deleted")
	}
	if e := r.taken(list, id); e != nil {
		return errs.E(errs.Conflict, "tenant %q is deleted (request %s)", id, e.ID)
	}
	return nil
}
