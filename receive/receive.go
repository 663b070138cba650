package receive

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/ship"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/tsdb"
)

// Receiver owns the samples of this member: it stores them in db, serves them, and ships their blocks. It is safe for
// concurrent use.
type Receiver struct {
	log   *slog.Logger
	db    *tsdb.DB
	bkt   objstore.Bucket // nil: nothing is shipped
	opts  Options
	ext   labels.Labels // external labels without the tenant's
	added labels.Labels // those of ext that Hearth's own callers see on series: all except the replica label

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	wg    sync.WaitGroup // the loops that ship and that follow deletions
	slots chan struct{}  // one for each tenant whose blocks are being shipped
	seal  seal           // passed by all writes

	described atomic.Pointer[described] // by the last Info

	shipMetrics *ship.Metrics

	asks            *block.RequestReader           // of the loop that follows deletions alone, once it runs
	toldDeletions   string                         // so too: what the log has said
	asked           atomic.Pointer[block.Requests] // what operators asked to delete; nil = not known yet
	hides           series.Changes                 // when samples were hidden, or found again, because of that
	deletionMetrics *deletionMetrics

	mu       sync.Mutex // guards shippers
	shippers map[tenant.ID]*ship.Shipper
}

// New makes a receiver over db, which the caller opens before and closes after it; New tells db which blocks are
// shipped, so it must come before db.Open. bkt nil means that blocks stay local until their retention. reg may be
// nil.
func New(log *slog.Logger, reg prometheus.Registerer, db *tsdb.DB, bkt objstore.Bucket,
	opts Options) (*Receiver, error) {
	if err := opts.Validate(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	r := &Receiver{
		log: log, db: db, bkt: bkt, opts: opts, ext: opts.Labels,
		slots: make(chan struct{}, opts.ShipConcurrency), shippers: map[tenant.ID]*ship.Shipper{},
	}
	if !r.ext.Has(opts.ReplicaLabel) {
		r.ext = labels.NewBuilder(r.ext).Set(opts.ReplicaLabel, opts.Instance).Labels()
	}
	r.added = labels.NewBuilder(r.ext).Del(opts.ReplicaLabel).Labels()
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.shipMetrics = ship.NewMetrics(reg, "hearth_receive_")
	if bkt != nil {
		r.asks, r.deletionMetrics = block.NewRequestReader(bkt), newDeletionMetrics(reg)
		db.ShippedBy(r.Shipped, r.settled)
	}
	return r, nil
}

// Open starts shipping. It waits up to firstLook for the bucket to say which tenants are deleted, so that they are
// not read or written after a start.
func (r *Receiver) Open(ctx context.Context, _ func(error)) error {
	if r.bkt != nil {
		first := make(chan struct{})
		r.wg.Go(func() {
			r.followDeletions(r.ctx)
			close(first)
			r.watchDeletions()
		})
		select {
		case <-first:
		case <-ctx.Done():
		case <-time.After(firstLook):
		}
		r.shipMetrics.Success.SetToCurrentTime() // an alert on it is to count from the start of the process
		r.wg.Go(r.shipLoop)
	}
	return nil
}

// Close stops shipping, in the middle of a block if need be: it goes on from there at the next start.
func (r *Receiver) Close() error {
	r.stop()
	r.wg.Wait()
	return nil
}

// Write stores a shard in the tenant's TSDB, by the contract of tsdb.DB.Append. Near the end of a drain it refuses
// all writes (Unavailable): the samples that it acknowledged would be lost with this member. Writes of a tenant that
// operators asked to delete are refused (Refusal).
func (r *Receiver) Write(ctx context.Context, s wire.Shard) ([]wire.Failure, error) {
	if !r.seal.enter() {
		return nil, errs.E(errs.Unavailable, "this receiver is draining and takes no more writes")
	}
	defer r.seal.leave()
	if err := r.Refusal(s.Batch.Tenant); err != nil {
		return nil, err
	}
	return r.db.Append(ctx, s)
}

// Ready is nil once the TSDBs found at the start are open or quarantined.
func (r *Receiver) Ready() error { return r.db.Ready() }

// Status returns the status of every tenant's TSDB.
func (r *Receiver) Status() []tsdb.TenantStatus { return r.db.Status() }

// ExternalLabels are the labels of tenant id's stream as Thanos sees it: on its blocks, and over StoreAPI.
func (r *Receiver) ExternalLabels(id tenant.ID) labels.Labels {
	return labels.NewBuilder(r.ext).Set(r.opts.TenantLabel, string(id)).Labels()
}

// Flush cuts all heads and ships all blocks. When it returns no error, every sample that was acknowledged before the
// call is in the bucket or, where there is no bucket, in a local block. A tenant that cannot be cut does not keep the
// others from being shipped.
func (r *Receiver) Flush(ctx context.Context) error {
	start := time.Now()
	err := r.db.Cut(ctx)
	if r.bkt != nil {
		if serr := r.shipAll(ctx, true); err == nil {
			err = serr
		} else if serr != nil {
			err = errs.E(errs.KindOf(err), "%w; %w", err, serr)
		}
	}
	if errs.KindOf(err) == errs.Invalid {
		err = errs.Wrap(errs.Internal, err) // a block is faulty, not the request
	}
	if err != nil {
		return err
	}
	r.log.Info("flushed", "took", time.Since(start))
	return nil
}
