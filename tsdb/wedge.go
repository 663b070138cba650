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
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// lost is abandoned heads, which cannot be freed before the process ends: their memory, and their files.
type lost struct{ heads, series int64 }

// maxLost bounds what all tenants lose together, beyond the first head of each. One tenant may lose half of it.
var maxLost = lost{heads: 50, series: 1_000_000}

// mayLose reports whether a tenant that has lost own may lose one more head of so many series, when all together have
// lost all. The first head of a tenant is always free: no other tenant can use it up.
func mayLose(own, all lost, series int64) bool {
	return own.heads == 0 ||
		own.heads < maxLost.heads/2 && own.series+series <= maxLost.series/2 &&
			all.heads < maxLost.heads && all.series+series <= maxLost.series
}

// wedge is whether an instance hangs, and what may still write its files. Transactions come one at a time, and none
// begins after a panic, so that only maintenance can be under way besides.
type wedge struct {
	hangs       atomic.Bool
	maintaining atomic.Int64 // cuts and the like
}

func (w *wedge) wedged() bool { return w.hangs.Load() }

// fenced reports whether nothing will write to the instance's files any more.
func (w *wedge) fenced() bool { return w.maintaining.Load() == 0 }

// stuck records that the instance hangs, which the panic p says. The caller holds in.fence.
func (in *instance) stuck(p any) error {
	in.log.Error("panic in a commit, the tenant is abandoned and opened again", "panic", p, "stack", string(debug.Stack()))
	in.failLog(errs.E(errs.Internal, "panic: %v", p))
	in.wedge.hangs.Store(true)
	return in.logError()
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
	if !in.wedge.fenced() {
		return // the next look tries again
	}
	series := int64(in.db.Head().NumSeries())
	if !t.lose(series) {
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

// lose counts one more lost head if the bounds allow it.
func (t *tenantDB) lose(series int64) bool {
	t.db.lostMu.Lock()
	defer t.db.lostMu.Unlock()
	all := &t.db.lost
	if !mayLose(t.lost, *all, series) {
		return false
	}
	if t.lost.heads > 0 {
		all.heads++
		all.series += series
	}
	t.lost.heads++
	t.lost.series += series
	return true
}

// probe finds out whether chunks can be written to dir, before a replay tries: a TSDB that cannot takes the process
// down.
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
