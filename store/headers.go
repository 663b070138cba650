package store

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/indexheader"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/store/cache"
)

// headerTimeout bounds one load of an index-header: a gigabyte at a few MB/s.
const headerTimeout = 5 * time.Minute

// headers opens index-headers when they are first used, and knows which are open.
type headers struct {
	opts    Options
	bkt     objstore.BucketReader
	objects *objects // reads small indexes through the cache
	metrics *metrics
	slots   chan struct{}   // has an element for each load under way
	ctx     context.Context // of all loads
	cancel  context.CancelFunc
	wg      sync.WaitGroup // loads

	mu   sync.Mutex // guards open and ended
	open map[*lazyHeader]struct{}
	// ended is set by close. No load begins afterwards.
	ended bool
}

func newHeaders(o *objects, opts Options, m *metrics) *headers {
	h := &headers{
		opts: opts, bkt: o.bkt, objects: o, metrics: m,
		slots: make(chan struct{}, opts.BlockConcurrency), open: map[*lazyHeader]struct{}{},
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// of returns the index-header of a block. Nothing is read.
func (h *headers) of(m *block.Meta) *lazyHeader { return &lazyHeader{from: h, meta: m} }

// close ends the loads that are under way, and waits for them. Headers that are open stay so.
func (h *headers) close() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	h.cancel()
	h.wg.Wait()
}

// idle returns the open headers that nobody asked for since a time.
func (h *headers) idle(since time.Time) (all []*lazyHeader) {
	for _, l := range h.opened() {
		if used := l.lastUse(); used.Before(since) {
			all = append(all, l)
		}
	}
	return all
}

// opened returns the open headers.
func (h *headers) opened() []*lazyHeader {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*lazyHeader, 0, len(h.open))
	for l := range h.open {
		all = append(all, l)
	}
	return all
}

func (h *headers) note(l *lazyHeader, open bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if open {
		h.open[l] = struct{}{}
	} else {
		delete(h.open, l)
	}
	h.metrics.headersOpen.Set(float64(len(h.open)))
}

// start runs a load in the background, unless the gateway is closed.
func (h *headers) start(load func(context.Context)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return errs.E(errs.Unavailable, "store gateway: closed")
	}
	h.wg.Go(func() {
		select {
		case h.slots <- struct{}{}:
			defer func() { <-h.slots }()
		case <-h.ctx.Done():
		}
		ctx, cancel := context.WithTimeoutCause(h.ctx, headerTimeout, errors.New("the index-header took too long"))
		defer cancel()
		load(ctx)
	})
	return nil
}

// load opens the index-header of a block: from local disk, or from the bucket. What came in damaged or not at all is
// asked for once more, since most faults of a bucket pass.
func (h *headers) load(ctx context.Context, m *block.Meta) (r *indexheader.Reader, err error) {
	path := filepath.Join(h.opts.Dir, m.ULID.String(), block.IndexHeaderName)
	if r, err = h.read(path); err == nil {
		return r, nil
	}
	for range 2 {
		start := time.Now()
		if err = h.fetch(ctx, m, path); err == nil {
			h.metrics.lazy.download.Observe(time.Since(start).Seconds())
			return h.read(path)
		}
		if ctx.Err() != nil || errs.KindOf(err) != errs.Invalid && !passing(err) {
			break
		}
	}
	if ctx.Err() != nil {
		err = errs.E(errs.Unavailable, "index-header of block %s: %w", m.ULID, context.Cause(ctx))
	}
	return nil, err
}

// fetch writes the index-header of a block to path. A small index is read as a whole, through the cache: the request
// that opens the block then finds its postings and series there.
func (h *headers) fetch(ctx context.Context, m *block.Meta, path string) error {
	all := index.Range{End: m.SizeOf(block.IndexName)}
	if all.End > 0 && all.End <= cache.WholeIndex {
		f := indexFile(m, all.End)
		if read, err := h.objects.read(ctx, f, all); err == nil {
			if b, err := f.whole(read, all); err == nil && indexheader.Cut(b, m.ULID, path) == nil {
				return nil
			}
		}
	}
	return indexheader.Fetch(ctx, h.bkt, m, path)
}

