package store

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/block/indexheader"
)

// usesName is the file under Options.Dir that lists the blocks whose index-headers are open, so that a gateway that
// starts again opens them before somebody waits for them (docs/format/bucket.md).
const usesName = "headers-in-use"

// tendEvery is how often idle index-headers are closed, and the list of open ones is written.
const tendEvery = time.Minute

// uses lists the open index-headers, the last used first.
func (h *headers) uses() (all []indexheader.Use) {
	for _, l := range h.opened() {
		all = append(all, indexheader.Use{ID: l.meta.ULID, At: l.lastUse().UnixMilli()})
	}
	slices.SortFunc(all, func(a, b indexheader.Use) int {
		return cmp.Or(cmp.Compare(b.At, a.At), a.ID.Compare(b.ID))
	})
	return all
}

// saveUses writes the list. Without it a gateway only starts with nothing open.
func (g *Gateway) saveUses() {
	if err := indexheader.WriteUses(filepath.Join(g.opts.Dir, usesName), g.headers.uses()); err != nil {
		g.log.Warn("list of open index-headers not written", "err", err)
	}
}

// reopen opens the index-headers that were open when the list was written, the last used first. It leaves half of the
// loads to requests. A block that cannot be opened is left to the request that needs it.
func (g *Gateway) reopen(ctx context.Context) {
	all, err := indexheader.ReadUses(filepath.Join(g.opts.Dir, usesName))
	if err != nil {
		g.log.Warn("list of open index-headers not read", "err", err)
	}
	ids := make([]ulid.ULID, 0, len(all))
	for _, u := range all {
		ids = append(ids, u.ID)
	}
	g.eachHeld(ctx, ids, g.opts.BlockConcurrency/2, func(b *bucketBlock) {
		defer b.release()
		_, _ = b.Header(ctx)
	})
}

// eachHeld calls f with each block among ids that is served when its turn comes, atOnce at a time, until ctx ends. f
// releases the block.
func (g *Gateway) eachHeld(ctx context.Context, ids []ulid.ULID, atOnce int, f func(*bucketBlock)) {
	var eg errgroup.Group
	eg.SetLimit(max(atOnce, 1))
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		if b := g.held(id); b != nil {
			eg.Go(func() error {
				f(b)
				return nil
			})
		}
	}
	eg.Wait()
}

// held returns the served block of a name with a reference, nil if there is none.
func (g *Gateway) held(id ulid.ULID) *bucketBlock {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.current == nil {
		return nil
	}
	b := g.current.blocks[id]
	if b != nil {
		b.hold()
	}
	return b
}

// tend opens what was open before, once the blocks are known. Then it closes idle index-headers and keeps the list of
// open ones, until ctx ends.
func (g *Gateway) tend(ctx context.Context) {
	select {
	case <-g.synced:
	case <-ctx.Done():
		return // the list stays as it was
	}
	g.reopen(ctx)
	close(g.reopened)
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if idle := g.opts.HeaderIdleTimeout; idle > 0 {
				g.unloadIdle(g.opts.Now().Add(-idle))
			}
		case <-ctx.Done():
			g.saveUses()
			return
		}
		g.saveUses()
	}
}
