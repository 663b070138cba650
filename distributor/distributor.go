package distributor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/internal/wire"
	"github.com/hearth-metrics/hearth/ring"
)

// Writer is one member. Write may be called concurrently. A nil error says that all of s is in the member's WAL except
// what the failures name (Failure.Series is an index into s.Batch.Series, and one of s.Series). With an error nothing
// is promised of any series. Write keeps no reference to s after it returns, unless it retains s.Batch; s.Series it may
// never keep.
//
// An error marked by errs.Unreached says that the member was not reached. Any other error is taken for the trouble of
// one tenant, unless nothing comes from the member. A Writer that is an io.Closer is closed when its member leaves the
// ring.
type Writer interface {
	Write(ctx context.Context, s wire.Shard) ([]wire.Failure, error)
}

// Ordered is a Writer that keeps the order of its writes.
type Ordered interface {
	Writer
	// WriteInOrder is Write. It calls placed, at most once and before it returns, when it is certain that the member
	// gets s before all that is written from then on.
	WriteInOrder(ctx context.Context, s wire.Shard, placed func()) ([]wire.Failure, error)
}

// Local is a Writer in this process. Where nothing is replicated it is called on the goroutine of the request. It is
// not closed.
type Local struct{ Writer }

// Distributor replicates batches to the members of a ring. Its methods may be called concurrently.
type Distributor struct {
	log      *slog.Logger
	metrics  *metrics
	opts     Options
	dial     func(ring.Member) (Writer, error)
	gate     gate
	tenants  tenantStates
	fitCache *fitCache             // nil without limits
	rules    atomic.Pointer[rules] // of relabelling; nil = none
	known    *wire.SeriesCache
	pairs    *haTracker
	requests sync.Pool // of *request
	writes   sync.Pool // of *write

	ring destination // of what nobody has placed yet

	mu     sync.Mutex // guards what follows
	state  state
	others []*destination // of what was placed before: PlacedHandler
	leave  sync.WaitGroup
	end    context.CancelFunc // of what runs in the background; nil before Open
}

type state uint8

const (
	created state = iota
	open
	closed
)

// New makes a Distributor. placement gives the newest placement. It must be cheap, and its values comparable with ==
// (pointers, say) and equal only when nothing changed. It may give nil while there is no ring. dial makes the Writer of
// a member. It is called once per member for as long as the member is in the ring under one address, and does not wait
// for the member to answer.
func New(log *slog.Logger, reg prometheus.Registerer, placement func() ring.Placement,
	dial func(ring.Member) (Writer, error), opts Options) (*Distributor, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("distributor: %w", err)
	}
	d := &Distributor{
		log: log, metrics: newMetrics(reg), opts: opts, dial: dial,
		ring: destination{placement: placement, members: map[string]*member{}},
	}
	d.gate = gate{most: usage{int64(opts.MaxRequests), opts.MaxRequestBytes}, metrics: d.metrics}
	d.gate.byAddress = map[string]*usage{}
	d.tenants = tenantStates{metrics: d.metrics}
	d.tenants.byID, d.tenants.claimed = map[tenant.ID]*tenantState{}, map[tenant.ID]*tenantState{}
	d.known = wire.NewSeriesCache(opts.KnownSeries)
	watchSeriesCache(reg, d.known)
	if opts.Limits != nil {
		d.fitCache = new(fitCache)
	}
	if err := d.SetRelabel(opts.Relabel); err != nil {
		return nil, fmt.Errorf("distributor: relabelling: %w", err)
	}
	d.pairs = newHATracker(log, reg, opts.HA)
	d.requests.New = func() any { return new(request) }
	d.writes.New = func() any { return &write{changed: make(chan struct{}, 1)} }
	return d, nil
}

// Open lets writes in. Members are dialed when the first write finds them in the ring.
func (d *Distributor) Open(context.Context, func(error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != created {
		return errors.New("distributor: opened twice")
	}
	d.state = open
	var ctx context.Context
	ctx, d.end = context.WithCancel(context.Background())
	d.pairs.start(ctx, &d.leave)
	return nil
}

// Close refuses further writes, gives the queued ones Options.WriteTimeout to be done, and drops the rest.
func (d *Distributor) Close() error {
	d.mu.Lock()
	if d.end != nil {
		d.end()
	}
	d.state = closed
	for _, to := range d.destinations() {
		d.retire(to.route.Swap(nil))
		for id, p := range to.members {
			delete(to.members, id)
			d.part(p)
		}
	}
	d.mu.Unlock()
	d.leave.Wait()
	return nil
}
