package tsdb

// A head panics when it cannot write a chunk to disk, and a panic in a commit leaves a series locked for good: whoever
// touches it hangs, also the closing of the TSDB. docs/design/006-stuck-heads.md says how a tenant comes back.

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

const (
	// settleTime is how long commits that are in the WAL may take to get through. What takes longer hangs.
	settleTime = 5 * time.Second
	// An abandoned head cannot be freed: as many series, and as many heads with their files, may be left behind.
	maxAbandonedSeries, maxAbandoned = 1_000_000, 50
)

// wedge is whether an instance hangs, and who may still write its files. The zero value needs shut to be made.
type wedge struct {
	shut  chan struct{} // closed when it hangs
	since atomic.Int64  // ms, 0 = it does not

	unlogged    atomic.Int64 // commits and rollbacks that are not through with the WAL
	committing  atomic.Int64 // commits that have not returned
	maintaining atomic.Int64 // cuts and the like
}

func (w *wedge) wedged() bool { return w.since.Load() != 0 }

// stuck records that the instance hangs, which the panic p says.
func (in *instance) stuck(p any) error {
	in.log.Error("panic in a write, the tenant is abandoned and opened again", "panic", p, "stack", string(debug.Stack()))
	in.failLog(errs.E(errs.Internal, "panic: %v", p))
	if in.wedge.since.CompareAndSwap(0, max(in.opts.Now().UnixMilli(), 1)) {
		close(in.wedge.shut)
	}
	return in.logError()
}

// enter lets a transaction write to the logs: false when the instance hangs. Then it must not, not even to roll back.
func (w *wedge) enter() bool {
	w.committing.Add(1)
	w.unlogged.Add(1)
	if !w.wedged() {
		return true
	}
	w.unlogged.Add(-1)
	w.committing.Add(-1)
	return false
}

// leave ends what enter began; logged says that Notify was called.
func (w *wedge) leave(logged bool) {
	if !logged {
		w.unlogged.Add(-1)
	}
	w.committing.Add(-1)
}

// Notify is called by the TSDB on each commit, after it has written the WAL.
func (w *wedge) Notify() { w.unlogged.Add(-1) }

// fenced reports whether nothing will write to the instance's files any more: commits have either returned, or are past
// the WAL and hang. The first must be given time.
func (w *wedge) fenced(now time.Time) bool {
	if w.unlogged.Load() != 0 || w.maintaining.Load() != 0 {
		return false
	}
	return w.committing.Load() == 0 || now.UnixMilli()-w.since.Load() >= settleTime.Milliseconds()
}

// abandon leaves a TSDB that hangs as it is, and opens the tenant anew from its logs.
func (t *tenantDB) abandon() {
	t.mu.Lock()
	in := t.in
	t.mu.Unlock()
	if in == nil || !in.wedge.wedged() {
		return
	}
	in.stop()
	if !in.wedge.fenced(t.db.opts.Now()) {
		return // the next look tries again
	}
	series := int64(in.db.Head().NumSeries())
	if left, heads := t.db.abandonedSeries.Add(series), t.db.abandoned.Add(1); left > maxAbandonedSeries && heads > 1 || heads > maxAbandoned {
		t.db.abandonedSeries.Add(-series)
		t.db.abandoned.Add(-1)
		t.mu.Lock()
		early := t.db.opts.Now().Before(t.retryAt)
		t.mu.Unlock()
		if early {
			return
		}
		t.db.log.Error("tenant hangs, and too much memory is lost to such tenants already: restart this process", "tenant", t.id)
		t.retryLater(time.Minute)
		return
	}
	t.db.log.Warn("tenant hangs, its memory is lost until this process is restarted", "tenant", t.id, "series", series)
	t.db.m.abandoned.Inc()
	in.reg.unregister()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.suspect, t.summary, t.in = true, everything, nil
	t.startOpening(false)
}

// probe finds out whether chunks can be written to dir, before a replay tries: a TSDB that cannot takes the process down.
func probe(dir string) (err error) {
	chunks := filepath.Join(dir, "chunks_head")
	if err := os.MkdirAll(chunks, 0o777); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(chunks, "probe.tmp"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<17)); err != nil {
		return err
	}
	return f.Sync()
}
