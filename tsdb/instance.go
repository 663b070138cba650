package tsdb

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb/capacity"
	"github.com/hearth-metrics/hearth/tsdb/seriesref"
	"github.com/hearth-metrics/hearth/tsdb/tenantdir"
)

// instance is one opening of a tenant's TSDB, with everything that ends when the TSDB is closed.
type instance struct {
	id   tenant.ID
	log  *slog.Logger
	opts *Options
	db   *promtsdb.DB
	m    *metrics
	refs *seriesref.Cache
	// arrivals outlive the instance: a tenant may be closed and opened again.
	arrivals *arrivals
	reg      *tenantRegisterer

	// fence is held by one transaction at a time, from the creation of its appender to the end of its commit, and by cuts
	// (cut.go). docs/design/014-what-is-stored.md says why. Transactions wait for it with a context: when one hangs, the
	// requests behind it must not keep their memory after their callers have given up.
	fence semaphore
	// scanned gives the fence back for the cut that holds it; nil when no cut holds it.
	scanned atomic.Pointer[func()]
	// In-order samples before cutBefore (ms), and out-of-order chunks up to cutLate (a chunks.ChunkDiskMapperRef), are in
	// blocks or on their way there. The head may drop their chunks at any moment.
	cutBefore atomic.Int64
	cutLate   atomic.Uint64

	seriesCounts seriesCounts

	rules      atomic.Pointer[rules]
	adopting   sync.Mutex  // orders changes of rules; guards headWindow
	headWindow int64       // ms
	exemplars  atomic.Bool // there is a ring for exemplars
	enforcing  atomic.Bool // limits hold for new series: not while logs are replayed

	cutting     semaphore               // one cut at a time; guards bound and cutCtx
	bound       int64                   // in-order samples before it (ms) are in blocks, or on their way there
	cutCtx      context.Context         // of the cut under way
	waits       atomic.Pointer[cutWait] // what the cut under way waits for; nil = nothing
	cuts        semaphore               // DB.cuts
	reads       readers
	stop        context.CancelFunc
	noteKept    func(error)                  // notes why something is not deleted
	unread      func(mint, maxt int64) error // the error if a read of this range misses samples
	stuck       atomic.Bool                  // a series is locked for good (stuck.go)
	maintaining atomic.Int64                 // cuts and the like that are under way

	users  int           // guarded by tenantDB.mu
	unused chan struct{} // in state Closing: closed when users is 0; guarded by tenantDB.mu

	logFailed atomic.Pointer[error] // the first failure to write WAL or WBL: nothing is accepted any more

	files  *capacity.Files // DB.files
	blocks atomic.Int64    // how many of them files counts

	stripes int // the number of locks over the head's series

	writes    atomic.Uint64 // transactions committed
	wholeCut  atomic.Uint64 // writes when the last cut of everything began
	lastWrite atomic.Int64  // ms
	lastCut   atomic.Int64  // ms, 0 = never
	cutTo     atomic.Int64  // ms: the newest range boundary it was cut to
}

