package store

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/indexheader"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// failure is why a block is not served, and until when it is left alone.
type failure struct {
	tenant tenant.ID // "" if it has no valid one
	err    error
	until  time.Time
}

// headerName is an index-header's file in a block's directory under Options.Dir.
const headerName = "index-header"

// Sync looks at the bucket and serves what it holds from now on. An error (kind Unavailable) means that the bucket
// could not be listed and all stays as it was. Single blocks that cannot be opened are not an error.
func (g *Gateway) Sync(ctx context.Context) error {
	g.syncMu.Lock()
	defer g.syncMu.Unlock()
	view, err := g.fetcher.Fetch(ctx)
	if err != nil {
		g.metrics.syncs.WithLabelValues("failed").Inc()
		return err
	}
	g.readIdentity(ctx)
	blocks, failed := g.load(ctx, view)
	if err := ctx.Err(); err != nil {
		g.letGo(blocks)
		return errs.E(errs.Unavailable, "store gateway: %w", err)
	}
	g.report(view, failed)
	g.swap(newSnapshot(view, blocks, failed, g.opts))
	g.sweep(view)
	g.metrics.syncs.WithLabelValues("ok").Inc()
	g.metrics.lastSync.Set(float64(g.opts.Now().UnixMilli()) / 1000)
	return nil
}

// readIdentity learns which bucket it is. Each sync asks anew: an identity that is new may still be written over.
func (g *Gateway) readIdentity(ctx context.Context) {
	if id, err := block.ReadIdentity(ctx, g.objects.bkt); err == nil {
		g.mu.Lock()
		g.bucketID = id.UUID
		g.mu.Unlock()
		g.cache.SetBucket(id.UUID)
	}
}

// load returns the blocks to serve, each with a reference for the snapshot, and those that cannot be. A block that
// turns out to be broken no longer supersedes others: then these are planned again.
func (g *Gateway) load(ctx context.Context, v block.View) ([]*bucketBlock, map[*block.Meta]failure) {
	now := g.opts.Now()
	mint, maxt := int64(math.MinInt64), int64(math.MaxInt64)
	if g.opts.Window != nil {
		mint, maxt = g.opts.Window(now)
	}
	have := map[ulid.ULID]*bucketBlock{}
	g.mu.RLock()
	if g.current != nil {
		maps.Copy(have, g.current.blocks)
	}
	g.mu.RUnlock()
	opened := map[ulid.ULID]*bucketBlock{}
	for {
		failed := map[*block.Meta]failure{}
		wanted := v.Select(block.Within(mint, maxt), block.NotMarkedBefore(now.Add(-g.opts.IgnoreDeletionMarksDelay)),
			block.NotSuperseded(func(id ulid.ULID) bool { return g.failures[id].err != nil }))
		before := len(g.failures)
		g.open(ctx, wanted, have, opened)
		if len(g.failures) > before && ctx.Err() == nil {
			continue
		}
		var out []*bucketBlock
		for _, m := range wanted {
			b := have[m.ULID]
			if b != nil {
				b.hold()
			} else if b = opened[m.ULID]; b == nil {
				failed[m] = g.failures[m.ULID]
				continue
			}
			delete(opened, m.ULID)
			out = append(out, b)
		}
		for _, b := range opened { // they were chosen at first, and are superseded since
			b.release()
		}
		return out, failed
	}
}

// open opens the wanted blocks that are in neither have nor opened, into opened or g.failures.
func (g *Gateway) open(ctx context.Context, wanted []*block.Meta, have, opened map[ulid.ULID]*bucketBlock) {
	var mu sync.Mutex // guards opened, g.failures
	var eg errgroup.Group
	eg.SetLimit(g.opts.BlockConcurrency)
	now := g.opts.Now()
	var todo []*block.Meta
	for _, m := range wanted {
		f := g.failures[m.ULID]
		if have[m.ULID] == nil && opened[m.ULID] == nil && !now.Before(f.until) {
			todo = append(todo, m)
		}
	}
	for _, m := range todo {
		eg.Go(func() error {
			b, f := g.openBlock(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			if f.err != nil {
				g.failures[m.ULID] = f
				return nil
			}
			delete(g.failures, m.ULID)
			opened[m.ULID] = b
			return nil
		})
	}
	eg.Wait()
}

// openBlock opens one block. A block with a fault of its own is left alone for a while, one that the bucket did not
// deliver only until the next sync.
func (g *Gateway) openBlock(ctx context.Context, m *block.Meta) (*bucketBlock, failure) {
	now := g.opts.Now()
	id := tenant.Default
	if name := m.Thanos.Labels[g.opts.TenantLabel]; name != "" {
		var err error
		if id, err = tenant.Parse(name); err != nil {
			return nil, failure{err: err, until: now.Add(g.opts.RetryAfter)}
		}
	}
	header, err := indexheader.Load(ctx, g.objects.bkt, m.ULID, filepath.Join(g.opts.Dir, m.ULID.String(), headerName))
	if err != nil {
		f := failure{tenant: id, err: err}
		if kind := errs.KindOf(err); kind == errs.Invalid || kind == errs.Unsupported {
			f.until = now.Add(g.opts.RetryAfter)
		}
		return nil, f
	}
	g.metrics.opened.Inc()
	return newBucketBlock(m, id, mapped{header}), failure{}
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
	g.metrics.blocks.Set(float64(len(next.blocks)))
	if last == nil {
		return
	}
	for id, b := range last.blocks {
		if next.blocks[id] == nil {
			g.metrics.dropped.Inc()
		}
		b.release()
	}
}

func (g *Gateway) letGo(blocks []*bucketBlock) {
	for _, b := range blocks {
		b.release()
	}
}

// report counts what cannot be read, and logs what is new of it and what is no longer there.
func (g *Gateway) report(v block.View, failed map[*block.Meta]failure) {
	odd := map[string]string{}
	partial := 0
	for id, err := range v.Partial {
		partial++
		if errs.KindOf(err) != errs.NotFound { // an upload or deletion under way
			odd[id.String()] = err.Error()
		}
	}
	for object, err := range v.MarkFaults {
		odd[object] = err.Error()
	}
	for m, f := range failed {
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
	g.metrics.partial.Set(float64(partial))
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
		if err := os.Remove(filepath.Join(dir, headerName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			g.log.Warn("removing the index-header of a block that is gone", "block", id, "err", err)
		}
		_ = os.Remove(dir) // fails unless it is empty: other files in it are not the gateway's
	}
}
