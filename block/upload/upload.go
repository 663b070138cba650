package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Options adjust a Receiver.
type Options struct {
	// Dir is for the index of a block while it is checked. It may be lost at any time, and is emptied at the start.
	Dir string
	// TenantLabel is the external label that names a block's tenant.
	TenantLabel string
	// MaxBytes is how many bytes a block may have, and all unfinished uploads of one tenant together.
	MaxBytes int64
	// Lifetime is how long an upload may take, from its start until the block is in the bucket.
	Lifetime time.Duration
	// Concurrency is how many blocks are checked at once.
	Concurrency int
	// Refuse says that nothing is taken.
	Refuse bool
	// Now is the clock; nil = time.Now.
	Now func() time.Time
}

// DefaultOptions have the bounds that hold if nothing else is said.
func DefaultOptions() Options {
	return Options{MaxBytes: 64 << 30, Lifetime: 24 * time.Hour, Concurrency: 1}
}

// Receiver takes blocks. It is safe for concurrent use.
type Receiver struct {
	log     *slog.Logger
	bkt     objstore.Bucket
	quietly objstore.BucketReader // bkt, for objects that need not be there
	opts    Options
	name    string // of this process in sessions
	metrics metrics

	mu   sync.Mutex
	busy map[string]bool    // blocks and tenants of which something is being decided
	at   map[ulid.ULID]bool // blocks that are being checked

	retry time.Duration // the wait before a check that the bucket broke off is made again

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type metrics struct {
	blocks *prometheus.CounterVec // by outcome
	bytes  prometheus.Counter
}

// outcomeExpired is an outcome of uploads in metrics, besides the states complete and failed.
const outcomeExpired = "expired"

// New makes a Receiver for a bucket in Thanos's layout. It reads and writes nothing. reg may be nil.
func New(log *slog.Logger, reg prometheus.Registerer, bkt objstore.Bucket, opts Options) *Receiver {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	f := promauto.With(reg)
	r := &Receiver{log: log.With("component", "upload"), bkt: bkt, quietly: block.ExpectMissing(bkt), opts: opts,
		name: ulid.Make().String(), busy: map[string]bool{}, at: map[ulid.ULID]bool{}, retry: 10 * time.Second}
	r.metrics.blocks = f.NewCounterVec(prometheus.CounterOpts{Name: "hearth_block_uploads_total",
		Help: "Blocks that others sent over HTTP, by outcome: complete, failed, or expired."}, []string{"outcome"})
	for _, outcome := range []string{complete, failed, outcomeExpired} {
		r.metrics.blocks.WithLabelValues(outcome)
	}
	r.metrics.bytes = f.NewCounter(prometheus.CounterOpts{Name: "hearth_block_upload_bytes_total",
		Help: "Bytes of files of blocks that others sent over HTTP."})
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// The intervals of what is done without being asked.
const (
	sweepEvery = time.Minute
	touchEvery = 30 * time.Second
	// staleAfter is when a process that validates a block and says nothing is taken to be gone.
	staleAfter = 3 * time.Minute
)

// Open begins to remove uploads whose time is over, and to go on with those that another process left.
func (r *Receiver) Open(context.Context, func(error)) error {
	if err := os.RemoveAll(r.opts.Dir); err != nil {
		return fmt.Errorf("remove what earlier uploads left: %w", err)
	}
	r.wg.Go(func() {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for r.ctx.Err() == nil {
			if err := r.sweep(r.ctx); err != nil && r.ctx.Err() == nil {
				r.log.Warn("uploads could not be looked through; it is tried again", "err", err)
			}
			select {
			case <-tick.C:
			case <-r.ctx.Done():
			}
		}
	})
	return nil
}

// Close stops, and waits. A block that is being checked is left to the next process.
func (r *Receiver) Close() error {
	r.cancel()
	r.wg.Wait()
	return nil
}

// take reports whether key is nobody's. If so it is the caller's until free.
func (r *Receiver) take(key string) (free func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[key] {
		return nil, false
	}
	r.busy[key] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.busy, key)
	}, true
}

