package ship

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/indexheader"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// ErrBusy is the error of Ship while another call of it is under way.
var ErrBusy = errors.New("the blocks are being shipped")

// lookTimeout bounds a look at one block's meta.json in the bucket, which is small.
const lookTimeout = 30 * time.Second

// Shipper ships the blocks of one directory. It is safe for concurrent use.
type Shipper struct {
	log  *slog.Logger
	m    *Metrics
	bkt  objstore.Bucket
	list Lister
	opts Options
	load func() // reads the record at the first use

	turn   chan struct{} // held by the one call of Ship that is under way; it owns bucket, logged and all pending
	bucket backoff       // after the bucket failed
	logged string        // why the blocks could not be listed the last time
	wrote  []ulid.ULID   // what the record lists, nil until this process wrote it; belongs to whoever has turn

	mu     sync.Mutex // guards ledger
	ledger ledger
}

// New makes a shipper of the blocks that list names. log says whose blocks they are. It does no I/O.
func New(log *slog.Logger, m *Metrics, bkt objstore.Bucket, list Lister, opts Options) (*Shipper, error) {
	if err := opts.Validate(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	s := &Shipper{log: log, m: m, bkt: bkt, list: list, opts: opts, turn: make(chan struct{}, 1)}
	s.load = sync.OnceFunc(s.readRecord)
	return s, nil
}

// readRecord makes the ledger. Without the record every block is looked up in the bucket, which knows the same.
func (s *Shipper) readRecord() {
	uploaded, err := readRecord(s.opts.Record)
	if err != nil {
		s.log.Warn("list of shipped blocks not read", "file", s.opts.Record, "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger.uploaded = make(map[ulid.ULID]time.Time, len(uploaded))
	now := time.Now()
	for id := range uploaded {
		s.ledger.uploaded[id] = now
	}
}

// Shipped reports whether the block's meta.json is in the bucket, as far as this process has seen.
func (s *Shipper) Shipped(id ulid.ULID) bool {
	_, is := s.ShippedAt(id)
	return is
}

// ShippedAt is since when this process knows that the block's meta.json is in the bucket. ok is false if it is not,
// as far as is known.
func (s *Shipper) ShippedAt(id ulid.ULID) (at time.Time, ok bool) {
	s.load()
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok = s.ledger.uploaded[id]
	return at, ok
}

// Status is how much the last call of Ship has left.
func (s *Shipper) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.status()
}

// WaitIdle waits until no call of Ship is under way. The error is that of ctx.
func (s *Shipper) WaitIdle(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		<-s.turn
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Ship tries all blocks that are not in the bucket, oldest first among those that failed equally often:
//
//  1. upload, whose last step is meta.json in the bucket
//  2. the block counts as shipped
//  3. the record lists it
//
// A crash in between ships the block again, which finds it in the bucket. Unless force is set, blocks and buckets
// that failed are left alone until their wait is over, which is no error. Errors: ErrBusy while another call is under
// way; those of the blocks, where Invalid means that a block is faulty; that of the Lister.
func (s *Shipper) Ship(ctx context.Context, force bool) error {
	select {
	case s.turn <- struct{}{}:
	default:
		return ErrBusy
	}
	defer func() { <-s.turn }()
	s.load()
	blocks, err := s.list()
	if err != nil {
		s.unlisted(err)
		return err
	}
	s.mu.Lock()
	todo := s.ledger.update(blocks)
	there := s.ledger.list()
	s.mu.Unlock()
	if err := s.keepRecord(there); err != nil {
		return err
	}
	if !force && s.bucket.waits(time.Now()) {
		return nil
	}
	var p pass
	var faults []error
	for _, b := range todo {
		if !force && b.wait.waits(time.Now()) {
			continue
		}
		err := s.check(ctx, b)
		if errs.KindOf(err) == errs.Conflict {
			s.passOver(b, err)
			continue
		}
		if err = s.try(ctx, b, err); err != nil {
			faults = append(faults, err)
		}
		if ctx.Err() != nil {
			break
		}
		p.note(b, err, time.Now(), s.opts.Retry)
		s.tell(b, err)
		if p.dark {
			break
		}
	}
	switch {
	case p.refused():
		s.bucket.failed(time.Now(), s.opts.Retry)
	case ctx.Err() == nil:
		s.bucket, s.logged = backoff{}, ""
	}
	return errs.Few(faults)
}

// check is the error of Options.Check.
func (s *Shipper) check(ctx context.Context, b *pending) error {
	if s.opts.Check == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	return s.opts.Check(ctx, b.Block)
}

// passOver logs each reason once for which b is not sent.
func (s *Shipper) passOver(b *pending, err error) {
	if text := err.Error(); b.logged != text {
		b.logged = text
		s.log.Info("block is not shipped", "block", b.ID, "reason", err)
	}
}

// unlisted counts that the blocks cannot be listed, and logs each reason once.
func (s *Shipper) unlisted(err error) {
	s.m.Failures.Inc()
	if text := err.Error(); s.logged != text {
		s.logged = text
		s.log.Error("blocks cannot be listed, and are not shipped", "err", err)
	}
}

// tell counts that b was not shipped, and logs each reason once.
func (s *Shipper) tell(b *pending, err error) {
	if err == nil {
		return
	}
	s.m.Failures.Inc()
	if text := err.Error(); b.logged != text {
		b.logged = text
		s.log.Warn("block not shipped, will be tried again", "block", b.ID, "err", err)
	}
}

// try ships b, unless err is why not. A block that is faulty here may be whole in the bucket, and then it is shipped.
func (s *Shipper) try(ctx context.Context, b *pending, err error) error {
	switch {
	case err != nil:
	case b.Fault != nil:
		err = errs.E(errs.Invalid, "block %s: %w", b.Dir, b.Fault)
	default:
		err = s.upload(ctx, b)
	}
	if errs.KindOf(err) == errs.Invalid && s.inBucket(ctx, b.ID) {
		err = nil
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	uploaded := s.ledger.done(b.ID, time.Now())
	s.mu.Unlock()
	return s.writeRecord(uploaded)
}

// keepRecord writes the record where it lists other blocks than those in the bucket, if that is wanted.
func (s *Shipper) keepRecord(uploaded []ulid.ULID) error {
	if !s.opts.RecordAlways || s.wrote != nil && slices.Equal(s.wrote, uploaded) {
		return nil
	}
	return s.writeRecord(uploaded)
}

func (s *Shipper) writeRecord(uploaded []ulid.ULID) error {
	err := writeRecord(s.opts.Record, uploaded)
	if err == nil {
		s.wrote = uploaded
	}
	return err
}

// inBucket reports whether the bucket has a whole meta.json of a block.
func (s *Shipper) inBucket(ctx context.Context, id ulid.ULID) bool {
	ctx, cancel := context.WithTimeout(ctx, min(lookTimeout, s.opts.Timeout))
	defer cancel()
	_, err := block.FetchMeta(ctx, s.bkt, id)
	return err == nil
}

// upload measures b, unless an earlier try has, and sends it.
func (s *Shipper) upload(ctx context.Context, b *pending) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	start := time.Now()
	if b.measured == nil {
		m, err := block.Measure(ctx, b.Dir)
		if err != nil {
			return err
		}
		b.measured = m
	}
	if err := b.measured.Complete(b.Dir); err != nil {
		return err
	}
	meta := block.Meta{BlockMeta: b.Meta, Thanos: s.opts.Origin(b.Block)}
	meta.Thanos.IndexStats = b.measured.IndexStats
	header, err := indexheader.Shipped(b.Dir)
	if err != nil {
		return err
	}
	opts := s.opts.Upload
	opts.Extra = append(slices.Clone(opts.Extra), header)
	if err := block.UploadWith(ctx, s.bkt, b.Dir, meta, opts); err != nil {
		return err
	}
	s.m.Shipped.Inc()
	s.m.Duration.Observe(time.Since(start).Seconds())
	s.log.Info("block shipped", "block", b.ID, "min_time", b.Meta.MinTime, "max_time", b.Meta.MaxTime,
		"series", b.Meta.Stats.NumSeries, "took", time.Since(start))
	return nil
}
