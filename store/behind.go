package store

import (
	"context"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/series"
)

const (
	// catchUpTimeout bounds how long a request waits for a view that its caller heard of.
	catchUpTimeout = 2 * time.Second
	// catchUpPause is for how long no request waits after a look at the bucket did not bring the view. An index that
	// nobody can read must not slow down every query, and callers must not make a gateway look at its bucket all the time.
	catchUpPause = 5 * time.Second
)

// behind lets requests wait for a look at the bucket. All of them wait for the same one.
type behind struct {
	look chan struct{} // has an element if a look is wanted at once

	mu   sync.Mutex    // guards what follows
	next chan struct{} // closed by the end of the next look
	not  time.Time     // until then no request waits
}

func newBehind() *behind { return &behind{look: make(chan struct{}, 1), next: make(chan struct{})} }

// looked ends the wait of all requests.
func (b *behind) looked() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.next)
	b.next = make(chan struct{})
}

// catchUp looks at the bucket if the caller of a request has heard of a newer view than this gateway has, and waits for
// that for a bounded time.
func (g *Gateway) catchUp(ctx context.Context, heard series.View) {
	if !g.isBehind(heard) {
		return
	}
	b := g.behind
	b.mu.Lock()
	next, wait := b.next, g.opts.Now().After(b.not)
	b.mu.Unlock()
	if !wait {
		return
	}
	select {
	case b.look <- struct{}{}:
	default: // another request wants it, too
	}
	timeout := time.NewTimer(catchUpTimeout)
	defer timeout.Stop()
	select {
	case <-next:
	case <-timeout.C:
	case <-ctx.Done():
	}
	if g.isBehind(heard) {
		b.mu.Lock()
		b.not = g.opts.Now().Add(catchUpPause)
		b.mu.Unlock()
	}
}

func (g *Gateway) isBehind(heard series.View) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.current != nil && heard.Number > g.current.view.Number
}
