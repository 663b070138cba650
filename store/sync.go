package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Sync looks at the bucket and serves what it holds from now on. Of the blocks themselves nothing is read. An error
// (kind Unavailable) means that the bucket could not be listed and all stays as it was.
func (g *Gateway) Sync(ctx context.Context) error {
	if err := g.takeTurn(ctx); err != nil {
		return err
	}
	defer g.endTurn()
	return g.sync(ctx)
}

// takeTurn waits until no other look at the bucket is under way. The error is that of ctx.
func (g *Gateway) takeTurn(ctx context.Context) error {
	select {
	case g.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errs.E(errs.Unavailable, "store gateway: %w", context.Cause(ctx))
	}
}

func (g *Gateway) endTurn() { <-g.turn }

// sync is Sync. The caller has the turn.
func (g *Gateway) sync(ctx context.Context) error {
	began := time.Now()
	view, err := g.fetcher.Fetch(ctx)
	took := time.Since(began)
	if err != nil {
		g.metrics.looked(view, err, took)
		return err
	}
	g.tellIndexFault(view.IndexFault)
	id, known := g.identify()
	g.planMu.Lock()
	first := g.view.Metas == nil
	g.view = view
	if known && id == "" {
		g.contents = g.contents.After(series.DigestOfSet(view.Metas))
		found := g.contents
		g.found.Store(&found)
	}
	g.plan()
	g.planMu.Unlock()
	if first {
		close(g.viewed)
	}
	g.sweep(view)
	g.metrics.looked(view, nil, took)
	synced := g.opts.Now()
	g.lookedAt.Store(&synced)
	g.metrics.lastSync.Set(float64(synced.UnixMilli()) / 1000)
	return nil
}

// tellIndexFault logs each reason once why the bucket's index cannot be read. All blocks are found without it. The
// caller has the turn.
func (g *Gateway) tellIndexFault(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == g.indexFault:
	case text != "":
		g.log.Warn("the bucket's index cannot be read: blocks are found by listing the bucket", "err", err)
	default:
		g.log.Info("the bucket's index can be read again")
	}
	g.indexFault = text
}

// plan makes the snapshot that requests use from now on, of the view and the ring. It reads nothing, so that a request
// can wait for it. The caller holds planMu.
func (g *Gateway) plan() {
	if g.settling != nil || g.view.Metas == nil { // the ring or the bucket is not known yet
		return
	}
	l := g.layOut(g.opts.Now())
	g.report(l.failed)
	g.swap(newSnapshot(l, g.opts))
}

// failed is a block that should be served and is not.
type failed struct {
	tenant tenant.ID // "" if it has no valid one
	err    error
}

// broken says why a block cannot be served; its err is nil if it can be, as far as is known.
func (g *Gateway) broken(m *block.Meta, now time.Time) failed {
	id, err := g.tenantOf(m)
	if err != nil {
		return failed{err: err}
	}
	if f := g.failures[m.ULID]; now.Before(f.until) {
		return failed{id, f.err}
	}
	return failed{tenant: id}
}

func (g *Gateway) tenantOf(m *block.Meta) (tenant.ID, error) {
	if name := m.Thanos.Labels[g.opts.TenantLabel]; name != "" {
		return tenant.Parse(name)
	}
	return tenant.Default, nil
}

// blockOf returns the block of m with a reference for the next snapshot: the one that is served already, or a new one.
// Only swap changes which are served, under planMu.
func (g *Gateway) blockOf(m *block.Meta, now time.Time) (*bucketBlock, failed) {
	f := g.broken(m, now)
	if f.err != nil {
		return nil, f
	}
	if g.current != nil {
		if b := g.current.blocks[m.ULID]; b != nil {
			b.hold()
			return b, f
		}
	}
	return newBucketBlock(m, f.tenant, g.headers.of(m)), f
}

// swap makes next current and lets the blocks of the last one go, which next may hold too.
func (g *Gateway) swap(next *snapshot) {
	g.mu.Lock()
	last := g.current
	if g.closed {
		g.mu.Unlock()
		for _, b := range next.blocks {
			b.release()
		}
		return
	}
	g.current = next
	if last == nil {
		close(g.synced)
	}
	g.mu.Unlock()
	g.metrics.count(next)
	g.metrics.thanos.swapped(last, next, g.opts.Now())
	if last == nil {
		return
	}
	g.opener.want(next.arrived(last))
	for id, b := range last.blocks {
		if p := next.planned[id]; last.planned[id].serves() && (p == nil || !p.serves()) {
			g.metrics.dropped.Inc()
		}
		b.release()
	}
}

// report counts what cannot be read, and logs what is new of it and what is no longer there.
func (g *Gateway) report(failed map[*block.Meta]failed) {
	v, odd := g.view, map[string]string{}
	for id, err := range v.Partial {
		if errs.KindOf(err) != errs.NotFound { // an upload or deletion under way
			odd[id.String()] = err.Error()
		}
	}
	for object, err := range v.MarkFaults {
		odd[object] = err.Error()
	}
	for m, f := range failed {
		if g.oddities[m.ULID.String()] == "" {
			g.metrics.thanos.failed()
		}
		odd[m.ULID.String()] = f.err.Error()
	}
	for what, text := range odd {
		if g.oddities[what] != text {
			g.log.Error("block is not served", "block", what, "err", text)
		}
	}
	for what := range g.oddities {
		if _, still := odd[what]; !still {
			g.log.Info("block is no longer in the way", "block", what)
		}
	}
	g.oddities = odd
	for id := range g.failures {
		if v.Metas[id] == nil {
			delete(g.failures, id)
		}
	}
	g.metrics.partial.Set(float64(len(v.Partial)))
	g.metrics.quarantined.Set(float64(len(failed)))
}

// sweep removes index-headers of blocks that the bucket no longer has. A mapping that is still in use outlives its
// file.
func (g *Gateway) sweep(v block.View) {
	entries, err := os.ReadDir(g.opts.Dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			g.log.Warn("reading the data directory", "dir", g.opts.Dir, "err", err)
		}
		return
	}
	for _, e := range entries {
		id, ok := block.ParseID(e.Name())
		if !ok || v.Metas[id] != nil {
			continue
		}
		dir := filepath.Join(g.opts.Dir, e.Name())
		if err := os.Remove(filepath.Join(dir, block.IndexHeaderName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			g.log.Warn("removing the index-header of a block that is gone", "block", id, "err", err)
		}
		_ = os.Remove(dir) // fails unless it is empty: other files in it are not the gateway's
	}
}
