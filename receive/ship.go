package receive

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb"
)

// shipOf returns the tenant's entry, made from its file when it is new.
func (r *Receiver) shipOf(id tenant.ID) *ship {
	r.mu.Lock()
	s := r.ships[id]
	r.mu.Unlock()
	if s != nil {
		return s
	}
	uploaded, err := readShipped(r.db.TenantDir(id))
	if err != nil {
		// Every block is looked up in the bucket again, which tells what the file would have.
		r.log.Warn("list of shipped blocks not read", "tenant", id, "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.ships[id]; s != nil {
		return s
	}
	s = newShip(uploaded)
	r.ships[id] = s
	return s
}

// Shipped reports whether the block's meta.json is in the bucket, as far as this process has seen.
func (r *Receiver) Shipped(id tenant.ID, blk ulid.ULID) bool {
	s := r.shipOf(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uploaded[blk]
}

func (r *Receiver) shipLoop() {
	tick := time.NewTicker(r.opts.ShipInterval)
	defer tick.Stop()
	for {
		_ = r.shipAll(r.ctx, false) // shipTenant logs and counts what goes wrong; it is tried again at a later tick
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// shipAll ships the blocks of all tenants. The error has those of the first tenants. force ignores the waits after failures.
func (r *Receiver) shipAll(ctx context.Context, force bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	ids := r.db.Tenants()
	results := make(chan error, len(ids))
	for _, id := range ids {
		if err := take(ctx, r.slots); err != nil {
			results <- err
			continue
		}
		go func() { results <- r.shipInTurn(ctx, id, force) }()
	}
	var all []error
	for range ids {
		all = append(all, <-results)
	}
	err := errs.Few(all)
	r.report(err)
	if err != nil {
		return errs.E(errs.KindOf(err), "ship: %w", err)
	}
	return nil
}

// shipInTurn ships the tenant's blocks unless somebody else does, whom only force waits for. The caller has taken a slot,
// which is not held while waiting.
func (r *Receiver) shipInTurn(ctx context.Context, id tenant.ID, force bool) error {
	s := r.shipOf(id)
	select {
	case s.turn <- struct{}{}:
	default:
		<-r.slots
		if !force {
			return nil
		}
		if err := take(ctx, s.turn); err != nil {
			return errs.E(errs.Unavailable, "ship tenant %q: its blocks are being shipped: %w", id, err)
		}
		if err := take(ctx, r.slots); err != nil {
			<-s.turn
			return err
		}
	}
	defer func() { <-s.turn; <-r.slots }()
	return r.shipTenant(ctx, id, s, force)
}

func take(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err())
	}
}

// report sets the gauges after a look at all tenants, and forgets tenants that are gone.
func (r *Receiver) report(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pending, oldest := 0, time.Time{}
	for id, s := range r.ships {
		if !r.db.Has(id) {
			delete(r.ships, id)
			continue
		}
		n, since := s.left()
		pending += n
		if n > 0 && (oldest.IsZero() || since.Before(oldest)) {
			oldest = since
		}
	}
	r.m.pending.Set(float64(pending))
	r.m.oldest.Set(0)
	if !oldest.IsZero() {
		r.m.oldest.Set(float64(oldest.Unix()))
	}
	if err == nil && pending == 0 {
		r.m.success.SetToCurrentTime()
	}
}

// shipTenant ships the tenant's blocks, oldest first where none has failed:
//
//  1. upload, whose last step is meta.json in the bucket
//  2. the block counts as shipped
//  3. thanos.shipper.json lists it
//
// A crash in between ships it again, which finds it in the bucket. A block that is wrong in itself is left behind and
// tried again later, by itself; when the bucket does not answer the tenant's others are not tried either. The caller has s.turn.
func (r *Receiver) shipTenant(ctx context.Context, id tenant.ID, s *ship, force bool) error {
	blocks, err := r.db.Blocks(id)
	if err != nil {
		r.failed(s, id, err)
		return err
	}
	todo := s.begin(blocks, r.db.Faults(id))
	if !force && s.bucket.waits() {
		return nil
	}
	var faults []error
	dark, taken := false, false
	for _, b := range todo {
		if dark || !force && b.wait.waits() {
			continue
		}
		err := b.fault
		if err == nil {
			err = r.shipBlock(ctx, id, b)
		}
		if errs.KindOf(err) == errs.Invalid && r.inBucket(ctx, b.ID) {
			err = nil
		}
		if err == nil {
			err = s.done(r.db.TenantDir(id), b.ID)
		}
		if err == nil {
			taken = true
			continue
		}
		faults = append(faults, err)
		if ctx.Err() != nil {
			break
		}
		if errs.KindOf(err) == errs.Invalid {
			b.wait.failed(r.opts.Retry)
		} else {
			b.failed++
			dark = true
		}
		r.m.failures.Inc()
		if text := err.Error(); b.logged != text {
			b.logged = text
			r.log.Warn("block not shipped, will be tried again", "tenant", id, "block", b.ID, "err", err)
		}
	}
	if dark && !taken {
		s.bucket.failed(r.opts.Retry)
	} else if ctx.Err() == nil {
		s.bucket, s.logged = backoff{}, ""
	}
	return errs.Few(faults)
}

// failed counts that the tenant's blocks cannot be listed, and logs it once.
func (r *Receiver) failed(s *ship, id tenant.ID, err error) {
	r.m.failures.Inc()
	if text := err.Error(); s.logged != text {
		s.logged = text
		r.log.Error("blocks of a tenant cannot be listed, and are not shipped", "tenant", id, "err", err)
	}
}

// lookTimeout bounds a look at one block's meta.json in the bucket, which is small. Who looks holds a slot of all tenants.
const lookTimeout = 30 * time.Second

// inBucket reports whether a block that is faulty here is whole there.
func (r *Receiver) inBucket(ctx context.Context, id ulid.ULID) bool {
	ctx, cancel := context.WithTimeout(ctx, min(lookTimeout, r.opts.ShipTimeout))
	defer cancel()
	_, err := block.FetchMeta(ctx, r.bkt, id)
	return err == nil
}

func (r *Receiver) shipBlock(ctx context.Context, id tenant.ID, b *pendingBlock) error {
	ctx, cancel := context.WithTimeout(ctx, r.opts.ShipTimeout)
	defer cancel()
	start := time.Now()
	if b.stats == nil {
		stats, err := block.Measure(ctx, b.Dir)
		if err != nil {
			return err
		}
		b.stats = stats
	}
	if err := b.stats.Complete(b.Dir); err != nil {
		return err
	}
	meta := block.Meta{BlockMeta: b.Meta, Thanos: block.Thanos{
		Version: 1, Labels: r.ExternalLabels(id).Map(), Source: block.SourceReceive, IndexStats: b.stats.IndexStats,
	}}
	if err := block.UploadWith(ctx, r.bkt, b.Dir, meta, block.UploadOptions{Hash: r.opts.HashFiles, Concurrency: r.opts.FileConcurrency}); err != nil {
		return err
	}
	r.m.shipped.Inc()
	r.m.duration.Observe(time.Since(start).Seconds())
	r.log.Info("block shipped", "tenant", id, "block", b.ID, "min_time", b.Meta.MinTime, "max_time", b.Meta.MaxTime,
		"series", b.Meta.Stats.NumSeries, "took", time.Since(start))
	return nil
}

// localBlocks are the local blocks of all tenants: those in the bucket, and how many are not. The error says that there may
// be more.
func (r *Receiver) localBlocks() (shipped []ulid.ULID, pending int, err error) {
	var all []error
	for _, id := range r.db.Tenants() {
		blocks, err := r.db.Blocks(id)
		if err != nil {
			all = append(all, err)
			continue
		}
		for _, f := range r.db.Faults(id) {
			blocks = append(blocks, tsdb.LocalBlock{ID: f.ID})
		}
		for _, b := range blocks {
			if r.Shipped(id, b.ID) {
				shipped = append(shipped, b.ID)
			} else {
				pending++
			}
		}
	}
	return shipped, pending, errs.Few(all)
}
