package tsdb

import (
	"context"
	"sync"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// arrivals records when delayed samples of a tenant arrived. It is kept in memory only: after a restart it is known
// that nothing is known of the time before.
type arrivals struct {
	mu    sync.Mutex // guards known
	known series.Arrivals
}

// add records that the oldest of some samples that arrived at time now has timestamp t, both ms. Transactions whose
// samples are not delayed take no lock.
func (a *arrivals) add(now, t int64) {
	if t > now-series.DelayedAfter.Milliseconds() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known.Add(now, t)
}

// Arrivals implements series.ArrivalSource. It never fails. A tenant that is not here had no samples since the process
// began, or since the last tenant was removed.
func (d *DB) Arrivals(_ context.Context, id tenant.ID, since int64) (series.Arrivals, error) {
	d.mu.RLock()
	t, out := d.tenants[id], series.Arrivals{Since: d.since}
	d.mu.RUnlock()
	if t != nil {
		t.arrivals.mu.Lock()
		out = t.arrivals.known
		t.arrivals.mu.Unlock()
	}
	out = out.From(since)
	out.Window = d.opts.windowOf(id)
	out.Complete = d.opts.Now().Add(-out.Window).UnixMilli() - 1
	return out, nil
}
