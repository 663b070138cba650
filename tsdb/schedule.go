package tsdb

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// task is what the scheduler does with a tenant.
type task int

const (
	nothing    task = iota
	cutRange        // cut what is before facts.end
	cutAll          // cut everything: the tenant has gone idle
	closeIdle       // close it: all is cut and shipped
	reopenLog       // close it and open it again: its log failed
	abandon         // its head is stuck: leave that and open the tenant anew
	openBroken      // try to open a quarantined tenant again
	expireIdle      // delete old blocks of a closed tenant
)

// facts are what a decision about a tenant depends on. Times are ms.
type facts struct {
	state     State
	now, end  int64 // end: the newest range boundary that is due for this tenant
	lastWrite int64
	clean     bool  // everything that was written is in blocks
	cutTo     int64 // the range boundary up to which it has been cut
	retryAt   int64 // no cut or opening before
	expireAt  int64 // no expiry before
	logFailed bool
	hangs     bool
	diskFull  bool        // an opening would fail, and a read-only tenant is better than a closed one
	shipped   func() bool // all local blocks are in the bucket
	idleAfter int64       // 0 = never
}

// decide is the policy of the scheduler.
func decide(v facts) task {
	idle := v.idleAfter > 0 && v.now-v.lastWrite >= v.idleAfter
	switch {
	case v.hangs:
		return abandon
	case v.now < v.retryAt:
		return nothing
	case v.diskFull && (v.state == Broken || v.logFailed):
		return nothing
	case v.state == Broken:
		return openBroken
	case v.state == Idle && v.now >= v.expireAt:
		return expireIdle
	case v.state != Open:
		return nothing
	case v.logFailed:
		return reopenLog
	case idle && !v.clean:
		return cutAll
	case idle && v.shipped():
		return closeIdle
	case !idle && v.end > v.cutTo:
		return cutRange
	}
	return nothing
}

// due is the newest range boundary at which tenant id's head is to be cut. A range is cut an eighth of its length
// after its end, so that samples that are on their way can still come in order (later ones are out of order, which is
// allowed). To that comes a part of three eighths, which depends on the tenant and the instance, so that neither all
// tenants nor all replicas of one tenant are cut at the same time. Prometheus cuts after four eighths.
func due(now, width int64, id tenant.ID, instance string) int64 {
	h := xxhash.Sum64String(string(id) + "\xff" + instance)
	jitter := int64(float64(width) * 3 / 8 * float64(h>>11) / (1 << 53))
	t := now - width/8 - jitter
	return rangeEnd(t, width) - width
}

const (
	housekeepEvery = time.Minute // between two rounds of housekeeping
	housekeepsFor  = time.Second // how long the round waits for one tenant before it goes on with the next
	expireEvery    = time.Hour
	retryCut       = time.Minute
)

// schedule looks at every tenant once per tick until Close.
func (d *DB) schedule() {
	tick := time.NewTicker(d.opts.Tick)
	defer tick.Stop()
	last := d.opts.Now()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-tick.C:
		}
		now := d.opts.Now()
		housekeep := now.Sub(last) >= housekeepEvery
		if housekeep {
			last = now
		}
		for _, t := range d.all() {
			if d.ctx.Err() != nil {
				return
			}
			t.look(now)
		}
		if housekeep && d.housekeeping.CompareAndSwap(false, true) && !d.spawn(d.housekeep) {
			return
		}
	}
}

// housekeep does the housekeeping of every tenant, one after the other. If the disk of a tenant does not answer, the
// others wait for it at most for housekeepsFor, and the scheduler does not wait at all. Later rounds leave that
// tenant out until its housekeeping has ended.
func (d *DB) housekeep() {
	defer d.housekeeping.Store(false)
	late := time.NewTimer(0)
	defer late.Stop()
	for _, t := range d.all() {
		if d.ctx.Err() != nil {
			return
		}
		if !t.housekeeping.CompareAndSwap(false, true) {
			continue
		}
		done := make(chan struct{})
		if !d.spawn(func() {
			defer close(done)
			defer t.housekeeping.Store(false)
			t.housekeep()
		}) {
			return
		}
		late.Reset(housekeepsFor)
		select {
		case <-done:
		case <-late.C:
		}
	}
	d.files.Warn()
}

