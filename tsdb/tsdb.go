package tsdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"golang.org/x/sync/errgroup"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb/capacity"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// closeTimeout is how long Close waits for the users of a tenant.
const closeTimeout = 30 * time.Second

// DB holds the TSDBs of all tenants below one directory. It is safe for concurrent use.
type DB struct {
	log      *slog.Logger
	reg      prometheus.Registerer // of the tenants' library metrics; may be nil
	opts     Options
	m        *metrics
	lock     fileutil.Releaser
	openings semaphore // one per opening or closing
	cuts     semaphore // one per block that is written
	disk     *capacity.Disk

	files *capacity.Files

	housekeeping atomic.Bool // a round of housekeep is under way

	ctx  context.Context // ends with Close
	stop context.CancelFunc

	abandonedMu sync.Mutex     // guards abandoned, and tenantDB.abandoned
	abandoned   abandonedHeads // of all tenants together, except the first head of each tenant

	spawning sync.Mutex     // orders spawn before Close; taken last
	wg       sync.WaitGroup // everything that spawn started

	closeTimeout, patience time.Duration // the constants, which tests change

	mu      sync.RWMutex // guards what follows; taken before tenantDB.mu
	tenants map[tenant.ID]*tenantDB
	list    *tenantList         // of tenants; replaced, never changed
	changes []*tenantDB         // tenants that came since list was made
	removed bool                // a tenant was removed since list was made
	since   int64               // ms: what arrived before for tenants that are not in tenants is not known
	foreign map[string]struct{} // what is below Dir, could be a tenant's by its name, and is not
	opened  bool
	closed  bool
}

// New makes a DB; Open reads the disk. reg may be nil.
func New(log *slog.Logger, reg prometheus.Registerer, opts Options) (*DB, error) {
	if err := opts.Validate(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	d := &DB{
		log: log, reg: reg, opts: opts,
		tenants: map[tenant.ID]*tenantDB{}, list: &tenantList{}, foreign: map[string]struct{}{},
		openings: make(semaphore, opts.OpenConcurrency), cuts: make(semaphore, opts.CutConcurrency),
		closeTimeout: closeTimeout, patience: readerPatience,
	}
	d.disk, d.files = capacity.NewDisk(log, opts.Dir, opts.MinFree), capacity.NewFiles(log)
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.m = newMetrics(reg, d)
	return d, nil
}

// ShippedBy sets Options.Shipped and Options.Settled. It must be called before Open.
func (d *DB) ShippedBy(shipped, settled func(tenant.ID, ulid.ULID) bool) {
	d.opts.Shipped, d.opts.Settled = shipped, settled
}

// Open locks the directory, finds the tenants, and starts the scheduler and the opening of the tenants. It does not
// wait for that: Ready says when it is done. A tenant that cannot be opened is quarantined.
func (d *DB) Open(_ context.Context, _ func(error)) error {
	if err := os.MkdirAll(d.opts.Dir, 0o777); err != nil {
		return errs.E(errs.Internal, "create tsdb directory: %w", err)
	}
	d.mu.Lock()
	d.since = d.opts.Now().UnixMilli()
	d.mu.Unlock()
	history, err := tenantdir.Examine(d.opts.Dir, d.opts.NoLock)
	if err != nil {
		return err
	}
	if err := d.acquire(); err != nil {
		return err
	}
	if err := d.discover(history); err != nil {
		return errors.Join(err, d.release())
	}
	d.spawn(d.schedule)
	return nil
}

// acquire takes the lock on the directory.
func (d *DB) acquire() (err error) {
	if d.opts.NoLock {
		return nil
	}
	if d.lock, _, err = fileutil.Flock(filepath.Join(d.opts.Dir, tenantdir.LockName)); err != nil {
		return errs.E(errs.Internal, "lock tsdb directory %s (does another process use it?): %w", d.opts.Dir, err)
	}
	return nil
}

// release gives the lock back.
func (d *DB) release() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Release()
}

// discover finds the tenants in the directory.
func (d *DB) discover(h tenantdir.History) error {
	entries, err := os.ReadDir(d.opts.Dir)
	if err != nil {
		return errs.E(errs.Internal, "list tsdb directory: %w", err)
	}
	found := make([]finding, len(entries))
	var g errgroup.Group
	g.SetLimit(16) // a directory that gets its mark now costs two writes to the disk
	for i, e := range entries {
		if !e.Type().IsRegular() {
			g.Go(func() error { found[i] = d.find(e, h); return nil })
		}
	}
	_ = g.Wait()
	if !h.Marked {
		if err := tenantdir.MarkRoot(d.opts.Dir); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened = true
	for i, e := range entries {
		switch f := found[i]; {
		case f.reason != nil:
			d.log.Warn("directory is no tenant's and is left alone",
				"dir", filepath.Join(d.opts.Dir, e.Name()), "reason", f.reason)
			if e.Name() != tenantdir.LostFound {
				d.foreign[e.Name()] = struct{}{}
			}
		case f.id != "":
			d.add(f.id).discovered(f.summary)
		}
	}
	return nil
}

// discovered puts a tenant that was found on disk into its first state.
func (t *tenantDB) discovered(s tenantdir.Summary) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.summary = s; s.Head {
		t.initial = true
		t.startOpening(false)
	}
}