// openInstance replays the logs of t's TSDB. It can take minutes.
func openInstance(t *tenantDB) (*instance, error) {
	ctx, stop := context.WithCancel(context.Background())
	id, opts, log := t.id, &t.db.opts, t.db.log.With("tenant", t.id)
	reg := newTenantRegisterer(t.db.reg, id, opts.TenantMetrics, &t.db.m.exposed)
	in := &instance{id: id, log: log, opts: opts, m: t.db.m, refs: seriesref.NewCache(), reg: reg, stop: stop,
		fence: make(semaphore, 1), cutting: make(semaphore, 1), cutCtx: ctx, cuts: t.db.cuts, files: t.db.files,
		noteKept: t.noteKept, unread: t.unread, arrivals: &t.arrivals}
	in.lastWrite.Store(opts.Now().UnixMilli())
	if in.stripes = opts.StripeSize; in.stripes == 0 {
		in.stripes = stripesFor(t.db.size())
	}
	r := opts.rulesOf(id)
	in.rules.Store(r)
	in.headWindow = r.headWindow()
	in.exemplars.Store(hasExemplars(t.dir))
	if r.seriesPerMetric() > 0 {
		in.seriesCounts.metrics = map[string]int{} // the replay counts
	}
	watched := slog.New(&logWatch{Handler: log.Handler(), failed: in.failLog})
	db, err := promtsdb.Open(t.dir, watched, reg, in.promOptions(ctx), nil)
	if err != nil {
		stop()
		reg.unregister()
		return nil, errs.E(errs.Unavailable, "open tsdb of tenant %q: %w", id, err)
	}
	db.DisableCompactions()
	in.db = db
	in.enforcing.Store(true)
	in.bound = math.MinInt64
	for _, b := range db.Blocks() {
		if meta := b.Meta(); !meta.Compaction.FromOutOfOrder() {
			in.bound = max(in.bound, meta.MaxTime)
		}
	}
	in.cutTo.Store(in.bound)
	in.cutBefore.Store(in.bound)
	in.wholeCut.Store(math.MaxUint64)
	if err := in.fenceMapped(); err != nil {
		err = errs.E(errs.Unavailable, "open tsdb of tenant %q: look for series without an open chunk: %w", id, err)
		return nil, errors.Join(err, in.close())
	}
	return in, nil
}

// stripesFor shares 16 MiB of locks over series out among tenants. Where there are few tenants, each has many series,
// which are cheaper to find with many locks (BenchmarkAppend: a quarter of the time). Where there are many tenants,
// most are small.
func stripesFor(tenants int) int {
	const all, least, most = 1 << 16, 1 << 7, 1 << 14
	n := 1
	for n*2*max(tenants, 1) <= all {
		n *= 2
	}
	return min(max(n, least), most)
}

func (in *instance) promOptions(ctx context.Context) *promtsdb.Options {
	o := promtsdb.DefaultOptions()
	o.MinBlockDuration = in.opts.BlockDuration.Milliseconds()
	o.MaxBlockDuration = o.MinBlockDuration
	o.RetentionDuration = 0 // blocksToDelete decides
	o.BlocksToDelete = in.blocksToDelete
	o.NoLockfile = true // DB locks the directory of all tenants
	o.WALCompression = in.opts.WALCompression
	o.StripeSize = in.stripes
	o.HeadChunksWriteBufferSize = chunks.MinWriteBufferSize // 4 MiB otherwise, from a tenant's first full chunk on
	o.EnableExemplarStorage = true
	if in.exemplars.Load() {
		o.MaxExemplars = in.rules.Load().exemplars
	}
	o.EnableMemorySnapshotOnShutdown = true
	o.OutOfOrderTimeWindow = in.headWindow
	if in.opts.OutOfOrderCap > 0 {
		o.OutOfOrderCapMax = in.opts.OutOfOrderCap
	}
	o.EnableOverlappingCompaction = false
	o.BlockChunkQuerierFunc = queryShifted
	o.EnableSharding = true
	// Isolation would change nothing that anybody sees: reads take whole chunks, which it does not filter, and the
	// samples of one scrape come in several requests anyway. What a cut needs isolation for, the fence does.
	o.IsolationDisabled = true
	// Each cut reloads blocks, and the scheduler maps full chunks. The TSDB's own loop would read the meta.json of all
	// blocks every minute.
	o.BlockReloadInterval = math.MaxInt64
	o.SeriesLifecycleCallback = (*lifecycle)(in)
	o.NewCompactorFunc = func(
		_ context.Context, r prometheus.Registerer, l *slog.Logger, ranges []int64, pool chunkenc.Pool, o *promtsdb.Options,
	) (promtsdb.Compactor, error) {
		c, err := promtsdb.NewLeveledCompactorWithOptions(ctx, r, l, ranges, pool, promtsdb.LeveledCompactorOptions{
			MaxBlockChunkSegmentSize: o.MaxBlockChunkSegmentSize,
		})
		return &cutCompactor{Compactor: c, in: in}, err
	}
	return o
}