// errBusy is the error of a request that comes while another one of the same block or tenant is decided.
var errBusy = errs.E(errs.Limited, "another request for this block or tenant is being answered")

// mayBring is the error of a block that must not get into the bucket, since an operator asked to delete its tenant: all
// of it, or what was made before a time. Errors: Invalid; Unavailable, if the bucket does not say.
func (r *Receiver) mayBring(ctx context.Context, m *block.Meta, t tenant.ID) error {
	list, err := block.NewRequestReader(r.bkt).Read(ctx)
	if err != nil {
		return err
	}
	now := r.opts.Now()
	if err := list.Refusal(t, now); err != nil {
		return err
	}
	if e := (block.View{Requests: list}).TakenBy(m, r.opts.TenantLabel, now); e != nil {
		return errs.E(errs.Invalid, "block %s was made before tenant %q was deleted (request %s)", m.ULID, t, e.ID)
	}
	return nil
}

// start begins the upload of a block of which raw is the meta.json. An upload that was begun before begins anew.
// Errors: Invalid, also if the tenant is deleted; TooLarge; Limited, if the tenant has too much unfinished;
// Conflict, if the block is there or is being checked; Unavailable.
func (r *Receiver) start(ctx context.Context, id ulid.ULID, t tenant.ID, raw []byte) error {
	now := r.opts.Now()
	m, err := metaOf(raw, id, t, &r.opts, now)
	if err != nil {
		return err
	}
	if err := r.mayBring(ctx, m, t); err != nil {
		return err
	}
	for _, key := range []string{"block " + id.String(), "tenant " + string(t)} {
		free, ok := r.take(key)
		if !ok {
			return errBusy
		}
		defer free()
	}
	before, err := r.before(ctx, id, t)
	if err != nil {
		return err
	}
	if err := r.fits(ctx, id, t, m.Bytes()); err != nil {
		return err
	}
	if before {
		if err := r.unstage(ctx, id); err != nil {
			return err
		}
	}
	var meta bytes.Buffer
	if err := m.Write(&meta); err != nil {
		return err
	}
	s := &session{Version: 1, Tenant: t, State: uploading, Began: now.UTC(), Meta: meta.Bytes()}
	if err := r.write(ctx, id, s); err != nil {
		return err
	}
	r.log.Info("the upload of a block begins", "tenant", t, "block", id, "bytes", m.Bytes(), "again", before)
	return nil
}

// before reports whether the upload of a block was begun before. The error says why it cannot begin.
func (r *Receiver) before(ctx context.Context, id ulid.ULID, t tenant.ID) (bool, error) {
	names, err := block.ObjectsOf(ctx, r.bkt, id)
	if err != nil {
		return false, err
	}
	s, err := r.read(ctx, id)
	kind := errs.KindOf(err)
	switch {
	case kind == errs.Unavailable:
		return false, err
	case slices.Contains(names, block.MetaName):
		return false, errs.E(errs.Conflict, "block %s is in the bucket already", id)
	case kind == errs.NotFound && len(names) > 0:
		return false, errs.E(errs.Conflict, "something else is being written as block %s", id)
	case kind == errs.OK && (s.Tenant != t || s.State == validating):
		return false, errs.E(errs.Conflict, "block %s is being uploaded already", id)
	}
	return kind != errs.NotFound, nil
}

// fits is nil if a tenant may have n bytes more in unfinished uploads than those of other blocks. Errors: Limited;
// Unavailable.
func (r *Receiver) fits(ctx context.Context, id ulid.ULID, t tenant.ID, n int64) error {
	all, _, err := r.list(ctx)
	if err != nil {
		return err
	}
	for _, other := range all {
		s, err := r.read(ctx, other)
		if errs.KindOf(err) == errs.Unavailable {
			return err
		}
		if err == nil && other != id && s.Tenant == t && s.holds() {
			n += s.bytes()
		}
	}
	if n > r.opts.MaxBytes {
		return errs.E(errs.Limited, "tenant %s would have %d bytes in unfinished uploads, and may have %d: finish them first",
			t, n, r.opts.MaxBytes)
	}
	return nil
}