// read opens a local file.
func (h *headers) read(path string) (*indexheader.Reader, error) {
	start := time.Now()
	r, err := indexheader.Open(path)
	if err == nil {
		h.metrics.lazy.read.Observe(time.Since(start).Seconds())
	}
	return r, err
}

// lazyHeader is a block's index-header. It is opened at the first use, and may be closed and opened again.
type lazyHeader struct {
	from    *headers
	meta    *block.Meta
	wasOpen atomic.Bool

	mu      sync.Mutex // guards what follows
	reader  *indexheader.Reader
	loading *loading // nil unless a load is under way
	used    time.Time
	closed  bool
}

// loading is one load, for which any number of requests wait. The other fields are set when done is closed.
type loading struct {
	done   chan struct{}
	reader *indexheader.Reader
	err    error
}

// unopened is the error of a header that cannot be opened. Its kind is that of the cause.
type unopened struct{ error }

func (e unopened) Unwrap() error { return e.error }

// Header implements headerFile. One load serves all that wait, and goes on when they do not wait any more. A failed one
// is not kept: what it means for the block is decided where the view is known.
func (l *lazyHeader) Header(ctx context.Context) (header, error) {
	l.mu.Lock()
	l.used = l.from.opts.Now()
	if r := l.reader; r != nil {
		l.mu.Unlock()
		return r, nil
	}
	under := l.loading
	if under == nil {
		under = &loading{done: make(chan struct{})}
		if err := l.from.start(func(ctx context.Context) { l.load(ctx, under) }); err != nil {
			l.mu.Unlock()
			return nil, err
		}
		l.loading = under
	}
	l.mu.Unlock()
	select {
	case <-under.done:
	case <-ctx.Done():
		return nil, errs.E(errs.Unavailable, "index-header of block %s: %w", l.meta.ULID, context.Cause(ctx))
	}
	if under.err != nil {
		return nil, unopened{under.err}
	}
	return under.reader, nil
}

func (l *lazyHeader) load(ctx context.Context, under *loading) {
	start := time.Now()
	r, err := l.from.load(ctx, l.meta)
	l.from.metrics.headerLoaded(time.Since(start), err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loading = nil
	switch {
	case err != nil:
		under.err = err
	case l.closed: // nobody waits, as those who wait hold the block
		under.err = errs.E(errs.Unavailable, "block %s is no longer served", l.meta.ULID)
		r.Close()
	default:
		under.reader, l.reader = r, r
		l.wasOpen.Store(true)
		l.from.note(l, true)
	}
	close(under.done)
}

// WasOpen implements headerFile.
func (l *lazyHeader) WasOpen() bool { return l.wasOpen.Load() }

// Close implements headerFile. Nobody holds the block any more.
func (l *lazyHeader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.unmap()
}

// unload closes the header if unused still says that nobody has it. Whoever asks for it afterwards opens it again.
func (l *lazyHeader) unload(unused func() bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reader != nil && unused() {
		l.from.metrics.headerUnloaded(l.unmap())
	}
}

// unmap lets the reader go. The caller holds l.mu.
func (l *lazyHeader) unmap() error {
	if l.reader == nil {
		return nil
	}
	r := l.reader
	l.reader = nil
	l.from.note(l, false)
	return r.Close()
}

func (l *lazyHeader) lastUse() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

// unloadIdle closes the index-headers of served blocks that no request has and nobody asked for since a time.
func (g *Gateway) unloadIdle(since time.Time) {
	g.unload(g.headers.idle(since), func(l *lazyHeader) bool { return l.used.Before(since) })
}

// unload closes the index-headers among all that are of served blocks, that no request has, and that may be closed,
// which may says under their locks. While it holds Gateway.mu, a block of the snapshot with one reference is held by
// the snapshot alone.
func (g *Gateway) unload(all []*lazyHeader, may func(*lazyHeader) bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.current == nil {
		return
	}
	for _, l := range all {
		if b := g.current.blocks[l.meta.ULID]; b != nil && b.headerFile == headerFile(l) {
			l.unload(func() bool { return b.refs.Load() == 1 && may(l) })
		}
	}
}
