package selfscrape

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/wire"
)

// metadataInterval is how often families' metadata is sent again: as often as Prometheus does.
const metadataInterval = time.Minute

// Push stores a batch. It retains the batch itself if it needs it beyond its return.
type Push func(ctx context.Context, b *wire.Batch) error

// Scraper scrapes the process it runs in.
type Scraper struct {
	log      *slog.Logger
	gatherer prometheus.Gatherer
	push     Push
	opts     Options
	metrics  *metrics

	// The loop's own state.
	live     map[wire.Key][]byte // label bytes of the series to mark stale when they vanish
	metaSent time.Time
	failed   time.Time // since when scrapes fail; zero = the last one did not
	warned   bool      // the log says that they do

	cancel context.CancelFunc // set by Open
	wg     sync.WaitGroup
}

// New returns a Scraper of gatherer. If gatherer is a registry, the Scraper's own metrics are in it too.
func New(log *slog.Logger, gatherer prometheus.Gatherer, push Push, opts Options) (*Scraper, error) {
	if err := opts.Validate(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	reg, _ := gatherer.(prometheus.Registerer)
	return &Scraper{log: log, gatherer: gatherer, push: push, opts: opts, metrics: newMetrics(reg)}, nil
}

// Open starts the loop; its first scrape is at once. What goes wrong is logged and counted, and never ends the process.
func (s *Scraper) Open(_ context.Context, _ func(error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.wg.Go(func() { s.run(ctx) })
	return nil
}

// Close ends the loop and waits for a push under way, whose context has ended.
func (s *Scraper) Close() error {
	if s.cancel != nil {
		s.cancel()
	}
	s.wg.Wait()
	return nil
}

func (s *Scraper) run(ctx context.Context) {
	if !s.awaitReady(ctx) {
		return
	}
	tick := time.NewTicker(s.opts.Interval)
	defer tick.Stop()
	for {
		s.report(ctx, s.scrape(ctx))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// awaitReady waits until samples can be stored. It is false when ctx ended first.
func (s *Scraper) awaitReady(ctx context.Context) bool {
	const every = 200 * time.Millisecond
	for s.opts.Ready != nil && s.opts.Ready() != nil {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(every):
		}
	}
	return ctx.Err() == nil
}

// scrape gathers, converts and pushes once.
func (s *Scraper) scrape(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Interval)
	defer cancel()
	start := s.opts.Now()
	families, gatherErr := s.gatherer.Gather() // some families may be there in spite of an error
	c := newConversion(s.opts, start.UnixMilli())
	for _, f := range families {
		c.family(f)
	}
	if start.Sub(s.metaSent) < metadataInterval {
		c.batch.Metadata = nil
	}
	c.reportSamples(gatherErr == nil || len(families) > 0, s.opts.Now().Sub(start), s.live)
	c.staleMarkers(s.live)
	s.metrics.samples.Set(float64(c.scraped))

	pushErr := s.push(ctx, c.batch)
	if pushErr == nil {
		s.live = c.live
		if len(c.batch.Metadata) > 0 {
			s.metaSent = start
		}
	} else {
		s.keepLive(c.live)
	}
	c.batch.Release()
	return errors.Join(wrap("gather", gatherErr), wrap("push", pushErr))
}

// keepLive adds the series that a failed push may have stored to the series that get stale markers.
func (s *Scraper) keepLive(live map[wire.Key][]byte) {
	for key, ls := range s.live {
		live[key] = ls
	}
	s.live = live
}

// patience is how long scrapes may fail before the log says so: while a cluster starts, or one of its members restarts,
// a scrape may find no quorum.
const patience = time.Minute

// report counts an outcome and logs when it lasts or ends.
func (s *Scraper) report(ctx context.Context, err error) {
	now := s.opts.Now()
	switch {
	case ctx.Err() != nil: // closing
	case err == nil:
		s.metrics.scrapes.WithLabelValues("ok").Inc()
		if s.warned {
			s.log.Info("own metrics are stored again")
		}
		s.failed, s.warned = time.Time{}, false
	default:
		s.metrics.scrapes.WithLabelValues("failed").Inc()
		if s.failed.IsZero() {
			s.failed = now
		}
		if !s.warned && now.Sub(s.failed) >= patience {
			s.log.Warn("own metrics are not stored", "since", s.failed.UTC().Format(time.RFC3339), "err", firstLines(err))
			s.warned = true
		}
	}
}

// firstLines are the first lines of err. One series is enough, since the others fail alike.
func firstLines(err error) string {
	lines := strings.SplitN(err.Error(), "\n", 3)
	return strings.Join(lines[:min(len(lines), 2)], "; ")
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
