package receive

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/ship"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// shipperOf returns the shipper of a tenant's blocks.
func (r *Receiver) shipperOf(id tenant.ID) *ship.Shipper {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.shippers[id]
	if s == nil {
		s = r.newShipper(id)
		r.shippers[id] = s
	}
	return s
}

func (r *Receiver) newShipper(id tenant.ID) *ship.Shipper {
	s, err := ship.New(r.log.With("tenant", id), r.shipMetrics, r.bkt, r.lister(id), ship.Options{
		Record: filepath.Join(r.db.TenantDir(id), ship.RecordName),
		Origin: func(ship.Block) block.Thanos {
			return block.Thanos{Labels: r.ExternalLabels(id).Map(), Source: r.opts.Source}
		},
		Check:   func(context.Context, ship.Block) error { return r.mayShip(id) },
		Timeout: r.opts.ShipTimeout, Retry: r.opts.Retry,
		Upload: block.UploadOptions{Hash: r.opts.HashFiles, Concurrency: r.opts.FileConcurrency},
	})
	if err != nil {
		panic("BUG: options that were validated: " + err.Error())
	}
	return s
}

// lister lists the local blocks of a tenant, those that cannot be read among them.
func (r *Receiver) lister(id tenant.ID) ship.Lister {
	return func() ([]ship.Block, error) {
		blocks, err := r.db.Blocks(id)
		if err != nil {
			return nil, err
		}
		var all []ship.Block
		for _, b := range blocks {
			all = append(all, ship.Block{ID: b.ID, Dir: b.Dir, Meta: b.Meta})
		}
		for _, f := range r.db.Faults(id) {
			all = append(all, ship.Block{ID: f.ID, Dir: f.Dir, Fault: f.Err})
		}
		return all, nil
	}
}

// Shipped reports whether the block's meta.json is in the bucket, as far as this process has seen.
func (r *Receiver) Shipped(id tenant.ID, blk ulid.ULID) bool { return r.shipperOf(id).Shipped(blk) }

// settledAfter is how long a block stays here after it was shipped, however old its samples are: store gateways that
// look at the bucket every 15 minutes, as Thanos's do, serve it by then.
const settledAfter = time.Hour

// settled reports whether a block has been in the bucket for so long that store gateways serve it.
func (r *Receiver) settled(id tenant.ID, blk ulid.ULID) bool {
	at, is := r.shipperOf(id).ShippedAt(blk)
	return is && r.opts.Now().Sub(at) >= settledAfter
}

func (r *Receiver) shipLoop() {
	tick := time.NewTicker(r.opts.ShipInterval)
	defer tick.Stop()
	for {
		_ = r.shipAll(r.ctx, false) // the shippers log and count what goes wrong; a later tick tries it again
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// shipAll ships the blocks of all tenants. The error has those of the first tenants. force ignores the waits after
// failures.
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

// shipInTurn ships the tenant's blocks unless another call does. Only with force it waits for that call and ships
// then. The caller has taken a slot, which is given back, and is not held while waiting.
func (r *Receiver) shipInTurn(ctx context.Context, id tenant.ID, force bool) error {
	s := r.shipperOf(id)
	for {
		err := s.Ship(ctx, force)
		<-r.slots
		switch {
		case !errors.Is(err, ship.ErrBusy):
			return err
		case !force:
			return nil
		}
		if err := s.WaitIdle(ctx); err != nil {
			return errs.E(errs.Unavailable, "ship tenant %q: its blocks are being shipped: %w", id, err)
		}
		if err := take(ctx, r.slots); err != nil {
			return err
		}
	}
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
	var all []ship.Status
	for id, s := range r.shippers {
		if !r.db.Has(id) {
			delete(r.shippers, id)
			continue
		}
		all = append(all, s.Status())
	}
	r.shipMetrics.Report(all, err)
}

// localBlocks are the local blocks of all tenants: those in the bucket, and how many are not. The error says that
// there may be more.
func (r *Receiver) localBlocks() (shipped []ulid.ULID, pending int, err error) {
	var all []error
	for _, id := range r.db.Tenants() {
		blocks, err := r.lister(id)()
		if err != nil {
			all = append(all, err)
			continue
		}
		s := r.shipperOf(id)
		for _, b := range blocks {
			if s.Shipped(b.ID) {
				shipped = append(shipped, b.ID)
			} else {
				pending++
			}
		}
	}
	return shipped, pending, errs.Few(all)
}