// close writes the memory snapshot and closes the TSDB. Nobody may use it any more, since closing unmaps memory that
// readers hold.
func (in *instance) close() (err error) {
	in.stop()
	defer in.reg.unregister()
	defer func() {
		if p := recover(); p != nil { // a chunk could not be written, but its samples are in the logs
			in.m.abandoned.Inc()
			err = errs.E(errs.Internal, "close tsdb of tenant %q: panic: %v", in.id, p)
		}
	}()
	if err := in.db.Close(); err != nil {
		return errs.E(errs.Internal, "close tsdb of tenant %q: %w", in.id, err)
	}
	return nil
}

// summary is the summary that the tenant would leave if it were closed now.
func (in *instance) summary() tenantdir.Summary {
	head := in.db.Head()
	s := tenantdir.Nothing()
	s.Series = head.NumSeries()
	for _, b := range in.db.Blocks() {
		meta := b.Meta()
		s.Extend(meta.MinTime, meta.MaxTime-1)
		s.Series = max(s.Series, meta.Stats.NumSeries)
		s.Blocks++
	}
	if !in.clean() {
		s.Extend(min(head.MinTime(), head.MinOOOTime()), max(head.MaxTime(), head.MaxOOOTime()))
		s.Head = true
	}
	return s
}

// countBlocks counts the open blocks anew.
func (in *instance) countBlocks() {
	n := int64(len(in.db.Blocks()))
	in.files.AddBlocks(n - in.blocks.Swap(n))
}

// uncountBlocks counts none of the blocks any more.
func (in *instance) uncountBlocks() { in.files.AddBlocks(-in.blocks.Swap(0)) }

// clean is true when everything that was written is in blocks.
func (in *instance) clean() bool { return in.wholeCut.Load() == in.writes.Load() }

// failLog records that a log could not be written. From then on memory may hold samples that the disk does not, and
// the next replay would drop all records behind a torn one. So nothing is accepted until the tenant has been opened
// again.
func (in *instance) failLog(err error) { in.logFailed.CompareAndSwap(nil, &err) }

// logError is the answer to a write after failLog, nil before.
func (in *instance) logError() error {
	if err := in.logFailed.Load(); err != nil {
		why := errs.E(errs.Unavailable, "tenant %q is read-only until it has been reopened: %w", in.id, *err)
		return errs.WithRetryAfter(why, time.Second)
	}
	return nil
}

// lifecycle is called by the head before it makes a series, and after it has made or dropped series.
type lifecycle instance

// PreCreation refuses a series that is over the tenant's limits. The TSDB calls it without a lock. So a panic in it
// leaves nothing locked, and becomes an error like any other.
func (l *lifecycle) PreCreation(ls labels.Labels) (err error) {
	if !l.enforcing.Load() {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = (*instance)(l).panicked(p)
		}
	}()
	return (*instance)(l).mayCreate(ls)
}

// PostCreation counts the series.
func (l *lifecycle) PostCreation(ls labels.Labels) { l.seriesCounts.created(ls) }

// PostDeletion forgets the references of series that the head dropped, and takes them off the counts.
func (l *lifecycle) PostDeletion(gone map[chunks.HeadSeriesRef]labels.Labels) {
	if len(gone) == 0 {
		return
	}
	l.seriesCounts.dropped(gone)
	var buf []byte
	for ref, ls := range gone {
		buf = wire.AppendLabels(wire.AppendTenant(buf[:0], l.id), ls)
		key, _ := wire.Identify(buf)
		l.refs.Drop(key, storage.SeriesRef(ref))
	}
}

