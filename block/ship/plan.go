package ship

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Block is a block on local disk.
type Block struct {
	ID   ulid.ULID
	Dir  string
	Meta tsdb.BlockMeta
	// Fault is why the block cannot be read, nil if it can. Then Meta is not set.
	Fault error
}

// ledger is what is known of the blocks of a directory. Its methods do no I/O and read no clock.
type ledger struct {
	uploaded map[ulid.ULID]time.Time // blocks in the bucket, and since when that is known
	pending  map[ulid.ULID]*pending  // blocks that are not in the bucket
}

// pending is a block that is not in the bucket. Its fields belong to whoever has Shipper.turn.
type pending struct {
	Block
	measured *block.Measured // nil until the whole index was read; kept, since that is expensive
	wait     backoff         // after the block was found to be faulty
	failed   int             // uploads that the bucket did not take
	logged   string          // the last error in the log, so that each is logged once
}

// update takes in which blocks exist now, and returns those that are not in the bucket in the order in which they are
// to be tried: first those that the bucket failed to take least often, as it may refuse a single one for ever.
func (l *ledger) update(blocks []Block) (todo []*pending) {
	uploaded, open := make(map[ulid.ULID]time.Time, len(blocks)), map[ulid.ULID]*pending{}
	for _, b := range blocks {
		if at, is := l.uploaded[b.ID]; is {
			uploaded[b.ID] = at
			continue
		}
		p := l.pending[b.ID]
		if p == nil {
			p = &pending{}
		}
		if p.Block = b; b.Fault != nil {
			p.measured = nil // it may be repaired, and then it is another block
		}
		open[b.ID] = p
		todo = append(todo, p)
	}
	l.uploaded, l.pending = uploaded, open
	slices.SortStableFunc(todo, func(a, b *pending) int { return cmp.Compare(a.failed, b.failed) })
	return todo
}

// done notes that a block is in the bucket since a time, and returns all that are, sorted.
func (l *ledger) done(id ulid.ULID, at time.Time) []ulid.ULID {
	l.uploaded[id] = at
	delete(l.pending, id)
	return l.list()
}

// list are the blocks in the bucket, sorted and never nil.
func (l *ledger) list() []ulid.ULID {
	all := slices.AppendSeq(make([]ulid.ULID, 0, len(l.uploaded)), maps.Keys(l.uploaded))
	slices.SortFunc(all, ulid.ULID.Compare)
	return all
}

// Status is how much is still to be shipped.
type Status struct {
	// Pending is the number of local blocks that are not in the bucket.
	Pending int
	// Oldest is when the oldest of them was made, zero when there is none.
	Oldest time.Time
}

func (l *ledger) status() (s Status) {
	for id := range l.pending {
		s = s.with(Status{1, id.Timestamp()})
	}
	return s
}

// with is the status of two sets of blocks together.
func (s Status) with(o Status) Status {
	oldest := s.Oldest
	if oldest.IsZero() || o.Pending > 0 && o.Oldest.Before(oldest) {
		oldest = o.Oldest
	}
	return Status{s.Pending + o.Pending, oldest}
}

// backoff is the wait after failures in a row.
type backoff struct {
	tries   int
	retryAt time.Time
}

func (b *backoff) waits(now time.Time) bool { return now.Before(b.retryAt) }

// failed makes the next wait, which doubles with each failure up to 32 times retry.
func (b *backoff) failed(now time.Time, retry time.Duration) {
	b.retryAt = now.Add(retry << min(b.tries, 5))
	b.tries++
}

// pass is one try of all blocks that are due. It says after each outcome what that means for the blocks that follow.
type pass struct {
	dark  bool // the bucket failed: nothing else is tried
	taken bool // the bucket took a block
}

// note takes in the outcome of trying b at now: nil when it is in the bucket.
func (p *pass) note(b *pending, err error, now time.Time, retry time.Duration) {
	switch errs.KindOf(err) {
	case errs.OK:
		p.taken = true
	case errs.Invalid: // the block's own fault
		b.wait.failed(now, retry)
	default:
		b.failed++
		p.dark = true
	}
}

// refused reports whether the bucket took nothing, so that the next pass has to wait.
func (p *pass) refused() bool { return p.dark && !p.taken }
