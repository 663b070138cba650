package store

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/memory"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/store/cache"
)

// Gateway serves the blocks of a bucket. It is a series.Source and a series.Streamer.
type Gateway struct {
	log     *slog.Logger
	opts    Options
	metrics *metrics
	bkt     objstore.BucketReader // without any cache, and not watched
	objects *objects
	cache   *cache.Cache
	headers *headers
	budget  *budget
	fetcher *block.Fetcher
	behind  *behind
	opener  *opener

	turn chan struct{} // has an element while the bucket is looked at; who put it there has what follows, and fetcher

	arrivals arrivals

	// found are the contents of view, if the bucket has no id; nil before the first look. Only a sync sets it, which holds
	// planMu.
	found atomic.Pointer[series.Contents]
	// lookedAt is when the bucket was listed last; nil = not yet.
	lookedAt atomic.Pointer[time.Time]

	indexFault string // the last logged reason why the bucket's index cannot be read
	// unshared logs once why a shared cache is not used.
	unshared sync.Once

	planMu   sync.Mutex // guards what follows, and lets only its holder replace current
	view     block.View // the last one; without Metas before the first
	settling *settling  // nil once the ring is known
	owners   owners
	handover *handover
	drawn    *drawn // what current is made of; nil without one
	failures map[ulid.ULID]failure
	oddities map[string]string // the last logged text for each directory and mark that cannot be read

	mu      sync.RWMutex // guards what follows, and keeps blocks of current from being released while they are held
	current *snapshot    // nil until the first sync
	fault   error        // of the last sync that failed
	closed  bool

	cancel  context.CancelFunc
	wg      sync.WaitGroup     // the sync loop
	unshare context.CancelFunc // ends following
	follows sync.WaitGroup     // the loops that follow the ring
	viewed  chan struct{}      // closed when the bucket was looked at
	synced  chan struct{}      // closed when there is a snapshot
	// reopened is closed when the index-headers that were in use before are open again.
	reopened chan struct{}
}

var (
	_ series.Source   = (*Gateway)(nil)
	_ series.Streamer = (*Gateway)(nil)
)

// New makes a gateway of bkt, which stays the caller's. reg may be nil.
func New(log *slog.Logger, reg prometheus.Registerer, bkt objstore.BucketReader, opts Options) (*Gateway, error) {
	if err := opts.Validate(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.BucketID == nil {
		opts.BucketID = func() (string, bool) { return "", true }
	}
	if opts.Memory == nil {
		opts.Memory = memory.NewBudget(reg, "of the store gateway", 2<<30)
	}
	m := newMetrics(reg, opts.SeriesMaxConcurrency)
	kept := cache.New(opts.Cache, reg)
	reads := &objects{bkt: watched{bkt, opts.ReadTimeout}, cache: kept, metrics: m, hedges: newHedger(m)}
	g := &Gateway{
		log: log, opts: opts, metrics: m, bkt: bkt, cache: kept,
		objects: reads,
		headers: newHeaders(reads, opts, m),
		budget:  newBudget(opts, m),
		fetcher: block.NewFetcher(bkt, block.FetcherOptions{
			CacheDir: filepath.Join(opts.Dir, "meta-syncer"), MaxIndexAge: opts.IgnoreDeletionMarksDelay / 2, Now: opts.Now,
			Mimir: opts.Mimir, TenantLabel: opts.TenantLabel,
		}),
		turn:     make(chan struct{}, 1),
		failures: map[ulid.ULID]failure{},
		oddities: map[string]string{},
		viewed:   make(chan struct{}),
		synced:   make(chan struct{}),
		reopened: make(chan struct{}),
		handover: newHandover(opts.Now()),
		behind:   newBehind(),
		opener:   newOpener(),
	}
	if opts.Sharing != nil {
		g.settling = &settling{}
	}
	return g, nil
}

// Open starts to look at the bucket, and waits for the first look, and for the index-headers that were in use before,
// at most Options.StartTimeout. fail is never called: a bucket that does not answer makes the gateway unready, not
// dead.
func (g *Gateway) Open(ctx context.Context, _ func(error)) error {
	loop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g.cancel = cancel
	g.wg.Go(func() { g.run(loop) })
	g.wg.Go(func() { g.tend(loop) })
	g.wg.Go(func() { g.openAhead(loop) })
	timeout := time.After(g.opts.StartTimeout)
	wanted := []chan struct{}{g.viewed, g.synced, g.reopened}
	if g.opts.Sharing != nil { // the ring opens later
		wanted = wanted[:1]
	}
	for _, begun := range wanted {
		select {
		case <-begun:
		case <-timeout:
			g.log.Warn("starting before the bucket was seen, or before the index-headers that were in use are open")
			return nil
		case <-ctx.Done():
			return errs.E(errs.Unavailable, "store gateway: %w", ctx.Err())
		}
	}
	return nil
}

// Close stops syncing and lets the blocks go; requests that are open keep theirs. It is idempotent.
func (g *Gateway) Close() error {
	if g.cancel != nil {
		g.cancel()
	}
	g.wg.Wait()
	g.headers.close()
	g.planMu.Lock()
	defer g.planMu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.current != nil {
		for _, b := range g.current.blocks {
			b.release()
		}
		g.current = nil
	}
	return nil
}

// run syncs until ctx ends. A failed sync is tried again soon, later ones ever more slowly.
func (g *Gateway) run(ctx context.Context) {
	const soonest = time.Second
	retry := soonest
	healthy := true
	for {
		wait := g.opts.SyncInterval
		err := g.Sync(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			g.mu.Lock()
			g.fault = err
			g.mu.Unlock()
			if healthy {
				g.log.Error("looking at the bucket", "err", err)
			}
			healthy, wait, retry = false, min(retry, wait), retry*2
		default:
			if !healthy {
				g.log.Info("the bucket answers again")
			}
			healthy, retry = true, soonest
		}
		wait += time.Duration(rand.Int64N(int64(wait)/10 + 1))
		g.behind.looked()
		select {
		case <-time.After(wait):
		case <-g.behind.look:
		case <-ctx.Done():
			return
		}
	}
}

// Ready is nil once the bucket was seen whole; until then it is Unavailable.
func (g *Gateway) Ready() error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	switch {
	case g.current != nil:
		return nil
	case g.fault != nil:
		return errs.E(errs.Unavailable, "store gateway: the bucket's blocks are not loaded: %w", g.fault)
	}
	return errs.E(errs.Unavailable, "store gateway: the bucket's blocks are not loaded yet")
}

