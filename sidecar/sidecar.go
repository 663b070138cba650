package sidecar

import (
	"context"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/semaphore"

	"github.com/hearth-metrics/hearth/block/ship"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/sidecar/promclient"
)

// Sidecar serves one Prometheus and ships its blocks. It is safe for concurrent use.
type Sidecar struct {
	log    *slog.Logger
	client *promclient.Client
	m      *metrics
	opts   Options
	bkt    objstore.Bucket // nil = nothing is shipped
	ship   *ship.Shipper   // nil = nothing is shipped
	reads  *semaphore.Weighted

	mu    sync.Mutex // guards found and fault
	found *settings  // the last settings that would do; nil when there are none
	fault error      // why Prometheus was not served at the last look; nil = it was, or there was no look

	first chan struct{} // closed by watch once Prometheus could be served
	kick  chan struct{} // asks for a look

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New makes a sidecar of the Prometheus that client asks. bkt is where blocks are shipped to, nil = nowhere. It does no
// I/O.
func New(log *slog.Logger, reg prometheus.Registerer, client *promclient.Client, bkt objstore.Bucket, opts Options) (
	*Sidecar, error) {
	if err := opts.Validate(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	s := &Sidecar{
		log: log, client: client, m: newMetrics(reg), opts: opts, bkt: bkt,
		reads: semaphore.NewWeighted(int64(opts.MaxReads)), first: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	if bkt != nil {
		if err := s.newShipper(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ships reports whether blocks are shipped.
func (s *Sidecar) ships() bool { return s.bkt != nil }

// Open starts to look at Prometheus, and to ship. It waits for neither. fail is called at most once.
func (s *Sidecar) Open(_ context.Context, fail func(error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.wg.Go(func() { s.watch(ctx, fail) })
	if s.ships() {
		s.wg.Go(func() { s.shipLoop(ctx) })
	}
	return nil
}

// Close stops both, and waits for them. An upload under way is broken off, and resumed by the next start.
func (s *Sidecar) Close() error {
	if s.cancel != nil {
		s.cancel()
	}
	s.wg.Wait()
	return nil
}
