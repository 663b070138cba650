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
	if !first {
		g.noteHidden(g.view.Requests, view.Requests, g.opts.Now())
	}
	g.view = view
	if known && id == "" {
		found := g.lastFound().After(series.DigestOfSet(view.Metas))
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
	text := errs.Text(err)
	switch {
	case text == g.indexFault:
	case text != "":
		g.log.Warn("the bucket's index cannot be read: blocks are found by listing the bucket", "err", err)
	default:
		g.log.Info("the bucket's index can be read again")
	}
	g.indexFault = text
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

// sweep removes index-headers of blocks that the bucket no longer has, or that operators asked to delete. A mapping
// that is still in use outlives its file.
func (g *Gateway) sweep(v block.View) {
	now := g.opts.Now()
	entries, err := os.ReadDir(g.opts.Dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			g.log.Warn("reading the data directory", "dir", g.opts.Dir, "err", err)
		}
		return
	}
	for _, e := range entries {
		id, ok := block.ParseID(e.Name())
		if m := v.Metas[id]; !ok || m != nil && v.TakenBy(m, g.opts.TenantLabel, now) == nil {
			continue
		}
		dir := filepath.Join(g.opts.Dir, e.Name())
		if err := os.Remove(filepath.Join(dir, block.IndexHeaderName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			g.log.Warn("removing the index-header of a block that is gone", "block", id, "err", err)
		}
		_ = os.Remove(dir) // fails unless it is empty: other files in it are not the gateway's
	}
}
