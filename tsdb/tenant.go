package tsdb

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb/repair"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// State is what a tenant's TSDB is doing.
type State string

// A tenant goes from Opening to Open or Broken. From Open it goes by Closing to Idle, or back to Opening when its log
// failed. A write, or a read of its time range, takes it from Idle to Opening. From Broken it goes to Opening after
// some time.
const (
	Opening State = "opening" // its logs are being replayed
	Open    State = "open"
	Closing State = "closing"
	Idle    State = "idle"   // its TSDB is closed
	Broken  State = "broken" // quarantined: it could not be opened

	gone State = "gone" // it had no data left, and is no tenant any more
)

// tenantDB is one tenant, open or not.
type tenantDB struct {
	id           tenant.ID
	dir          string
	db           *DB
	meta         *tenantdir.Metadata
	busy         atomic.Bool // a task of the scheduler is under way
	housekeeping atomic.Bool // its housekeeping is under way

	arrivals  arrivals
	blocks    blockList
	abandoned abandonedHeads // of this tenant; guarded by DB.abandonedMu

	mu       sync.Mutex // guards what follows, never held during I/O
	state    State
	wait     bool              // in state Opening: callers wait, as it will soon be open
	changed  chan struct{}     // closed when the state is left for Open, Idle or Broken
	in       *instance         // in the states Open and Closing
	initial  bool              // its first opening began with the process
	suspect  bool              // its disk has failed: probe it before opening
	damaged  bool              // its directory has a directory "damaged"
	err      error             // in state Broken
	tries    int               // openings that failed in a row
	retryAt  time.Time         // no task of the scheduler before; in state Broken: when it is opened again
	expireAt time.Time         // in state Idle: when blocks are looked at again
	onRetry  time.Time         // in state Broken: from when on a request has it opened again
	summary  tenantdir.Summary // in state Idle
	kept     bool              // something of it was to be deleted, and is kept
	keptFor  string            // why, the last time
}

// use returns the open instance and the function that gives it back, to be called once. It opens an idle tenant and
// waits for that. It does not wait for a tenant whose opening began with the process, as its logs can be long. Errors
// are Unavailable.
func (t *tenantDB) use(ctx context.Context) (*instance, func(), error) {
	for {
		in, changed, err := t.tryUse()
		switch {
		case err != nil:
			return nil, nil, err
		case in != nil:
			return in, func() { t.release(in) }, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, errs.E(errs.Unavailable, "wait for tenant %q to open: %w", t.id, ctx.Err())
		}
	}
}

// tryUse returns an instance, or what to wait for before trying again, or an error.
func (t *tenantDB) tryUse() (*instance, <-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.state {
	case Open:
		if t.in.isStuck() {
			return nil, nil, t.in.logError()
		}
		t.in.users++
		return t.in, nil, nil
	case Broken:
		if now := t.db.opts.Now(); !now.Before(t.onRetry) && !t.db.disk.Full() {
			t.startOpening(false)
		}
		err := errs.E(errs.Unavailable, "tenant %q is quarantined: %w", t.id, t.err)
		return nil, nil, errs.WithRetryAfter(err, 10*time.Second)
	case gone:
		return nil, nil, errGone
	case Opening:
		if !t.wait {
			return nil, nil, errs.WithRetryAfter(errs.E(errs.Unavailable, "tenant %q is being opened", t.id), time.Second)
		}
	case Closing:
		if t.db.ctx.Err() != nil {
			return nil, nil, errShutdown
		}
	case Idle:
		if !t.startOpening(true) {
			return nil, nil, errShutdown
		}
	}
	return nil, t.changed, nil
}

// errGone tells the caller to look the tenant up again.
var errGone = errs.E(errs.Unavailable, "the tenant was just removed")

var errShutdown = errs.WithRetryAfter(errs.E(errs.Unavailable, "shutting down"), time.Second)

// release gives back an instance that use returned.
func (t *tenantDB) release(in *instance) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if in.users--; in.users == 0 && t.state == Closing && t.in == in {
		close(in.unused)
	}
}

// startOpening opens the tenant in the background. It returns false when the DB is closing. The caller holds t.mu.
func (t *tenantDB) startOpening(wait bool) bool {
	t.state, t.wait, t.changed = Opening, wait, make(chan struct{})
	if !t.db.spawn(t.open) {
		t.state = Idle
		close(t.changed)
		return false
	}
	return true
}

// open opens the tenant, which leaves the state Opening.
func (t *tenantDB) open() {
	_ = t.db.openings.take(context.Background())
	defer t.db.openings.give()
	start := time.Now()
	in, err := t.openCounted()

	t.mu.Lock()
	defer t.mu.Unlock()
	defer close(t.changed)
	t.initial, t.damaged = false, tenantdir.Exists(filepath.Join(t.dir, tenantdir.DamagedName))
	if err != nil {
		t.quarantine(err, time.Since(start))
		return
	}
	t.state, t.in, t.err, t.tries, t.suspect = Open, in, nil, 0, false
	t.db.log.Info("tenant opened", "tenant", t.id,
		"series", in.db.Head().NumSeries(), "blocks", len(in.db.Blocks()), "took", time.Since(start))
}

// openCounted opens the tenant if the process has files left for it, and counts them.
func (t *tenantDB) openCounted() (*instance, error) {
	if err := t.db.files.Admit(); err != nil {
		return nil, err
	}
	in, err := t.openFiles()
	if err != nil {
		t.db.files.Leave()
		return nil, err
	}
	in.countBlocks()
	return in, nil
}