// Info implements series.Source. Before the first sync it is Unavailable: what the gateway holds is not known.
func (g *Gateway) Info(context.Context) (series.Info, error) {
	if err := g.Ready(); err != nil {
		return series.Info{}, err
	}
	g.identify()
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.current == nil {
		return series.Info{}, errs.E(errs.Unavailable, "store gateway: closed")
	}
	info := g.current.info
	info.Tenants, info.Labels = slices.Clone(info.Tenants), slices.Clone(info.Labels)
	info.Blocks = g.holding()
	w := g.window(g.current).and(span{info.MinTime, info.MaxTime})
	info.MinTime, info.MaxTime = w.mint, w.maxt
	return info, nil
}

// Streams implements series.Streamer: one stream per set of external labels.
func (g *Gateway) Streams(id tenant.ID) []series.Stream {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.current == nil || g.current.tenants[id] == nil {
		return nil
	}
	var out []series.Stream
	for _, st := range g.current.tenants[id].streams {
		out = append(out, series.Stream{External: st.external, Source: &streamSource{g, st.external}})
	}
	return out
}

// External returns the external label sets of tenant id's streams, as Thanos shows them, in order.
func (g *Gateway) External(id tenant.ID) []labels.Labels {
	var out []labels.Labels
	for _, st := range g.Streams(id) {
		out = append(out, st.External)
	}
	return out
}

// BlockStatus is one block of the view that is served here or cannot be, for people.
type BlockStatus struct {
	ID               ulid.ULID
	Tenant           tenant.ID
	External         labels.Labels
	MinTime, MaxTime int64 // ms, MaxTime excluded
	Resolution       int64 // ms
	Error            string
	// Owners are the gateways that own the block, by instance id; nil = this one is alone. Kept says that it is served
	// here only until others serve its samples.
	Owners []string
	Kept   bool
}

// Status lists the blocks that are served, and those that cannot be, with the error, ordered by id.
func (g *Gateway) Status() []BlockStatus {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.current == nil {
		return nil
	}
	var out []BlockStatus
	for _, p := range g.current.planned {
		if p.place == elsewhere {
			continue
		}
		st := BlockStatus{ID: p.meta.ULID, Tenant: p.tenant, External: p.external(), MinTime: p.meta.MinTime,
			MaxTime: p.meta.MaxTime, Resolution: p.resolution(), Kept: p.place == kept || !p.needed()}
		if p.fault != nil {
			st.Error = p.fault.Error()
		}
		if !g.current.owners.alone() {
			st.Owners = g.current.owners.of(st.ID)
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b BlockStatus) int { return a.ID.Compare(b.ID) })
	return out
}
