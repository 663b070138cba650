package receive

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/tsdb"
)

// ship is what is known of one tenant's shipping.
type ship struct {
	working sync.Mutex // held while blocks are shipped; taken before mu

	mu       sync.Mutex // guards what follows
	uploaded map[ulid.ULID]bool
	tries    int       // attempts that failed in a row
	retryAt  time.Time // not before, but for a flush
	pending  int
	oldest   time.Time // when the oldest pending block was made
}

// shipOf returns the tenant's entry, made from its file when it is new.
func (r *Receiver) shipOf(id tenant.ID) *ship {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.ships[id]
	if s == nil {
		uploaded, err := readShipped(r.db.TenantDir(id))
		if err != nil {
			// Every block is looked up in the bucket again, which tells what the file would have.
			r.log.Warn("list of shipped blocks not read", "tenant", id, "err", err)
		}
		s = &ship{uploaded: uploaded}
		r.ships[id] = s
	}
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
		_ = r.shipAll(r.ctx, false) // logged and counted where it happens, tried again at a later tick
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// shipAll ships the blocks of all tenants. The error joins those of the tenants. force ignores the wait after a failure.
func (r *Receiver) shipAll(ctx context.Context, force bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	ids := r.db.Tenants()
	results := make(chan error, len(ids))
	for _, id := range ids {
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			results <- ctx.Err()
			continue
		}
		go func() {
			defer func() { <-r.slots }()
			results <- r.shipTenant(ctx, id, force)
		}()
	}
	var all []error
	for range ids {
		all = append(all, <-results)
	}
	err := errors.Join(all...)
	r.report(err)
	if err != nil {
		return errs.E(errs.KindOf(err), "ship: %w", err)
	}
	return nil
}

// report sets the gauges after a look at all tenants.
func (r *Receiver) report(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pending, oldest := 0, time.Time{}
	for _, s := range r.ships {
		s.mu.Lock()
		pending += s.pending
		if !s.oldest.IsZero() && (oldest.IsZero() || s.oldest.Before(oldest)) {
			oldest = s.oldest
		}
		s.mu.Unlock()
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

// shipTenant ships the tenant's blocks, oldest first:
//
//  1. upload, whose last step is meta.json in the bucket
//  2. the block counts as shipped
//  3. thanos.shipper.json lists it
//
// A crash in between ships it again, which finds it in the bucket. A block that is wrong in itself is left behind and
// tried again later; when the bucket does not answer the tenant's others are not tried either.
func (r *Receiver) shipTenant(ctx context.Context, id tenant.ID, force bool) error {
	s := r.shipOf(id)
	s.working.Lock()
	defer s.working.Unlock()
	blocks, err := r.db.Blocks(id)
	if err != nil {
		return err
	}
	todo := s.begin(blocks)
	if len(todo) == 0 || !force && s.waiting() {
		return nil
	}
	var faults []error
	for _, b := range todo {
		err := r.shipBlock(ctx, id, b)
		if err == nil {
			err = s.done(r.db.TenantDir(id), b.ID)
		}
		if err == nil {
			continue
		}
		faults = append(faults, err)
		if ctx.Err() == nil {
			r.m.failures.Inc()
			r.log.Warn("block not shipped, will be tried again", "tenant", id, "block", b.ID, "err", err)
		}
		if errs.KindOf(err) != errs.Invalid {
			break
		}
	}
	s.end(len(faults) > 0, r.opts.Retry)
	return errors.Join(faults...)
}

// begin forgets blocks that are no longer there and returns those that are not in the bucket.
func (s *ship) begin(blocks []tsdb.LocalBlock) (todo []tsdb.LocalBlock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := make(map[ulid.ULID]bool, len(blocks))
	for _, b := range blocks {
		if s.uploaded[b.ID] {
			kept[b.ID] = true
		} else {
			todo = append(todo, b)
		}
	}
	s.uploaded = kept
	s.pending, s.oldest = len(todo), time.Time{}
	for _, b := range todo {
		if at := ulid.Time(b.ID.Time()); s.oldest.IsZero() || at.Before(s.oldest) {
			s.oldest = at
		}
	}
	return todo
}

func (s *ship) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.retryAt)
}

// done records a shipped block in memory, then on disk.
func (s *ship) done(dir string, id ulid.ULID) error {
	s.mu.Lock()
	s.uploaded[id] = true
	s.pending--
	ids := make([]ulid.ULID, 0, len(s.uploaded))
	for u := range s.uploaded {
		ids = append(ids, u)
	}
	s.mu.Unlock()
	slices.SortFunc(ids, ulid.ULID.Compare)
	return writeShipped(dir, ids)
}

func (s *ship) end(failed bool, retry time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !failed {
		s.tries, s.retryAt, s.oldest = 0, time.Time{}, time.Time{}
		return
	}
	s.retryAt = time.Now().Add(retry << min(s.tries, 5))
	s.tries++
}

func (r *Receiver) shipBlock(ctx context.Context, id tenant.ID, b tsdb.LocalBlock) error {
	ctx, cancel := context.WithTimeout(ctx, r.opts.ShipTimeout)
	defer cancel()
	start := time.Now()
	stats, err := indexStats(ctx, b.Dir)
	if err != nil {
		return err
	}
	meta := block.Meta{BlockMeta: b.Meta, Thanos: block.Thanos{
		Version: 1, Labels: r.ExternalLabels(id).Map(), Source: block.SourceReceive, IndexStats: stats,
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

// localBlocks are the local blocks of all tenants: those in the bucket, and how many are not.
func (r *Receiver) localBlocks() (shipped []ulid.ULID, pending int, err error) {
	for _, id := range r.db.Tenants() {
		blocks, err := r.db.Blocks(id)
		if err != nil {
			return nil, 0, err
		}
		for _, b := range blocks {
			if r.Shipped(id, b.ID) {
				shipped = append(shipped, b.ID)
			} else {
				pending++
			}
		}
	}
	return shipped, pending, nil
}