// look decides what to do with the tenant, and starts it if nothing is under way.
func (t *tenantDB) look(now time.Time) {
	v := t.facts(now)
	do := decide(v)
	if do == nothing || !t.busy.CompareAndSwap(false, true) {
		return
	}
	if !t.db.spawn(func() { defer t.busy.Store(false); t.perform(do, v) }) {
		t.busy.Store(false)
	}
}

// facts gathers what decide needs to know.
func (t *tenantDB) facts(now time.Time) facts {
	full := t.db.disk.Look(now)
	t.mu.Lock()
	defer t.mu.Unlock()
	v := facts{
		state: t.state, now: now.UnixMilli(),
		end:     due(now.UnixMilli(), t.db.opts.BlockDuration.Milliseconds(), t.id, t.db.opts.Instance),
		retryAt: t.retryAt.UnixMilli(), expireAt: t.expireAt.UnixMilli(), idleAfter: t.db.opts.IdleTimeout.Milliseconds(),
		diskFull: full,
	}
	if in := t.in; in != nil {
		v.lastWrite, v.clean, v.cutTo = in.lastWrite.Load(), in.clean(), in.cutTo.Load()
		v.logFailed, v.hangs = in.logFailed.Load() != nil, t.state == Open && in.isStuck()
		v.shipped = in.allShipped
	}
	return v
}

// allShipped reports whether all blocks are in the bucket. It is true without a bucket.
func (in *instance) allShipped() bool {
	if in.opts.Shipped == nil {
		return true
	}
	for _, b := range in.db.Blocks() {
		if !in.opts.Shipped(in.id, b.Meta().ULID) {
			return false
		}
	}
	return true
}

// perform does a task that decide chose for the facts v.
func (t *tenantDB) perform(do task, v facts) {
	var err error
	switch do {
	case cutRange:
		err = t.cut(t.db.ctx, v.end)
	case cutAll:
		err = t.cut(t.db.ctx, math.MaxInt64)
	case closeIdle:
		ctx, cancel := context.WithTimeout(t.db.ctx, t.db.closeTimeout)
		err = t.closeIdle(ctx, v.lastWrite+1)
		cancel()
	case abandon:
		t.abandon()
	case reopenLog:
		ctx, cancel := context.WithTimeout(t.db.ctx, t.db.closeTimeout)
		t.reopen(ctx)
		cancel()
		t.retryLater(t.db.opts.RetryBroken)
	case openBroken:
		t.mu.Lock()
		if t.state == Broken {
			t.startOpening(false)
		}
		t.mu.Unlock()
	case expireIdle:
		err = t.expireIdle()
	}
	if err != nil && t.db.ctx.Err() == nil {
		t.db.log.Error("tenant maintenance failed, will be tried again", "tenant", t.id, "err", err)
		t.retryLater(retryCut)
	}
}

// retryLater keeps the scheduler from the tenant for a while.
func (t *tenantDB) retryLater(after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != Broken {
		t.retryAt = t.db.opts.Now().Add(after)
	}
}

// cut cuts the tenant, and opens it before if it is idle. If readers keep the cut waiting for longer than
// DB.patience, cut returns an error and the cut goes on by itself. The tenant stays in use until then, so that it is
// not closed meanwhile.
func (t *tenantDB) cut(ctx context.Context, end int64) error {
	in, release, err := t.use(ctx)
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		defer release()
		start := time.Now()
		err := t.protected(in, func() error { return t.cutAround(ctx, in, end) })
		t.db.m.cutTime.Observe(time.Since(start).Seconds())
		outcome := "ok"
		if err != nil {
			outcome = "failed"
		}
		t.db.m.cuts.WithLabelValues(outcome).Inc()
		done <- err
	}()
	return in.await(ctx, done, t.db.patience)
}

