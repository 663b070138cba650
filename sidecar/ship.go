package sidecar

import (
	"context"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/ship"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/filewatch"
)

// settle is how long the directory must be left alone after a change before it is looked at.
const settle = time.Second

// retryShip is the wait after the first failure of the bucket or of a block.
const retryShip = 10 * time.Second

func (s *Sidecar) newShipper() (err error) {
	o := s.opts.Ship
	s.ship, err = ship.New(s.log, s.m.ship, s.bkt, s.candidates, ship.Options{
		Record: filepath.Join(o.Dir, o.Record), Origin: s.origin, Check: s.checkOverlap, RecordAlways: true,
		Timeout: o.Timeout, Retry: retryShip, Upload: o.Upload,
	})
	return err
}

// shipLoop ships once Prometheus could be served, every interval and when its directory changes.
func (s *Sidecar) shipLoop(ctx context.Context) {
	select {
	case <-s.first:
	case <-ctx.Done():
		return
	}
	s.shipOnce(ctx)
	o := s.opts.Ship
	files := []string{filepath.Join(o.Dir, o.Record)}
	stop := filewatch.Follow(s.log, files, o.Interval, settle, func() { s.shipOnce(ctx) })
	<-ctx.Done()
	stop()
}

func (s *Sidecar) shipOnce(ctx context.Context) {
	if _, err := s.known(); err != nil { // the external labels are not known, or will not do
		return
	}
	err := s.ship.Ship(ctx, false)
	if ctx.Err() != nil {
		return
	}
	status := s.ship.Status()
	s.m.ship.Report([]ship.Status{status}, err)
	if err != nil {
		s.m.syncFailures.Inc()
	} else {
		s.m.syncs.Inc()
	}
	s.m.compacted.Set(oneIf(s.opts.Ship.Compacted && err == nil && status.Pending == 0))
}

// candidates lists the blocks that are to be in the bucket.
func (s *Sidecar) candidates() ([]ship.Block, error) {
	all, err := ship.Dir(s.opts.Ship.Dir)()
	if err != nil {
		return nil, err
	}
	chosen := choose(all, s.opts.Ship.Compacted)
	for _, b := range chosen {
		if b.Fault != nil {
			s.m.corrupted.Inc()
		}
	}
	return chosen, nil
}

// choose are the blocks of all that are to be in the bucket. Compaction makes other blocks of the same samples, so only
// those that were never compacted are, unless compacted is set. A failed compaction is a matter of the Prometheus
// that has the block: in the bucket the mark would keep the block from ever being compacted.
func choose(all []ship.Block, compacted bool) []ship.Block {
	var chosen []ship.Block
	for _, b := range all {
		if b.Fault == nil && (b.Meta.Stats.NumSamples == 0 || b.Meta.Compaction.Level > 1 && !compacted) {
			continue
		}
		b.Meta.Compaction.Failed = false
		chosen = append(chosen, b)
	}
	return chosen
}

// origin is Thanos's part of the meta.json of a block: the external labels of now, which Prometheus does not note in
// its blocks.
func (s *Sidecar) origin(ship.Block) block.Thanos {
	known, err := s.known()
	if err != nil {
		return block.Thanos{Source: block.SourceSidecar} // without labels it is not valid, and not uploaded
	}
	t := block.Thanos{Labels: map[string]string{}, Source: block.SourceSidecar}
	view{s, true}.external(known).Range(func(l labels.Label) { t.Labels[l.Name] = l.Value })
	return t
}

// checkOverlap refuses a compacted block that overlaps with another block of the same labels in the bucket: its samples
// may be there already, and nothing says so.
func (s *Sidecar) checkOverlap(ctx context.Context, b ship.Block) error {
	origin := s.origin(b)
	if len(origin.Labels) == 0 {
		return errs.E(errs.Unavailable, "the external labels of Prometheus are not known")
	}
	if b.Meta.Compaction.Level <= 1 {
		return nil
	}
	there, err := block.NewFetcher(s.bkt, block.FetcherOptions{}).Fetch(ctx)
	if err != nil {
		return err
	}
	for id, err := range there.Partial {
		if kind := errs.KindOf(err); kind != errs.NotFound && kind != errs.Invalid {
			return errs.E(errs.Unavailable, "block %s in the bucket cannot be read: %w", id, err)
		}
	}
	if other := ship.Overlapping(there, b, origin); other != nil {
		return errs.E(errs.Invalid, "block %s was compacted, and overlaps with block %s in the bucket", b.ID, other.ULID)
	}
	return nil
}
