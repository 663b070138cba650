package compact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Compactor works on the blocks of a bucket.
type Compactor struct {
	log     *slog.Logger
	bkt     objstore.Bucket
	quietly objstore.BucketReader // bkt, for objects that need not be there
	opts    Options
	metrics *metrics
	board   board

	fetching sync.Mutex // held while the bucket is looked at
	fetcher  *block.Fetcher
	checked  bool // that it has Thanos's layout
	last     atomic.Pointer[look]
	looked   chan struct{} // closed with the first look
	lookOnce sync.Once
	changes  atomic.Int64 // how many jobs, marks and deletions there were
	seen     int64        // changes before the last look; guarded by fetching

	acting  sync.Mutex // guards what follows; held while it is found out whether blocks may be marked and deleted
	clock   clock
	foreign foreign

	partials map[ulid.ULID]*partial  // of the loop that deletes alone
	doneAt   map[ulid.ULID]time.Time // so too
	keeping  keeping                 // of the loop that marks alone
	failures failures
	erasing  erasing

	segmentSize int64 // of blocks that are made, in bytes; 0 = the usual one. Tests change it

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// look is what the bucket had at one time.
type look struct {
	view block.View
	// live are the blocks that this process is to work on and that are not marked for deletion.
	live []*block.Meta
	// doomed are those that operators asked to delete, and that are not marked. live has none of them.
	doomed []*block.Meta
	at     time.Time
}

// New makes a Compactor of bkt. It reads and writes nothing.
func New(log *slog.Logger, reg prometheus.Registerer, bkt objstore.Bucket, opts Options) (*Compactor, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	c := &Compactor{
		log: log.With("component", "compact"), bkt: bkt, quietly: block.ExpectMissing(bkt), opts: opts,
		metrics: newMetrics(reg, opts), looked: make(chan struct{}),
		fetcher:  block.NewFetcher(bkt, block.FetcherOptions{CacheDir: opts.Dir, Now: opts.Now}),
		partials: map[ulid.ULID]*partial{}, doneAt: map[ulid.ULID]time.Time{},
	}
	c.keeping.doomed = map[ulid.ULID]bool{}
	c.failures.known = map[ulid.ULID]*failure{}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// jobsDir is where jobs keep what they need.
func (c *Compactor) jobsDir() string { return filepath.Join(c.opts.Dir, "jobs") }

// prepare removes what jobs of an earlier process left.
func (c *Compactor) prepare() error {
	if err := os.RemoveAll(c.jobsDir()); err != nil {
		return fmt.Errorf("remove what earlier jobs left: %w", err)
	}
	return os.MkdirAll(c.jobsDir(), 0o777)
}

// Open starts the loops.
func (c *Compactor) Open(context.Context, func(error)) error {
	if err := c.prepare(); err != nil {
		return err
	}
	c.wg.Go(func() { c.every(c.opts.Interval, "look", func(ctx context.Context) error { return c.look(ctx) }) })
	c.loop("clean", c.opts.CleanInterval, c.clean)
	c.loop("keep", c.opts.CleanInterval, c.keep)
	if !c.opts.Jobs.Off {
		c.loop("jobs", c.opts.Interval, c.runJobs)
	}
	if c.opts.ProgressInterval > 0 {
		c.loop("progress", c.opts.ProgressInterval, c.progress)
	}
	return nil
}

// Close stops the loops and waits. A job that runs is broken off; it is done again later.
func (c *Compactor) Close() error {
	c.cancel()
	c.wg.Wait()
	return nil
}

// Ready says what was wrong with the last look at the bucket. The compactor needs nothing else to work.
func (c *Compactor) Ready() error { return c.board.fault("look") }

// step is a pass of Once.
type step struct {
	name string
	do   func(context.Context, *look) error
}

// Once does all that there is to do, and returns. The error joins what could not be done.
func (c *Compactor) Once(ctx context.Context) error {
	passes := []step{{"clean", c.clean}}
	if !c.opts.Jobs.Off {
		passes = append(passes, step{"jobs", c.runJobs}) // it ends with a look
	}
	return c.once(ctx, append(passes, step{"keep", c.keep}, step{"clean", c.clean},
		step{"look", c.lookAgain}))
}

// RunJobs does all jobs that there are, and returns. Nothing is deleted, and only inputs that outputs replace are
// marked. It is for a process that does this once, so it removes its heartbeat at the end. The error also says what is
// left undone since it failed before.
func (c *Compactor) RunJobs(ctx context.Context) error {
	err := c.once(ctx, []step{{"jobs", c.runJobs}})
	if n := c.board.waiting(); err == nil && n > 0 {
		err = errs.E(errs.Conflict, "%d jobs are left, which failed before and are tried again later", n)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	return errors.Join(err, c.removeRecord(ctx, c.heartbeatName()))
}

// once makes passes one after another, over the last look at the bucket.
func (c *Compactor) once(ctx context.Context, passes []step) error {
	if err := c.prepare(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	if err := c.look(ctx); err != nil {
		return err
	}
	var faults []error
	for _, p := range passes {
		if ctx.Err() != nil {
			break
		}
		if err := c.pass(ctx, p.name, func(ctx context.Context) error { return p.do(ctx, c.last.Load()) }); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return errors.Join(append(faults, ctx.Err())...)
}

// loop runs pass over the last look, from the first look on.
func (c *Compactor) loop(name string, interval time.Duration, pass func(context.Context, *look) error) {
	c.wg.Go(func() {
		select {
		case <-c.looked:
		case <-c.ctx.Done():
			return
		}
		c.every(interval, name, func(ctx context.Context) error { return pass(ctx, c.last.Load()) })
	})
}

// every does pass at once and then every interval, until Close.
func (c *Compactor) every(interval time.Duration, name string, pass func(context.Context) error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for c.ctx.Err() == nil {
		_ = c.pass(c.ctx, name, pass) // the page, the metrics and the log have it
		select {
		case <-tick.C:
		case <-c.ctx.Done():
		}
	}
}

// pass runs one pass of a loop, and keeps its outcome. A panic ends the pass alone.
func (c *Compactor) pass(ctx context.Context, name string, do func(context.Context) error) (err error) {
	c.board.begin(name, c.opts.Now())
	err = guarded(func() error { return do(ctx) })
	if ctx.Err() != nil {
		return err
	}
	c.metrics.passed(name, c.opts.Now(), err)
	if was := c.board.end(name, c.opts.Now(), err); err != nil && (was == nil || was.Error() != err.Error()) {
		c.log.Warn("a pass left something undone; it is tried again with the next one", "pass", name, "err", err)
	}
	return err
}

// guarded is the error of do, also if it panics.
func guarded(do func() error) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = errs.E(errs.Internal, "BUG: panic: %v\n%s", fault, debug.Stack())
		}
	}()
	return do()
}

// Look looks at the bucket now, and returns what it has.
func (c *Compactor) Look(ctx context.Context) (block.View, error) {
	if err := c.look(ctx); err != nil {
		return block.View{}, err
	}
	return c.last.Load().view, nil
}

// look looks at the bucket and writes its index.
func (c *Compactor) look(ctx context.Context) error {
	c.fetching.Lock()
	defer c.fetching.Unlock()
	began, changes := time.Now(), c.changes.Load()
	if !c.checked {
		if err := CheckLayout(ctx, c.bkt); err != nil {
			return err
		}
		c.lastLife(ctx)
		c.checked = true
	}
	at := c.opts.Now()
	pass, err := c.fetcher.WriteIndex(ctx, c.bkt)
	if err != nil && pass.View.Hash == "" {
		c.metrics.looked(pass.View, err, time.Since(began))
		return err
	}
	c.metrics.looked(pass.View, nil, time.Since(began))
	since := c.clock.before
	if last := c.last.Load(); last != nil {
		since = last.at
	}
	if !since.IsZero() {
		c.acting.Lock()
		c.findForeign(pass.View, since)
		c.acting.Unlock()
	}
	c.seen = changes
	live, doomed := c.chosen(pass.View, at)
	c.last.Store(&look{view: pass.View, live: live, doomed: doomed, at: at})
	c.metrics.lastLook.Set(float64(at.UnixMilli()) / 1000)
	c.lookOnce.Do(func() { close(c.looked) })
	return err
}

// lookAgain looks at the bucket if this process has changed something there since the last look.
func (c *Compactor) lookAgain(ctx context.Context, _ *look) error {
	c.fetching.Lock()
	same := c.changes.Load() == c.seen
	c.fetching.Unlock()
	if same {
		return nil
	}
	return c.look(ctx)
}

// chosen are the blocks that this process is to work on, as its options choose them, without those that are marked for
// deletion; and those of them that are to be deleted since operators asked for it.
func (c *Compactor) chosen(v block.View, now time.Time) (live, doomed []*block.Meta) {
	filters := []block.Filter{c.relabelled, block.Unmarked}
	if c.opts.Window != nil {
		filters = append(filters, block.Within(c.opts.Window(now)))
	}
	for _, m := range v.Select(filters...) {
		if v.TakenBy(m, c.opts.TenantLabel, now) != nil {
			doomed = append(doomed, m)
		} else {
			live = append(live, m)
		}
	}
	return live, doomed
}

// relabelled keeps the blocks that the rules keep. The rules do not see the labels that replicas differ in.
func (c *Compactor) relabelled(v block.View, metas []*block.Meta) (kept []*block.Meta) {
	if len(c.opts.Relabel) == 0 {
		return metas
	}
	choose := block.Chosen(c.opts.Relabel)
	for _, m := range metas {
		same := &block.Meta{}
		same.ULID, same.Thanos.Labels = m.ULID, without(m.Thanos.Labels, append(slices.Clone(c.opts.Jobs.ReplicaLabels),
			c.opts.ReplicaLabel))
		if len(choose(v, []*block.Meta{same})) == 1 {
			kept = append(kept, m)
		}
	}
	return kept
}

// without is labels without those that are named.
func without(labels map[string]string, names []string) map[string]string {
	out := maps.Clone(labels)
	for _, name := range names {
		delete(out, name)
	}
	return out
}

// clean deletes what was marked long enough ago, what broken off uploads left, and rules of deleted tenants.
func (c *Compactor) clean(ctx context.Context, l *look) error {
	c.metrics.cleanups.Inc()
	if err := c.mayAct(ctx); err != nil {
		return err
	}
	return errors.Join(c.deleteMarked(ctx, l), c.cleanPartial(ctx, l), c.forgetDone(ctx), c.deleteRules(ctx, l))
}

// keep marks what retention no longer keeps, what others replace, and what operators asked to delete. It ends deletions
// of series that are long done.
func (c *Compactor) keep(ctx context.Context, l *look) error {
	if err := c.mayAct(ctx); err != nil {
		return err
	}
	return errors.Join(c.markDeleted(ctx, l), c.markReplaced(ctx, l), c.markExpired(ctx, l), c.endErased(ctx, l))
}