// cutAround cuts. If that fails it sets the blocks aside that keep the TSDB from reloading, and cuts once more.
func (t *tenantDB) cutAround(ctx context.Context, in *instance, end int64) error {
	if _, err := t.setAside(in.db.Blocks(), false); err != nil {
		return err
	}
	err := in.cut(ctx, end)
	if err == nil {
		t.expireFaulty()
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	if moved, serr := t.setAside(in.db.Blocks(), true); !moved || serr != nil {
		return err
	}
	return in.cut(ctx, end)
}

// Cut writes the whole heads of the named tenants, or of all tenants, into blocks. Writes go on meanwhile: their
// samples stay in the head, or become out of order. If there is no error, every sample that was acknowledged before
// the call is in a block. The error has those of the first tenants that failed, and says who reads where a cut waits
// for readers. The other tenants are cut all the same.
func (d *DB) Cut(ctx context.Context, ids ...tenant.ID) error {
	var targets []*tenantDB
	for _, id := range ids {
		t := d.lookup(id)
		if t == nil {
			return errs.E(errs.NotFound, "tenant %q is not known here", id)
		}
		targets = append(targets, t)
	}
	if len(ids) == 0 {
		targets = d.all()
	}
	results, started := make(chan error), 0
	for _, t := range targets {
		if t.isCut() {
			continue
		}
		started++
		go func() { results <- t.cut(ctx, math.MaxInt64) }()
	}
	var all []error
	for range started {
		all = append(all, <-results)
	}
	if err := errs.Few(all); err != nil {
		return errs.E(errs.KindOf(err), "cut: %w", err)
	}
	return nil
}

// isCut reports whether everything that was written is in blocks.
func (t *tenantDB) isCut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state == Idle && !t.summary.Head || t.state == Open && t.in.clean() && t.in.logFailed.Load() == nil
}

// housekeep saves metadata, maps full chunks and counts blocks and series.
func (t *tenantDB) housekeep() {
	if err := t.meta.Save(); err != nil {
		t.db.log.Error("metadata not saved", "tenant", t.id, "err", err)
	}
	t.mu.Lock()
	in := t.in
	if t.state != Open || in.isStuck() {
		in = nil
	} else {
		in.users++
	}
	t.mu.Unlock()
	if in != nil {
		defer t.release(in)
		_ = t.protected(in, func() error { in.db.ForceHeadMMap(); return nil }) // logged there
		in.countBlocks()
		if err := in.startCounting(t.db.ctx); err != nil && t.db.ctx.Err() == nil {
			t.db.log.Error("series of metrics not counted, series_per_metric is not kept to",
				"tenant", t.id, "err", err)
		}
	}
}

// protected runs work on a TSDB, which panics when it cannot write a chunk (the disk is full, say). After a panic the
// tenant is closed and opened again, as after a failed log.
func (t *tenantDB) protected(in *instance, work func() error) (err error) {
	in.maintaining.Add(1)
	defer in.maintaining.Add(-1)
	if in.isStuck() {
		return in.logError()
	}
	defer func() {
		if p := recover(); p != nil {
			t.db.log.Error("panic in tenant maintenance", "tenant", t.id, "panic", p, "stack", string(debug.Stack()))
			err = errs.E(errs.Internal, "panic: %v", p)
			in.failLog(err)
		}
	}()
	return work()
}

// remove deletes a closed tenant that has nothing left. It returns false when something is left. The caller has set
// the state Closing.
func (t *tenantDB) remove() (done bool, err error) {
	err = tenantdir.Remove(t.dir)
	if why := new(tenantdir.Stranger); errors.As(err, &why) {
		t.noteKept(err)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	t.forget()
	t.db.log.Info("tenant that had no data left removed", "tenant", t.id)
	return true, nil
}

// expireIdle deletes old blocks of a closed tenant, and the tenant with its last one.
func (t *tenantDB) expireIdle() error {
	t.mu.Lock()
	s := t.summary
	t.expireAt = t.db.opts.Now().Add(expireEvery)
	idle := t.state == Idle && !s.Head
	if idle {
		t.state, t.changed = Closing, make(chan struct{}) // nobody opens it meanwhile
	}
	t.mu.Unlock()
	if !idle {
		return nil
	}
	kept, err := t.expire()
	if err == nil && len(kept) == 0 && t.db.ctx.Err() == nil {
		if gone, rerr := t.remove(); gone {
			return nil
		} else if rerr != nil {
			err = rerr
		}
	}
	if err == nil && len(kept) < s.Blocks {
		left := tenantdir.Nothing()
		left.Series, left.Blocks = s.Series, len(kept)
		for _, b := range kept {
			left.Extend(b.Meta.MinTime, b.Meta.MaxTime-1)
		}
		s = t.withFaulty(left)
		err = tenantdir.WriteSummary(t.dir, s)
	}
	t.settle(s)
	return err
}
