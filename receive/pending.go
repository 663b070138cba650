package receive

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/tsdb"
)

// ship is what is known of one tenant's shipping.
type ship struct {
	turn   chan struct{} // held by the one who ships its blocks; taken before mu. Guards bucket, logged and what pending points to
	bucket backoff       // after the bucket failed
	logged string        // why its blocks could not be listed the last time

	mu       sync.Mutex // guards what follows
	uploaded map[ulid.ULID]bool
	pending  map[ulid.ULID]*pendingBlock // not in the bucket
}

// pendingBlock is a block that is not in the bucket.
type pendingBlock struct {
	tsdb.LocalBlock
	fault  error           // it cannot be read
	stats  *block.Measured // once measured, for which the whole index is read
	wait   backoff         // after it was found to be faulty
	failed int             // uploads that the bucket did not take
	logged string          // why it could not be shipped the last time
}

// backoff is the wait after failures in a row.
type backoff struct {
	tries   int
	retryAt time.Time // not before, except for a flush
}

func (b *backoff) waits() bool { return time.Now().Before(b.retryAt) }

func (b *backoff) failed(retry time.Duration) {
	b.retryAt = time.Now().Add(retry << min(b.tries, 5))
	b.tries++
}

func newShip(uploaded map[ulid.ULID]bool) *ship {
	return &ship{turn: make(chan struct{}, 1), uploaded: uploaded}
}

// begin forgets blocks that are no longer there and returns those that are not in the bucket: first those that the bucket has
// refused least often, as it may take all but one.
func (s *ship) begin(blocks []tsdb.LocalBlock, faults []tsdb.Fault) (todo []*pendingBlock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, pending := make(map[ulid.ULID]bool, len(blocks)), map[ulid.ULID]*pendingBlock{}
	add := func(b tsdb.LocalBlock, fault error) {
		if s.uploaded[b.ID] {
			kept[b.ID] = true
			return
		}
		p := s.pending[b.ID]
		if p == nil {
			p = &pendingBlock{}
		}
		if p.LocalBlock, p.fault = b, fault; fault != nil {
			p.stats = nil
		}
		pending[b.ID] = p
		todo = append(todo, p)
	}
	for _, b := range blocks {
		add(b, nil)
	}
	for _, f := range faults {
		add(tsdb.LocalBlock{ID: f.ID, Dir: f.Dir}, errs.E(errs.Invalid, "block %s: %w", f.Dir, f.Err))
	}
	s.uploaded, s.pending = kept, pending
	slices.SortStableFunc(todo, func(a, b *pendingBlock) int { return cmp.Compare(a.failed, b.failed) })
	return todo
}

// left is how many blocks are not in the bucket, and when the oldest of them was made.
func (s *ship) left() (n int, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.pending {
		if at := ulid.Time(id.Time()); since.IsZero() || at.Before(since) {
			since = at
		}
	}
	return len(s.pending), since
}

// done records a shipped block in memory, then on disk.
func (s *ship) done(dir string, id ulid.ULID) error {
	s.mu.Lock()
	s.uploaded[id] = true
	delete(s.pending, id)
	ids := make([]ulid.ULID, 0, len(s.uploaded))
	for u := range s.uploaded {
		ids = append(ids, u)
	}
	s.mu.Unlock()
	slices.SortFunc(ids, ulid.ULID.Compare)
	return writeShipped(dir, ids)
}
