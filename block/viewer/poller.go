package viewer

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
)

// PollerOptions adjust a Poller.
type PollerOptions struct {
	// Refresh is how often the bucket is looked at, Timeout how long that may take. Both must be positive.
	Refresh, Timeout time.Duration
	// Fetch adjusts how.
	Fetch block.FetcherOptions
	// Filters returns which blocks are shown at a time.
	Filters func(now time.Time) []block.Filter
}

// Poller looks at a bucket again and again. It is a source for a Viewer, and safe for concurrent use.
type Poller struct {
	log     *slog.Logger
	fetcher *block.Fetcher
	opts    PollerOptions
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex // guards state
	state State
}

// NewPoller makes a poller of bkt.
func NewPoller(log *slog.Logger, bkt objstore.BucketReader, opts PollerOptions) *Poller {
	return &Poller{log: log, fetcher: block.NewFetcher(bkt, opts.Fetch), opts: opts}
}

// State is what the last look found.
func (p *Poller) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Open begins to look at the bucket. It does not wait.
func (p *Poller) Open(context.Context, func(error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.wg.Go(func() {
		for {
			wait := p.opts.Refresh
			if !p.look(ctx) {
				wait = min(wait, time.Minute)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	})
	return nil
}

// look looks at the bucket once. Only the loop calls it.
func (p *Poller) look(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	v, err := p.fetcher.Fetch(ctx)
	now := time.Now()
	p.mu.Lock()
	p.state.At, p.state.Err = now, err
	if err == nil {
		p.state.View = v
		if p.opts.Filters != nil {
			p.state.Filters = p.opts.Filters(now)
		}
	}
	p.mu.Unlock()
	if err != nil {
		p.log.Warn("the bucket cannot be listed; what was listed before is shown", "err", err)
	}
	return err == nil
}

// Close stops.
func (p *Poller) Close() error {
	if p.cancel != nil {
		p.cancel()
	}
	p.wg.Wait()
	return nil
}
