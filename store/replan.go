package store

import (
	"context"
	"errors"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

const (
	// maxPlans is how often a request is planned. Views change rarely: what fails each time is said in a warning.
	maxPlans = 3
	// resyncTimeout bounds a look at the whole bucket that a request waits for.
	resyncTimeout = 30 * time.Second
	// firstRetry is how long a block is left alone whose index the bucket did not deliver, after the first time.
	firstRetry = 10 * time.Second
	// judgeTimeout bounds the question whether the bucket answers at all.
	judgeTimeout = 2 * time.Second
)

// lost is the error of a block that is served and cannot be read. Without the block the request may find the same
// samples elsewhere: in the block that replaced it, or in those that it replaces.
type lost struct {
	error
	b *bucketBlock
	// gone says that the block is no longer in the bucket. Otherwise its index-header cannot be opened.
	gone bool
}

func (e *lost) Unwrap() error { return e.error }

// judge says what an error of reading block b is a fault of, by asking the bucket for the block's meta.json: of the
// block (then the error is a *lost, or of a kind that ofBlock takes for a fault of one block), or of the bucket.
func (g *Gateway) judge(ctx context.Context, b *bucketBlock, err error) error {
	kind := errs.KindOf(err)
	opening := errors.As(err, new(unopened))
	if err == nil || ctx.Err() != nil || !opening && kind != errs.NotFound && kind != errs.Unavailable {
		return err
	}
	if g.headers.ctx.Err() != nil { // the gateway closes: loads end because of that, not by a fault
		return err
	}
	if kind == errs.NotFound || kind == errs.Unavailable {
		ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
		defer cancel()
		switch errs.KindOf(b.meta.Look(ctx, g.bkt)) {
		case errs.NotFound:
			return &lost{errs.E(errs.NotFound, "%w", err), b, true}
		case errs.OK, errs.Invalid: // the bucket answers
			if kind == errs.Unavailable {
				err = errs.E(errs.Internal, "the bucket does not deliver it: %w", err)
			}
		default:
			return err
		}
	}
	if opening {
		return &lost{err, b, false}
	}
	return err
}

// lostOf returns the lost block that err is about, nil if there is none.
func lostOf(err error) *lost {
	var l *lost
	if errors.As(err, &l) {
		return l
	}
	return nil
}

// replan plans what is served without the lost blocks, and reports whether a request should be planned anew.
func (g *Gateway) replan(ctx context.Context, all []*lost) bool {
	g.metrics.replans.Inc()
	var gone, broken []*lost
	for _, l := range all {
		switch {
		case !g.serves(l.b):
		case l.gone:
			gone = append(gone, l)
		default:
			broken = append(broken, l)
		}
	}
	if len(gone) > 0 {
		g.resync(ctx, gone)
	}
	if len(broken) > 0 {
		g.setAside(broken)
	}
	for _, l := range all {
		if !g.serves(l.b) {
			return true
		}
	}
	return false
}

// serves reports whether b is served now. Another block of the same name does not count.
func (g *Gateway) serves(b *bucketBlock) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.current != nil && g.current.blocks[b.meta.ULID] == b
}

// resync looks at the bucket, unless a look that was under way has already found that the blocks are gone. If it
// fails all stays as it was, and the request says which blocks it could not read.
func (g *Gateway) resync(ctx context.Context, gone []*lost) {
	ctx, cancel := context.WithTimeout(ctx, resyncTimeout)
	defer cancel()
	if g.takeTurn(ctx) != nil {
		return
	}
	defer g.endTurn()
	for _, l := range gone {
		if g.serves(l.b) {
			_ = g.sync(ctx)
			return
		}
	}
}

// setAside records that blocks cannot be opened, and plans without them: what they replace is served again. Each is
// tried again later, after ever longer times.
func (g *Gateway) setAside(broken []*lost) {
	g.planMu.Lock()
	defer g.planMu.Unlock()
	now := g.opts.Now()
	for _, l := range broken {
		if !g.serves(l.b) {
			continue
		}
		f := g.failures[l.b.meta.ULID]
		f.err, f.until = l.error, now.Add(f.wait(errs.KindOf(l.error), g.opts.RetryAfter))
		f.tries++
		g.failures[l.b.meta.ULID] = f
	}
	g.plan()
}

// failure is why a block could not be opened, and until when it is left alone.
type failure struct {
	err   error
	until time.Time
	tries int
}

// wait is how long a block is left alone after an error of a kind. What is wrong with an index in the bucket stays so
// until somebody repairs it.
func (f failure) wait(kind errs.Kind, most time.Duration) time.Duration {
	if kind == errs.Invalid || kind == errs.Unsupported {
		return most
	}
	return min(firstRetry<<min(f.tries, 16), most)
}