// openFiles makes the tenant's directory, repairs what is in it, and opens the TSDB.
func (t *tenantDB) openFiles() (in *instance, err error) {
	// A broken log or block must not take the other tenants down.
	defer func() {
		if p := recover(); p != nil {
			err = errs.E(errs.Unavailable, "open tsdb of tenant %q: panic: %v", t.id, p)
		}
	}()
	if err := tenantdir.Create(t.dir, t.id); err != nil {
		return nil, err
	}
	if t.suspect {
		if err := probe(t.dir); err != nil {
			return nil, errs.E(errs.Unavailable, "disk of tenant %q: %w", t.id, err)
		}
	}
	if err := t.meta.Load(); err != nil {
		t.db.log.Warn("metadata of tenant not read, starting without", "tenant", t.id, "err", err)
	}
	if err := tenantdir.RemoveSummary(t.dir); err != nil {
		return nil, err
	}
	if err := t.repairLogs(); err != nil {
		return nil, err
	}
	if err := t.bringBack(); err != nil {
		return nil, err
	}
	if _, err := t.setAside(nil, false); err != nil {
		return nil, err
	}
	in, err = openInstance(t)
	if err == nil {
		return in, nil
	}
	// A bad block may be the cause. Blocks are probed only now, as it would be slow to open each of them twice at every
	// start.
	if moved, serr := t.setAside(nil, true); !moved || serr != nil {
		return nil, errors.Join(err, serr)
	}
	return openInstance(t)
}

// repairLogs makes of the logs of a process that died what the TSDB can replay in full.
func (t *tenantDB) repairLogs() error {
	lost, err := repair.Logs(t.db.log.With("tenant", t.id), t.dir, t.db.opts.WALCompression, t.db.opts.Now())
	if lost > 0 {
		t.db.m.salvaged.Inc()
		t.db.log.Error("damaged logs: what cannot be read is left out",
			"tenant", t.id, "bytes", lost, "kept", filepath.Join(t.dir, tenantdir.DamagedName))
	}
	if err != nil {
		return errs.E(errs.Unavailable, "repair logs of tenant %q: %w", t.id, err)
	}
	return nil
}

const (
	maxRetryBroken = 2 * time.Minute
	minRetryBroken = 5 * time.Second // when a request asks for the tenant
)

// quarantine enters the state Broken, after an opening that failed and took this long. The caller holds t.mu.
func (t *tenantDB) quarantine(err error, took time.Duration) {
	if t.err == nil || t.err.Error() != err.Error() {
		t.db.log.Error("tenant quarantined", "tenant", t.id, "err", err)
	}
	t.state, t.in, t.err = Broken, nil, err
	now := t.db.opts.Now()
	t.retryAt = now.Add(min(t.db.opts.RetryBroken<<min(t.tries, 10), maxRetryBroken))
	t.onRetry = now.Add(min(max(4*took, minRetryBroken), maxRetryBroken))
	t.tries++
}

// closeWhen closes the TSDB if ready, called with t.mu held, returns true. It waits until nobody uses the TSDB, as
// users hold memory that closing unmaps. If ctx ends first the TSDB stays open. After true the state is Closing, and
// the caller leaves it with settle.
func (t *tenantDB) closeWhen(ctx context.Context, ready func(in *instance, users int) bool) (bool, error) {
	t.mu.Lock()
	if t.state != Open || t.in.isStuck() || !ready(t.in, t.in.users) {
		t.mu.Unlock()
		return false, nil
	}
	in, unused := t.in, make(chan struct{})
	t.state, in.unused, t.changed = Closing, unused, make(chan struct{})
	if in.users == 0 {
		close(unused)
	}
	t.mu.Unlock()

	select {
	case <-unused:
	case <-ctx.Done():
		t.mu.Lock()
		defer t.mu.Unlock()
		if in.users > 0 {
			t.state = Open
			close(t.changed)
			return false, errs.E(errs.Unavailable, "close tenant %q: still in use: %w", t.id, ctx.Err())
		}
	}
	_ = t.db.openings.take(context.Background())
	defer t.db.openings.give()
	return true, errors.Join(t.meta.Save(), in.close())
}

// settle takes the tenant from Closing to Idle.
func (t *tenantDB) settle(s tenantdir.Summary) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.in != nil {
		t.in.uncountBlocks()
		t.db.files.Leave()
	}
	t.state, t.in, t.summary = Idle, nil, s
	close(t.changed)
}

// reopen closes a tenant whose log could not be written, and opens it again. Requests for the tenant wait meanwhile.
func (t *tenantDB) reopen(ctx context.Context) {
	var cause error
	closed, err := t.closeWhen(ctx, func(in *instance, _ int) bool { cause = in.logError(); return cause != nil })
	if !closed {
		return
	}
	t.db.log.Warn("tenant is reopened", "tenant", t.id, "cause", cause, "close_err", err)
	t.settle(tenantdir.Anything())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.suspect = true; t.state == Idle {
		t.startOpening(true)
	}
}

// closeIdle closes a tenant whose last write was before a time (ms), and leaves its summary.
func (t *tenantDB) closeIdle(ctx context.Context, before int64) error {
	var s tenantdir.Summary
	closed, err := t.closeWhen(ctx, func(in *instance, users int) bool {
		s = in.summary()
		return users == 0 && in.clean() && in.lastWrite.Load() < before
	})
	if !closed {
		return err
	}
	s = t.withFaulty(s)
	if err == nil {
		err = tenantdir.WriteSummary(t.dir, s)
	}
	t.meta.Forget()
	t.settle(s)
	t.db.log.Info("idle tenant closed", "tenant", t.id, "err", err)
	return err
}

// noteKept notes why something of the tenant that was to be deleted is kept; nil when everything was deleted. The log
// has each reason once.
func (t *tenantDB) noteKept(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = why != nil
	if why != nil && why.Error() != t.keptFor {
		t.keptFor = why.Error()
		t.db.log.Warn("not deleted", "tenant", t.id, "err", why)
	}
}