// put keeps a file of a block. length is how many bytes the request says that body has, -1 if it does not. Errors:
// NotFound; Invalid; Conflict, if the upload is past that; Unavailable.
func (r *Receiver) put(ctx context.Context, id ulid.ULID, t tenant.ID, rel string, body io.Reader, length int64) error {
	s, err := r.of(ctx, id, t)
	if err != nil {
		return err
	}
	f, err := s.file(rel)
	switch {
	case err != nil:
		return err
	case s.State == failed:
		return s.hasFailed(id)
	case s.State != uploading:
		return errs.E(errs.Conflict, "block %s is %s: no more files are taken", id, s.State)
	case length >= 0 && length != f.SizeBytes:
		return errs.E(errs.Invalid, "file %s of block %s has %d bytes, and %d by the meta.json that began the upload",
			rel, id, length, f.SizeBytes)
	}
	exact := &exactly{r: body, left: f.SizeBytes, size: f.SizeBytes}
	err = r.bkt.Upload(ctx, stagedName(id, rel), exact)
	r.metrics.bytes.Add(float64(f.SizeBytes - exact.left))
	if exact.fault != nil {
		return errs.E(errs.Invalid, "file %s of block %s: %w", rel, id, exact.fault)
	}
	if err != nil {
		return errs.E(errs.Unavailable, "write %s: %w", stagedName(id, rel), err)
	}
	return nil
}

// exactly reads as many bytes as it says. Fewer or more are a fault.
type exactly struct {
	r          io.Reader
	left, size int64
	fault      error // of r
}

// ObjectSize implements objstore.ObjectSizer: with it a provider sends what it reads without keeping it.
func (e *exactly) ObjectSize() (int64, error) { return e.size, nil }

// Read implements io.Reader.
func (e *exactly) Read(p []byte) (int, error) {
	if e.fault != nil {
		return 0, e.fault
	}
	if e.left == 0 {
		var one [1]byte
		if n, err := io.ReadFull(e.r, one[:]); n > 0 {
			e.fault = fmt.Errorf("it has more than %d bytes", e.size)
		} else if !errors.Is(err, io.EOF) {
			e.fault = err
		} else {
			return 0, io.EOF
		}
		return 0, e.fault
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	switch {
	case err == io.EOF && e.left > 0:
		e.fault = fmt.Errorf("it ends after %d of %d bytes", e.size-e.left, e.size)
	case err != nil && err != io.EOF:
		e.fault = err
	default:
		return n, nil // the end is found by the next call
	}
	return n, e.fault
}

// finish begins to check a block. Errors: NotFound; Conflict; Invalid, if files are missing; Limited, if other blocks
// are being checked; Unavailable.
func (r *Receiver) finish(ctx context.Context, id ulid.ULID, t tenant.ID) error {
	free, ok := r.take("block " + id.String())
	if !ok {
		return errBusy
	}
	defer free()
	s, err := r.of(ctx, id, t)
	if errs.KindOf(err) == errs.NotFound {
		if names, err := block.ObjectsOf(ctx, r.bkt, id); err == nil && slices.Contains(names, block.MetaName) {
			return errs.E(errs.Conflict, "block %s is in the bucket already", id)
		}
	}
	switch {
	case err != nil:
		return err
	case s.State == validating:
		return nil
	case s.State == failed:
		return s.hasFailed(id)
	}
	for _, f := range s.meta.Thanos.Files {
		name := stagedName(id, f.RelPath)
		attrs, err := r.quietly.Attributes(ctx, name)
		switch {
		case err != nil && r.bkt.IsObjNotFoundErr(err), err == nil && attrs.Size != f.SizeBytes:
			return errs.E(errs.Invalid, "file %s of block %s was not sent, or not as a whole", f.RelPath, id)
		case err != nil:
			return errs.E(errs.Unavailable, "look at %s: %w", name, err)
		}
	}
	if !r.claim(id) {
		return errs.WithRetryAfter(errs.E(errs.Limited, "other blocks are being checked"), 5*time.Second)
	}
	return r.beginCheck(ctx, id, s)
}

// beginCheck notes in the session of a block that this process checks it, and begins. The block is claimed.
func (r *Receiver) beginCheck(ctx context.Context, id ulid.ULID, s *session) error {
	s.State, s.By, s.Touched = validating, r.name, r.opts.Now().UTC()
	if err := r.write(ctx, id, s); err != nil {
		r.release(id)
		return err
	}
	r.wg.Go(func() { r.validate(r.ctx, id, s) })
	return nil
}

// claim reports whether this process may begin to check a block: there is a place, and it does not do so already.
func (r *Receiver) claim(id ulid.ULID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil || r.at[id] || len(r.at) >= r.opts.Concurrency {
		return false
	}
	r.at[id] = true
	return true
}

func (r *Receiver) release(id ulid.ULID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.at, id)
}