// cutCompactor gives the cut's fence back when the scan of out-of-order chunks is over (instance.cutOutOfOrder). It
// takes the semaphore of cuts only while a block is written: before and after that the TSDB waits for the tenant's
// writers and readers.
type cutCompactor struct {
	promtsdb.Compactor
	in *instance
}

// Write writes a block from a head, for the TSDB.
func (c *cutCompactor) Write(
	dest string, b promtsdb.BlockReader, mint, maxt int64, base *promtsdb.BlockMeta,
) ([]ulid.ULID, error) {
	if late, ok := b.(*promtsdb.OOOCompactionHead); ok {
		c.in.cutLate.Store(uint64(late.LastMmapRef()))
	}
	c.in.scanDone()
	c.in.waits.Store(nil)
	if err := c.in.cuts.take(c.in.cutCtx); err != nil {
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	defer c.in.cuts.give()
	return c.Compactor.Write(dest, b, mint, maxt, base)
}

// blocksToDelete says which blocks the TSDB shall delete. The TSDB calls it whenever it reloads blocks.
func (in *instance) blocksToDelete(blocks []*promtsdb.Block) map[ulid.ULID]struct{} {
	in.scanDone()
	in.waits.Store(&cutWait{since: time.Now()})
	var kept error
	gone := map[ulid.ULID]struct{}{}
	now, over := in.opts.Now(), in.beyondMaxBytes(blocks)
	for _, b := range blocks {
		meta := b.Meta()
		if !meta.Compaction.Deletable && !over[meta.ULID] && !in.opts.expired(in.id, meta.ULID, meta.MaxTime, now) {
			continue
		}
		if err := tenantdir.CheckBlock(b.Dir()); err != nil { // the TSDB deletes everything in the directory
			kept = err
			continue
		}
		gone[meta.ULID] = struct{}{}
	}
	in.noteKept(kept)
	return gone
}

// expired reports whether a local block that ends at maxt (ms, exclusive) may be deleted.
func (o *Options) expired(id tenant.ID, block ulid.ULID, maxt int64, now time.Time) bool {
	return maxt <= now.Add(-o.rulesOf(id).retention).UnixMilli() && (o.Shipped == nil || o.Shipped(id, block)) &&
		(o.Settled == nil || o.Settled(id, block))
}

// logWatch finds the one failure that the TSDB only logs: an out-of-order sample that it holds in memory is not in
// the WBL. It also lowers what the TSDB logs of its own steps, a dozen lines per tenant at each start, to the level
// debug.
type logWatch struct {
	slog.Handler
	failed func(error)
}

const wblFailure = "Failed to log out of order samples into the WAL"

// Handle looks at the record and passes it on.
func (w *logWatch) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == wblFailure {
		err := errors.New("write to WBL")
		r.Attrs(func(a slog.Attr) bool {
			if cause, ok := a.Value.Any().(error); ok && a.Key == "err" {
				err = errs.E(errs.KindOf(cause), "write to WBL: %w", cause)
			}
			return true
		})
		w.failed(err)
	}
	r.Level = quiet(r.Level)
	return w.Handler.Handle(ctx, r)
}

// Enabled lets errors through at any level, since Handle must see them.
func (w *logWatch) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelError || w.Handler.Enabled(ctx, quiet(l))
}

// quiet is the level at which lines of the TSDB are logged.
func quiet(l slog.Level) slog.Level {
	if l < slog.LevelWarn {
		return slog.LevelDebug
	}
	return l
}

// WithAttrs keeps the watch.
func (w *logWatch) WithAttrs(as []slog.Attr) slog.Handler {
	return &logWatch{Handler: w.Handler.WithAttrs(as), failed: w.failed}
}

// WithGroup keeps the watch.
func (w *logWatch) WithGroup(name string) slog.Handler {
	return &logWatch{Handler: w.Handler.WithGroup(name), failed: w.failed}
}
