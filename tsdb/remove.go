package tsdb

import (
	"context"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// Made is when the directory of tenant id was made. The error is fs.ErrNotExist if there is none.
func (d *DB) Made(id tenant.ID) (time.Time, error) { return tenantdir.Made(d.TenantDir(id)) }

// Remove deletes all that is stored of tenant id: head, logs, blocks, those that cannot be read among them, metadata. A
// tenant that is not known is no error. The caller sees to it that nothing is written for the tenant: a write that
// comes later makes it anew.
//
//  1. wait for its readers and writers, and close its TSDB
//  2. rename its directory: from here on the tenant is gone, whatever happens
//  3. delete what is in it; after a crash the next start goes on with that
//
// Before 2 an error leaves the tenant as it was: Unavailable, if somebody still uses it when ctx ends, or if its head
// is stuck. After 2 an error says what is left on the disk.
func (d *DB) Remove(ctx context.Context, id tenant.ID) error {
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	if !d.spawn(func() { done <- d.removeTenant(ctx, id) }) {
		return errShutdown
	}
	return <-done
}

func (d *DB) removeTenant(ctx context.Context, id tenant.ID) error {
	t := d.lookup(id)
	if t == nil {
		return nil
	}
	closed, err := t.seize(ctx)
	if err != nil || !closed {
		return err
	}
	dir, err := tenantdir.Detach(t.dir)
	if err != nil {
		t.settle(tenantdir.Anything())
		return errs.E(errs.Internal, "delete tenant %q: %w", id, err)
	}
	t.meta.Drop()
	t.forget()
	if dir == "" {
		return nil
	}
	if err := tenantdir.Sweep(dir); err != nil {
		return errs.E(errs.Internal, "tenant %q is deleted, and something of it is left in %s: %w", id, dir, err)
	}
	return nil
}

// seize takes the tenant from any state to Closing, with its TSDB closed, and waits for that. The caller leaves the
// state. False without an error means that the tenant is gone.
func (t *tenantDB) seize(ctx context.Context) (bool, error) {
	for {
		t.mu.Lock()
		state, changed := t.state, t.changed
		stuck := state == Open && t.in.isStuck()
		if state == Idle || state == Broken {
			t.state, t.changed = Closing, make(chan struct{})
		}
		t.mu.Unlock()
		switch state {
		case gone:
			return false, nil
		case Idle, Broken:
			return true, nil
		case Open:
			if stuck {
				return false, errs.E(errs.Unavailable, "delete tenant %q: its head hangs; it is opened anew first", t.id)
			}
			closed, err := t.closeWhen(ctx, func(*instance, int) bool { return true })
			if closed {
				if err != nil { // nothing of it is needed any more
					t.db.log.Warn("tenant that is deleted did not close well", "tenant", t.id, "err", err)
				}
				return true, nil
			}
			if err != nil {
				return false, err
			}
			continue // somebody else was faster
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false, errs.E(errs.Unavailable, "delete tenant %q: it is %s: %w", t.id, state, ctx.Err())
		}
	}
}

// forget takes the tenant from Closing to gone.
func (t *tenantDB) forget() {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	defer close(t.changed)
	if t.in != nil {
		t.in.uncountBlocks()
		t.db.files.Leave()
	}
	t.state, t.in = gone, nil
	delete(t.db.tenants, t.id)
	t.db.since = t.db.opts.Now().UnixMilli()
	t.db.removed = true
}
