package tsdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
)

// readerPatience is how long a cut waits for readers before its caller gets an error. The TSDB itself goes on
// waiting, without a bound, and holds nothing that another tenant needs.
const readerPatience = 30 * time.Second

// readers are the reads of one instance that are open. The zero value is ready.
type readers struct {
	mu   sync.Mutex // guards open
	open map[*reading]struct{}
}

// reading is an open read.
type reading struct {
	caller string // "" = this process
	since  time.Time
}

// begin adds a read until end is called.
func (r *readers) begin(ctx context.Context) (end func()) {
	one := &reading{series.Caller(ctx), time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = map[*reading]struct{}{}
	}
	r.open[one] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, one)
	}
}

// before names the reads that began at or before t, the oldest first; "" when there is none.
func (r *readers) before(t time.Time) string {
	const few = 3
	r.mu.Lock()
	var old []*reading
	for one := range r.open {
		if !one.since.After(t) {
			old = append(old, one)
		}
	}
	r.mu.Unlock()
	if len(old) == 0 {
		return ""
	}
	slices.SortFunc(old, func(a, b *reading) int { return a.since.Compare(b.since) })
	var parts []string
	for _, one := range old[:min(len(old), few)] {
		who := one.caller
		if who == "" {
			who = "this process"
		}
		parts = append(parts, fmt.Sprintf("one by %s since %s", who, one.since.UTC().Format(time.RFC3339)))
	}
	if n := len(old) - few; n > 0 {
		parts = append(parts, fmt.Sprintf("%d more", n))
	}
	return strings.Join(parts, ", ")
}

// cutWait says what a cut waits for: for the writes under way or, when its block is written, for readers of what it
// drops. Nothing says when these readers have ended: what the TSDB does afterwards counts as waiting, too.
type cutWait struct {
	writes bool // for writes, not for readers
	since  time.Time
}

// await returns when the cut is done, when ctx ends, or when the cut has waited for others for longer than patience.
// In the last case the cut goes on by itself, until the block that it is at is done.
func (in *instance) await(ctx context.Context, done <-chan error, patience time.Duration) error {
	tick := time.NewTicker(min(patience, time.Second))
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			if old := in.reads.before(time.Now().Add(-patience)); old != "" {
				return errs.E(errs.Unavailable, "cut of tenant %q: %w; reads that are open: %s", in.id, ctx.Err(), old)
			}
			return errs.E(errs.Unavailable, "cut of tenant %q: %w", in.id, ctx.Err())
		case now := <-tick.C:
			w := in.waits.Load()
			if w == nil || now.Sub(w.since) < patience {
				continue
			}
			if w.writes {
				err := errs.E(errs.Unavailable, "cut of tenant %q waits for writes under way to end", in.id)
				return errs.WithRetryAfter(err, patience)
			}
			if old := in.reads.before(now.Add(-patience)); old != "" {
				err := errs.E(errs.Unavailable, "cut of tenant %q waits for reads to end: %s", in.id, old)
				return errs.WithRetryAfter(err, patience)
			}
		}
	}
}
