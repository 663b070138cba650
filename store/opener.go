package store

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// recent is how old the samples of a block may be that stays open after it was opened ahead: what people look at most.
const recent = 24 * time.Hour

// opener has the blocks that somebody asked about and whose index-headers this gateway has not opened yet. It says
// that it serves them only when it has: an owner would let go of them otherwise, and a receiver would leave.
type opener struct {
	wake chan struct{} // has an element if there is something to open

	mu     sync.Mutex // guards what follows
	wanted map[ulid.ULID]bool
	busy   bool // some that were taken from wanted are being opened
}

func newOpener() *opener { return &opener{wake: make(chan struct{}, 1), wanted: map[ulid.ULID]bool{}} }

// want asks for blocks to be opened.
func (a *opener) want(ids []ulid.ULID) {
	if len(ids) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		a.wanted[id] = true
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// take returns what is wanted; then nothing is, until somebody asks again.
func (a *opener) take() (ids []ulid.ULID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.wanted {
		ids = append(ids, id)
	}
	clear(a.wanted)
	a.busy = len(ids) > 0
	return ids
}

// idle reports whether nothing is wanted, and nothing is being opened.
func (a *opener) idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.wanted) == 0 && !a.busy
}

// openAhead opens what is wanted, until ctx ends.
func (g *Gateway) openAhead(ctx context.Context) {
	for {
		select {
		case <-g.opener.wake:
		case <-ctx.Done():
			return
		}
		for ids := g.opener.take(); len(ids) > 0 && ctx.Err() == nil; ids = g.opener.take() {
			g.openAll(ctx, ids)
		}
	}
}

// openAll opens index-headers, those of the newest samples first, with a quarter of the loads, so that requests do not
// wait for it. Headers of old samples are closed at once: they are on local disk then. A block that cannot be opened is
// set aside, as a request would do it.
func (g *Gateway) openAll(ctx context.Context, ids []ulid.ULID) {
	g.mu.RLock()
	s := g.current
	g.mu.RUnlock()
	if s == nil {
		return
	}
	ids = slices.DeleteFunc(ids, func(id ulid.ULID) bool { return s.planned[id] == nil })
	slices.SortFunc(ids, func(a, b ulid.ULID) int {
		return cmp.Or(cmp.Compare(s.planned[b].meta.MaxTime, s.planned[a].meta.MaxTime), a.Compare(b))
	})
	old := g.opts.Now().Add(-recent).UnixMilli()
	var mu sync.Mutex // guards broken
	var broken []*lost
	g.eachHeld(ctx, ids, g.opts.BlockConcurrency/4, func(b *bucketBlock) {
		_, err := b.Header(ctx)
		if l := lostOf(g.judge(ctx, b, err)); l != nil {
			mu.Lock()
			broken = append(broken, l)
			mu.Unlock()
		}
		b.release()
		if l, lazy := b.headerFile.(*lazyHeader); lazy && err == nil && b.meta.MaxTime < old {
			g.unload([]*lazyHeader{l}, func(*lazyHeader) bool { return true })
		}
	})
	if len(broken) > 0 {
		g.replan(ctx, broken)
	}
}

// unopened are those of some blocks that are served here as far as is known, and were never opened.
func (s *snapshot) unopened(ids []ulid.ULID) (out []ulid.ULID) {
	for _, id := range ids {
		if p := s.planned[id]; p != nil && p.serves() && !p.b.WasOpen() {
			out = append(out, id)
		}
	}
	return out
}