// check is how far an upload is, and why it failed. Errors: NotFound; Unavailable.
func (r *Receiver) check(ctx context.Context, id ulid.ULID, t tenant.ID) (state, fault string, err error) {
	s, err := r.of(ctx, id, t)
	if err == nil {
		return s.State, s.Error, nil
	}
	if errs.KindOf(err) == errs.NotFound {
		m, metaErr := block.FetchMeta(ctx, r.bkt, id)
		if metaErr == nil && m.Thanos.Labels[r.opts.TenantLabel] == string(t) {
			return complete, "", nil
		}
	}
	return "", "", err
}

// sweep removes the uploads whose time is over, and goes on with those that a process left which is gone.
func (r *Receiver) sweep(ctx context.Context) error {
	all, orphans, err := r.list(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, id := range all {
		if err := r.sweepOne(ctx, id); err != nil {
			faults = append(faults, err)
		}
	}
	for _, id := range orphans {
		if _, err := r.read(ctx, id); errs.KindOf(err) == errs.NotFound { // it was not begun meanwhile
			faults = append(faults, r.unstage(ctx, id))
		}
	}
	return errs.Few(faults)
}

func (r *Receiver) sweepOne(ctx context.Context, id ulid.ULID) error {
	free, ok := r.take("block " + id.String())
	if !ok {
		return nil // with the next pass
	}
	defer free()
	s, err := r.read(ctx, id)
	now := r.opts.Now()
	switch kind := errs.KindOf(err); {
	case kind == errs.NotFound:
		return nil
	case kind == errs.Unavailable:
		return err
	case kind == errs.OK && s.State == validating && now.Sub(s.Touched) < staleAfter:
		return nil
	case kind == errs.OK && now.Sub(s.Began) < r.opts.Lifetime:
		if s.State != validating || !r.claim(id) {
			return nil
		}
		if err := r.beginCheck(ctx, id, s); err != nil {
			return err
		}
		r.log.Info("a block is checked that a process left unchecked", "tenant", s.Tenant, "block", id)
		return nil
	case kind == errs.OK && s.State == validating: // it has begun to fill the block's directory
		if err := r.remove(ctx, r.bkt, id); err != nil {
			return err
		}
	}
	if err := r.end(ctx, id); err != nil {
		return err
	}
	if s == nil || s.State != failed { // those are counted already
		r.metrics.blocks.WithLabelValues(outcomeExpired).Inc()
		r.log.Warn("an upload was not finished in time, and is removed", "block", id, "lifetime", r.opts.Lifetime)
	}
	return nil
}