// finding says what an entry of the directory of all tenants is.
type finding struct {
	id      tenant.ID // "" = it was left over, and is deleted
	summary tenantdir.Summary
	reason  error // why it is no tenant's
}

// find looks at one entry of the directory of all tenants. It deletes what a process that died left unfinished.
func (d *DB) find(e fs.DirEntry, h tenantdir.History) finding {
	if e.IsDir() && tenantdir.Unfinished(e.Name()) {
		dir := filepath.Join(d.opts.Dir, e.Name())
		if err := tenantdir.Sweep(dir); err != nil {
			d.log.Warn("directory of a tenant that is gone not removed", "dir", dir, "err", err)
		}
		return finding{}
	}
	id, err := tenant.Parse(e.Name())
	if err != nil {
		return finding{reason: err}
	}
	dir := d.TenantDir(id)
	taken, err := tenantdir.Take(dir, id, h, d.opts.Adopt)
	if taken {
		d.log.Info("directory taken over as a tenant's", "tenant", id, "dir", dir)
	}
	if err != nil {
		return finding{reason: err}
	}
	s, idle := tenantdir.ReadSummary(dir)
	if s.Head || !idle {
		s = tenantdir.Summary{Head: true}
	}
	return finding{id: id, summary: s}
}

// add makes the entry of a tenant, in state Idle. The caller holds d.mu.
func (d *DB) add(id tenant.ID) *tenantDB {
	dir := d.TenantDir(id)
	t := &tenantDB{
		id: id, dir: dir, db: d, meta: tenantdir.NewMetadata(dir, d.opts.MaxMetadata),
		state: Idle, summary: tenantdir.Anything(),
	}
	t.arrivals.known.Since = d.since
	d.tenants[id] = t
	d.changes = append(d.changes, t)
	delete(d.foreign, string(id))
	return t
}

// lookup returns a tenant, or nil.
func (d *DB) lookup(id tenant.ID) *tenantDB {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.tenants[id]
}

// create returns a tenant, and makes it when it is new.
func (d *DB) create(id tenant.ID) (*tenantDB, error) {
	if t := d.lookup(id); t != nil {
		return t, nil
	}
	// A new tenant may have the name of a file that the receiver keeps there for itself.
	if err := tenantdir.Check(d.TenantDir(id), id); !errors.Is(err, fs.ErrNotExist) {
		if err := tenantdir.Refusal(id, err); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch t := d.tenants[id]; {
	case t != nil:
		return t, nil
	case d.closed:
		return nil, errShutdown
	case !d.opened:
		return nil, errs.E(errs.Unavailable, "tsdb is not open")
	case d.opts.MaxTenants > 0 && len(d.tenants) >= d.opts.MaxTenants:
		return nil, errs.WithRetryAfter(errs.E(errs.Limited,
			"tenant %s is new, and this receiver has %d already: raise --receive.max-tenants", id, len(d.tenants)), time.Minute)
	}
	return d.add(id), nil
}

// writer returns a tenant, its open instance, and the function that gives the instance back.
func (d *DB) writer(ctx context.Context, id tenant.ID) (*tenantDB, *instance, func(), error) {
	for {
		t, err := d.create(id)
		if err != nil {
			return nil, nil, nil, err
		}
		in, release, err := t.use(ctx)
		if !errors.Is(err, errGone) {
			return t, in, release, err
		}
	}
}

// spawn runs f in the background. It does not, and returns false, when the DB is closing.
func (d *DB) spawn(f func()) bool {
	d.spawning.Lock()
	defer d.spawning.Unlock()
	if d.ctx.Err() != nil {
		return false
	}
	d.wg.Go(f)
	return true
}

// size is how many tenants there are, closed ones included.
func (d *DB) size() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.tenants)
}

// Close stops cutting, waits for users, writes memory snapshots and closes every TSDB. It cuts nothing. If somebody
// still reads a TSDB half a minute later, the TSDB stays open, and Close returns an error. Nothing is lost: the logs
// have everything.
func (d *DB) Close() error {
	d.mu.Lock()
	if d.closed || !d.opened {
		d.closed = true
		d.mu.Unlock()
		d.stop()
		return nil
	}
	d.closed = true
	d.mu.Unlock()
	d.spawning.Lock()
	d.stop()
	d.spawning.Unlock()
	for _, t := range d.all() {
		t.interrupt()
	}
	d.wg.Wait()

	ctx, cancel := context.WithTimeout(context.Background(), d.closeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []error
	for _, t := range d.all() {
		wg.Go(func() {
			err := t.closeForGood(ctx)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, err)
		})
	}
	wg.Wait()
	return errors.Join(append(all, d.release())...)
}

// interrupt ends the cut that is under way, if there is one.
func (t *tenantDB) interrupt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.in != nil {
		t.in.stop()
	}
}

// closeForGood closes the tenant for Close.
func (t *tenantDB) closeForGood(ctx context.Context) error {
	closed, err := t.closeWhen(ctx, func(*instance, int) bool { return true })
	if closed {
		t.settle(tenantdir.Anything())
	}
	if err != nil {
		return fmt.Errorf("close tsdb: %w", err)
	}
	return nil
}
