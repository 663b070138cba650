package tsdb

// A head panics when it cannot write a chunk to disk. A panic in the middle of a commit leaves a series locked for
// good: whoever touches that series hangs, and so does the closing of the TSDB. docs/design/006-stuck-heads.md says
// how the tenant comes back.

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// abandonedHeads counts heads that are stuck. Their memory and their files cannot be freed before the process ends.
type abandonedHeads struct{ heads, series int64 }

// maxAbandoned bounds what all tenants may abandon together, without the first head of each. One tenant may take half
// of it.
var maxAbandoned = abandonedHeads{heads: 50, series: 1_000_000}

// mayAbandon reports whether a tenant that has abandoned own may abandon one more head with this number of series,
// when all tenants have abandoned all. The first head of a tenant is always allowed, so that no tenant can be kept
// from coming back by others.
func mayAbandon(own, all abandonedHeads, series int64) bool {
	return own.heads == 0 ||
		own.heads < maxAbandoned.heads/2 && own.series+series <= maxAbandoned.series/2 &&
			all.heads < maxAbandoned.heads && all.series+series <= maxAbandoned.series
}

// isStuck reports whether a series of the head is locked for good.
func (in *instance) isStuck() bool { return in.stuck.Load() }

// setStuck records that the head is stuck after the panic p. The caller holds in.fence. No transaction begins
// afterwards, so only maintenance may still write to the instance's files.
func (in *instance) setStuck(p any) error {
	in.log.Error("panic in a commit, the tenant is abandoned and opened again", "panic", p, "stack", string(debug.Stack()))
	in.failLog(errs.E(errs.Internal, "panic: %v", p))
	in.stuck.Store(true)
	return in.logError()
}

// abandon leaves a TSDB that is stuck as it is, and opens the tenant anew from its logs.
func (t *tenantDB) abandon() {
	t.mu.Lock()
	in := t.in
	t.mu.Unlock()
	if in == nil || !in.isStuck() {
		return
	}
	in.stop()
	if in.maintaining.Load() > 0 {
		return // it may still write to the files; the scheduler tries again
	}
	series := int64(in.db.Head().NumSeries())
	if !t.countAbandoned(series) {
		t.mu.Lock()
		early := t.db.opts.Now().Before(t.retryAt)
		t.mu.Unlock()
		if early {
			return
		}
		t.db.log.Error("tenant hangs, and too much memory is lost to such heads already: restart this process",
			"tenant", t.id, "series", series)
		t.retryLater(time.Minute)
		return
	}
	t.db.log.Warn("tenant hangs, its memory is lost until this process is restarted", "tenant", t.id, "series", series)
	t.db.m.abandoned.Inc()
	in.reg.unregister()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.suspect, t.summary, t.in = true, tenantdir.Anything(), nil
	t.startOpening(false)
}

// countAbandoned counts one more abandoned head if the bounds allow it.
func (t *tenantDB) countAbandoned(series int64) bool {
	t.db.abandonedMu.Lock()
	defer t.db.abandonedMu.Unlock()
	all := &t.db.abandoned
	if !mayAbandon(t.abandoned, *all, series) {
		return false
	}
	if t.abandoned.heads > 0 {
		all.heads++
		all.series += series
	}
	t.abandoned.heads++
	t.abandoned.series += series
	return true
}

// probe finds out whether chunks can be written to dir. A replay that cannot write them would take the whole process
// down, so it must not begin before.
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
